-- Unix stream sockets: served by Prosody's event loop, or for one short blocking question.
local server = require "net.server";
local gettime = require "socket".gettime;
local unix = require "socket.unix";
local new_stream = type(unix) == "table" and unix.stream or unix; -- older LuaSocket returns the constructor itself

local function connect(path, timeout)
	local socket, err = new_stream();
	if not socket then return nil, err; end
	socket:settimeout(timeout);
	local ok;
	ok, err = socket:connect(path);
	if not ok then
		socket:close();
		return nil, err;
	end
	return socket;
end

-- Connects to the socket at `path`; `listeners` are those of net.server. Returns the connection, or nil and an error.
local function open(path, listeners)
	local socket, err = connect(path, 0);
	if not socket then return nil, err; end
	local conn;
	conn, err = server.wrapclient(socket, path, 0, listeners, "*a");
	-- It is connected already. Else server_epoll takes what a server says first for a connection timeout.
	if conn and conn.onconnect then conn:onconnect(); end
	return conn, err;
end

-- Sends `request` on a connection of its own and reads `size` bytes, blocking at most `limit` seconds.
-- Returns them, or nil and an error.
local function ask(path, request, size, limit)
	local deadline = gettime() + limit;
	local socket, err = connect(path, limit);
	if not socket then return nil, err; end
	local answer;
	local ok = socket:settimeout(math.max(0, deadline - gettime()), "t");
	if ok then ok, err = socket:send(request); end
	if ok then
		socket:settimeout(math.max(0, deadline - gettime()), "t");
		answer, err = socket:receive(size);
	end
	socket:close();
	return answer, err;
end

return { open = open; ask = ask };
