-- A client of the Dovecot authentication protocol, version 1.2: one connection that comes back by itself and carries
-- any number of exchanges at once.
--
-- Beyond that protocol, a server whose MECH lines have the parameter "extauth" understands MECHS, which asks for the
-- mechanisms to offer on one stream, and TOKENS, which asks for the tokens that a login gets.
local async = require "util.async";
local gettime = require "util.time".monotonic;
local unix = module:require "unix";

local MAX_LINE = 16384; -- Dovecot's limit for a line
local MAX_EXTENDED_LINE = 65536; -- extauth's: a certificate and a long token
local MAX_ID = 0xffffffff;
local CONNECT_LIMIT = 5; -- seconds without a connection after which first messages fail at once
local HANDSHAKE_LIMIT = 5;
local ANSWER_LIMIT = 30; -- seconds the server has for one step
local CLIENT_LIMIT = 60; -- seconds the XMPP client has for one step
local RETRY_FIRST, RETRY_MOST = 0.1, 2; -- seconds between attempts to connect

local client = {};
client.__index = client;

-- Splits a line at its tabs; empty fields count.
local function split(line)
	local fields = {};
	for field in (line .. "\t"):gmatch("([^\t]*)\t") do
		fields[#fields + 1] = field;
	end
	return fields;
end

local ESCAPES = { ["\0"] = "\0010"; ["\1"] = "\0011"; ["\t"] = "\1t"; ["\r"] = "\1r"; ["\n"] = "\1n" };
local UNESCAPES = { ["0"] = "\0"; ["1"] = "\1"; t = "\t"; r = "\r"; n = "\n" };

local function escape(value)
	return (value:gsub("[%z\1\t\r\n]", ESCAPES));
end

local function unescape(value)
	return (value:gsub("\1(.)", UNESCAPES));
end

-- The parameters of an answer, from its third field on.
local function parameters(answer)
	local found = {};
	for i = 3, #answer do
		local key, value = answer[i]:match("^([^=]+)=?(.*)$");
		if key then found[key] = unescape(value); end
	end
	return found;
end

-- Tells whether the caller may wait: it is in one of Prosody's runners, and not below a C function such as an XML
-- parser.
local function can_wait()
	return async.ready() and (not coroutine.isyieldable or coroutine.isyieldable());
end

-- A client of the socket at `path`, not yet connected. `on_ready` is called after each handshake.
local function new(path, on_ready)
	local self = setmetatable({
		path = path;
		on_ready = on_ready;
		exchanges = {}; -- by id: those the server knows of
		backlog = {}; -- those waiting for the connection, in order
		last_id = 0;
		retry = RETRY_FIRST;
		reported = true; -- the state of the connection is in the log
	}, client);
	self.listeners = {
		onincoming = function (conn, data) self:received(conn, data); end;
		ondisconnect = function (conn, err) self:lost(conn, err or "closed by the server"); end;
		onreadtimeout = function () return true; end; -- silence is normal
	};
	return self;
end

-- Connects, and connects again whenever the connection is lost, until `stop`.
function client:start()
	self.running, self.lost_at = true, gettime();
	self.sweeper = module:add_timer(1, function () self:sweep(); return 1; end);
	self:connect();
end

-- Ends the connection; whoever waits gets no answer.
function client:stop()
	if not self.running then return; end
	self.running = false;
	self.sweeper:stop();
	if self.retry_timer then self.retry_timer:stop(); end
	local conn = self.conn;
	self:lost(conn, "stopped");
	if conn then conn:close(); end
	local backlog = self.backlog;
	self.backlog = {};
	for _, exchange in ipairs(backlog) do self:deliver(exchange); end
end

function client:connect()
	self.retry_timer = nil;
	local conn, err = unix.open(self.path, self.listeners);
	if not conn then
		return self:failed(err);
	end
	self.conn, self.buffer, self.ready = conn, "", false;
	self.extended, self.offers = false, {};
	self.handshake_deadline = gettime() + HANDSHAKE_LIMIT;
	-- Dovecot wants a process id that no other connection has, and each virtual host has its own connection.
	conn:write(("VERSION\t1\t2\nCPID\t%d\n"):format(math.random(1, 0x7fffffff)));
end

function client:failed(err)
	if not self.running then return; end
	if self.reported then
		self.reported = false;
		module:log("warn", "No authentication service at %s (%s), trying again and again", self.path, err);
	end
	self.retry_timer = module:add_timer(self.retry, function () self:connect(); end);
	self.retry = math.min(self.retry * 2, RETRY_MOST);
end

function client:lost(conn, err)
	if conn ~= self.conn then return; end
	local exchanges = self.exchanges;
	if self.ready then self.lost_at = gettime(); end
	self.conn, self.ready, self.exchanges = nil, false, {};
	for _, exchange in pairs(exchanges) do
		exchange.conn = nil;
		self:deliver(exchange);
	end
	self:failed(err);
end

-- Closes a connection on which the server broke the protocol.
function client:drop(reason)
	module:log("error", "Authentication service at %s: %s", self.path, reason);
	local conn = self.conn;
	self:lost(conn, reason);
	conn:close();
end

function client:received(conn, data)
	if conn ~= self.conn then return; end
	local lines = self.buffer .. data;
	local rest = lines:match("[^\n]*$");
	self.buffer = rest;
	if #rest > MAX_EXTENDED_LINE then
		return self:drop("line too long");
	end
	for line in lines:sub(1, #lines - #rest):gmatch("([^\n]*)\n") do
		self:handle(split(line));
		if conn ~= self.conn then return; end -- what the line woke up may have ended the connection
	end
end

function client:handle(fields)
	local verb = fields[1];
	if not self.ready then
		if verb == "VERSION" and fields[2] ~= "1" then
			self:drop("speaks version " .. tostring(fields[2]));
		elseif verb == "MECH" and fields[2] then
			local flags = {};
			for i = 3, #fields do flags[fields[i]] = true; end
			self.offers[fields[2]] = flags;
			self.extended = self.extended or flags.extauth;
		elseif verb == "DONE" then
			self:handshake_done();
		end
		return;
	end
	local exchange = self.exchanges[tonumber((fields[2] or ""):match("^%d+$"))];
	if not exchange or not (verb == "OK" or verb == "FAIL" or verb == "CONT" or verb == "MECHS" or verb == "TOKENS") then
		module:log("debug", "Ignoring %s %s from the authentication service", verb, tostring(fields[2]));
		return;
	end
	if not exchange.on_answer then -- a line too many: whose turn it is can no longer be told
		self:cancel(exchange);
		return;
	end
	if verb == "CONT" then
		exchange.deadline = gettime() + CLIENT_LIMIT;
	else
		self.exchanges[exchange.id], exchange.conn = nil, nil;
	end
	self:deliver(exchange, fields);
end

function client:handshake_done()
	self.ready = true;
	if not next(self.offers) then self.extended = true; end -- Dovecot has always some
	self.retry = RETRY_FIRST;
	if not self.reported then
		self.reported = true;
		module:log("info", "Connected to the authentication service at %s", self.path);
	end
	local backlog = self.backlog;
	self.backlog = {};
	self.on_ready();
	for _, exchange in ipairs(backlog) do
		if exchange.first then
			self:send(exchange, table.unpack(exchange.first));
		else
			self:deliver(exchange, {});
		end
	end
end

-- Hands an answer, or nil for none, to whoever waits for it. An error there must not take others' answers with it.
function client:deliver(exchange, answer)
	local on_answer = exchange.on_answer;
	if not on_answer then return; end
	exchange.on_answer = nil;
	local ok, err = xpcall(on_answer, debug.traceback, answer);
	if not ok then module:log("error", "After an answer: %s", err); end
end

function client:send(exchange, verb, rest)
	if not exchange.id then
		repeat
			self.last_id = self.last_id % MAX_ID + 1;
		until not self.exchanges[self.last_id];
		exchange.id, exchange.conn = self.last_id, self.conn;
		self.exchanges[exchange.id] = exchange;
	end
	exchange.deadline = gettime() + ANSWER_LIMIT;
	self.conn:write(("%s\t%d%s\n"):format(verb, exchange.id, rest));
end

-- Sends a line of an exchange: its verb, and what follows the id. A new exchange is a table with its session, if any.
-- `on_answer` is called once, with the fields of the answer or with nil when none will come.
function client:submit(exchange, on_answer, verb, rest)
	exchange.on_answer = on_answer;
	if #verb + #rest + 12 > (self.extended and MAX_EXTENDED_LINE or MAX_LINE) then
		self:cancel(exchange);
	elseif exchange.id then
		if exchange.conn ~= self.conn or not self.conn then return self:deliver(exchange); end
		self:send(exchange, verb, rest);
	elseif self.ready then
		self:send(exchange, verb, rest);
	else
		self:enqueue(exchange, { verb; rest });
	end
end

function client:enqueue(exchange, first)
	exchange.first = first;
	exchange.deadline = self.running and self.lost_at + CONNECT_LIMIT or 0;
	if exchange.deadline <= gettime() then return self:deliver(exchange); end
	table.insert(self.backlog, exchange);
end

-- Sends a line as `submit` does and waits. Returns the fields of the answer, or nil.
function client:ask(exchange, verb, rest)
	local wait, done = async.waiter();
	local answer;
	self:submit(exchange, function (fields)
		answer = fields;
		done();
	end, verb, rest);
	wait();
	return answer;
end

-- Waits for the connection; returns whether it is there.
function client:wait_ready(session)
	if self.ready then return true; end
	local wait, done = async.waiter();
	self:enqueue({ session = session; on_answer = done });
	wait();
	return self.ready;
end

-- Ends an exchange early, here and at the server; who waits for it gets no answer.
function client:cancel(exchange)
	if exchange.conn and exchange.conn == self.conn then
		self.exchanges[exchange.id] = nil;
		self.conn:write(("CANCEL\t%d\n"):format(exchange.id));
	end
	exchange.conn = nil;
	for i, waiting in ipairs(self.backlog) do
		if waiting == exchange then
			table.remove(self.backlog, i);
			break;
		end
	end
	self:deliver(exchange);
end

-- Cancels what took too long and what belongs to sessions that ended.
function client:sweep()
	local now = gettime();
	if self.conn and not self.ready and now > self.handshake_deadline then
		self:drop("no handshake");
	end
	local over = {};
	local function look(exchange)
		local session = exchange.session;
		if now > exchange.deadline or session and session.destroyed then over[#over + 1] = exchange; end
	end
	for _, exchange in pairs(self.exchanges) do look(exchange); end
	for _, exchange in ipairs(self.backlog) do look(exchange); end
	for _, exchange in ipairs(over) do self:cancel(exchange); end
end

return { new = new; can_wait = can_wait; escape = escape; parameters = parameters };
