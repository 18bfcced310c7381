-- Which mechanisms to offer on a stream: the daemon decides.
local gettime = require "util.time".monotonic;
local sasl = module:require "sasl";

local host = module.host;

local MECHANISMS_LIFE = 1; -- seconds a list of mechanisms holds without asking again

local client;
local found = { on_list = function () end }; -- what this library has; on_list is called with what protected streams are offered
local lists = {}; -- by the parameters of the question: { names, asked }

-- The parameters that describe a client's certificate, which the server has verified.
local function certificate_parameters(stream)
	if not stream.certificate then return ""; end
	local user = stream.certificate_user and "\tcert_username=" .. sasl.escape(stream.certificate_user) or "";
	return "\tvalid-client-cert" .. user .. "\tcert=" .. stream.certificate;
end

-- The parameters of a question for mechanisms.
local function list_key(stream)
	local secured = stream.secured == "tls" and "\tsecured=tls" or stream.secured and "\tsecured" or "";
	local types = stream.types[1] and "\tcb=" .. table.concat(stream.types, ",") or "";
	return "\tdomain=" .. sasl.escape(host) .. secured .. types .. certificate_parameters(stream);
end

local function keep_list(kept, key, answer)
	if not answer or answer[1] ~= "MECHS" then return; end
	local names = {};
	for i = 3, #answer do
		-- RFC 4422, 3.1: at most twenty of these; web clients and tokens have longer ones.
		if answer[i]:match("^[%u%d_-]+$") then names[answer[i]] = true; end
	end
	kept[key] = { names = names; asked = gettime() };
	if key:find("\tsecured", 1, true) then found.on_list(names); end
end

local function ask_for_list(kept, key)
	client:submit({}, function (answer) keep_list(kept, key, answer); end, "MECHS", key);
end

-- What a server without our extension offers: it cannot know the host, and binds channels in a way of its own.
local function plain_dovecot_list(stream)
	local names = {};
	for name, flags in pairs(client.offers) do
		if not (flags.private or flags.anonymous or flags["channel-binding"] or name:match("%-PLUS$"))
			and (name ~= "EXTERNAL" or stream.certificate) then
			names[name] = true;
		end
	end
	return names;
end

-- Returns the set of mechanisms to offer on a stream, or nil if nobody knows.
local function mechanisms_for(stream, session)
	local key = list_key(stream);
	local kept = stream.certificate and stream.lists or lists; -- no two streams show the same certificate
	local known = kept[key];
	if known and client.ready and gettime() - known.asked < MECHANISMS_LIFE then return known.names; end
	local can_wait = sasl.can_wait();
	if not client.ready and (known or not can_wait or not client:wait_ready(session)) then
		return known and known.names; -- the login itself will wait for the service
	end
	if not client.extended then return plain_dovecot_list(stream); end
	if can_wait then
		keep_list(kept, key, client:ask({ session = session }, "MECHS", key));
	else
		ask_for_list(kept, key);
	end
	return kept[key] and kept[key].names;
end

client = sasl.new(module:get_option_string("extauth_socket", "/run/extauth/sasl.sock"), function ()
	for _, list in pairs(lists) do list.asked = -math.huge; end
	if client.extended then
		-- BOSH asks where it cannot wait; its streams have no TLS of their own.
		for _, secured in ipairs { false, "" } do ask_for_list(lists, list_key { secured = secured; types = {} }); end
	end
end);

found.client, found.mechanisms_for, found.certificate_parameters = client, mechanisms_for, certificate_parameters;
return found;
