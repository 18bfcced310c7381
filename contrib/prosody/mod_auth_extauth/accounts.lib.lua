-- A client of ejabberd's external authentication protocol: each message is two bytes of length and a text, and the
-- answer is the number 0 or 1 in two bytes. An answer names no question, so a connection carries one at a time.
local async = require "util.async";
local unix = module:require "unix";

local MOST_CONNECTIONS = 8;
local ANSWER_LIMIT = 10; -- seconds for one question, waiting for a free connection included
local BLOCKING_LIMIT = 1; -- seconds, where Prosody cannot wait in any other way
local BLOCKING_PAUSE = 5; -- seconds without blocking questions after an unanswered one
local UNKNOWN = "the authentication service does not answer";

local gettime = require "util.time".monotonic;

local accounts = {};
accounts.__index = accounts;

local function new(path)
	local self = setmetatable({ path = path; links = {}; count = 0; idle = {}; waiting = {} }, accounts);
	self.listeners = {
		onincoming = function (conn, data) self:received(conn, data); end;
		ondisconnect = function (conn) self:lost(conn); end;
		onreadtimeout = function () return true; end;
	};
	return self;
end

local function frame(text)
	return string.char(#text // 256, #text % 256) .. text;
end

-- Returns true or false, or nil for anything but an answer.
local function decode(data)
	if data == "\0\2\0\1" then return true; end
	if data == "\0\2\0\0" then return false; end
	return nil;
end

-- Puts a question: a verb and its fields. Returns true or false, or nil and an error when that cannot be told.
-- `may_wait` tells whether the caller can wait without blocking Prosody.
function accounts:ask(may_wait, ...)
	local text = table.concat({ ... }, ":");
	if #text > 0xffff then return nil, "too long"; end
	local answer;
	if may_wait then
		local wait, done = async.waiter();
		self:submit(text, function (value)
			answer = value;
			done();
		end);
		wait();
	elseif gettime() >= (self.blocking_again or 0) then
		answer = decode(unix.ask(self.path, frame(text), 4, BLOCKING_LIMIT));
		if answer == nil then self.blocking_again = gettime() + BLOCKING_PAUSE; end
	end
	if answer == nil then return nil, UNKNOWN; end
	return answer;
end

function accounts:submit(text, on_answer)
	local question = { text = text; on_answer = on_answer };
	question.timer = module:add_timer(ANSWER_LIMIT, function () self:give_up(question); end);
	table.insert(self.waiting, question);
	self:work();
end

-- Puts waiting questions as far as there are connections.
function accounts:work()
	while self.waiting[1] do
		local conn = table.remove(self.idle);
		if not conn and self.count < MOST_CONNECTIONS then
			conn = unix.open(self.path, self.listeners);
			if not conn then
				self:finish(table.remove(self.waiting, 1));
				goto continue;
			end
			self.count = self.count + 1;
		end
		if not conn then return; end
		local question = table.remove(self.waiting, 1);
		question.conn = conn;
		self.links[conn] = { question = question; buffer = "" };
		conn:write(frame(question.text));
		::continue::
	end
end

function accounts:finish(question, answer)
	question.timer:stop();
	question.on_answer(answer);
end

function accounts:received(conn, data)
	local link = self.links[conn];
	if not link then return; end
	link.buffer = link.buffer .. data;
	local buffer, question = link.buffer, link.question;
	local size = #buffer < 2 and 2 or 2 + buffer:byte(1) * 256 + buffer:byte(2);
	if not question or #buffer > size then -- from now on nobody knows what answers what
		self:lost(conn);
		conn:close();
	elseif #buffer == size then
		self.links[conn] = { buffer = "" };
		table.insert(self.idle, conn);
		self:finish(question, decode(buffer));
		self:work();
	end
end

function accounts:lost(conn)
	local link = self.links[conn];
	if not link then return; end
	self.links[conn] = nil;
	self.count = self.count - 1;
	for i, other in ipairs(self.idle) do
		if other == conn then
			table.remove(self.idle, i);
			break;
		end
	end
	if link.question then self:finish(link.question); end
	self:work();
end

function accounts:give_up(question)
	if question.conn then
		self:lost(question.conn);
		question.conn:close();
		return;
	end
	for i, other in ipairs(self.waiting) do
		if other == question then
			table.remove(self.waiting, i);
			break;
		end
	end
	self:finish(question);
end

-- Closes all connections; whoever waits gets no answer.
function accounts:stop()
	local waiting, links = self.waiting, self.links;
	self.waiting = {};
	for _, question in ipairs(waiting) do self:finish(question); end
	for conn in pairs(links) do
		self:lost(conn);
		conn:close();
	end
end

return new;
