-- Lets extauth decide Prosody's logins: every SASL exchange is relayed to its `dovecot` listener, account operations
-- go to its `ejabberd` listener. See README.md. For Prosody 0.12 and 13 on Lua 5.4.
local base64 = require "util.encodings".base64;
local valid_utf8 = require "util.encodings".utf8.valid;

local sasl = module:require "sasl";
local mechanisms = module:require "mechanisms";
local describe = module:require "stream";
local accounts = module:require "provider";

local anonymous_s2s = module:get_option_boolean("allow_anonymous_s2s", false);

local host = module.host;
local client = mechanisms.client;

-- Exchanges -------------------------------------------------------------------------------------------------------

-- Conditions of RFC 6120, 6.5, by code= of FAIL.
local CONDITIONS = {
	temp_fail = "temporary-auth-failure";
	authz_fail = "invalid-authzid";
	user_disabled = "account-disabled";
	pass_expired = "credentials-expired";
};
local UNAVAILABLE = "The authentication service is not available";
-- Parameters of OK that describe the exchange and not the user.
local NOT_ATTRIBUTES = { user = true; resp = true; original_user = true; anonymous = true; grant = true };
-- Roles of extauth by the names that Prosody 13 has for them.
local ROLES = { guest = "prosody:guest" };

-- Base64 of a message; that of an empty one is "=".
local function encode(message)
	return message == "" and "=" or base64.encode(message);
end

-- The message of an encoded one, or nil if it is malformed.
local function decode(text)
	if text == "" or text == "=" then return ""; end
	if not text:match("^[%w+/]+=?=?$") or #text % 4 ~= 0 then return nil; end
	return base64.decode(text);
end

-- Text for a client or a log: no control characters, valid UTF-8.
local function printable(text)
	text = text:gsub("%c", " ");
	return valid_utf8(text) and text or nil;
end

-- Whether Prosody 13 knows a role; 0.12 has no such roles.
local function role_known(name)
	local get_role = rawget(prosody.hosts[host].authz, "get_role_by_name");
	if not get_role then return true; end
	local ok, role = pcall(get_role, name);
	return ok and role ~= nil;
end

local handler = {};
handler.__index = handler;

-- A SASL handler with the interface of util.sasl for one session.
local function new_handler(session, offered)
	local stream = describe(session);
	local bindings = {};
	for name, data in pairs(stream.bindings) do
		bindings[name] = function () return data; end;
	end
	-- mod_sasl2_fast takes the channel bindings from the profile.
	return setmetatable({
		realm = host; session = session; stream = stream; offered = offered; profile = { cb = bindings };
	}, handler);
end

function handler:clean_clone()
	return new_handler(self.session, self.offered);
end

function handler:mechanisms()
	local names = mechanisms.mechanisms_for(self.stream, self.session);
	self.unknown = not names;
	return names or {};
end

function handler:select(mechanism)
	if self.selected or not self:mechanisms()[mechanism] then return nil; end
	self.selected = mechanism;
	return true;
end

-- The parameters of AUTH, without the initial response.
function handler:describe()
	local stream, session = self.stream, self.session;
	local line = {};
	local function add(key, value)
		if value then table.insert(line, value == true and key or key .. "=" .. sasl.escape(value)); end
	end
	add("service", "xmpp");
	add("domain", host);
	add("rip", stream.ip);
	add("lip", stream.local_ip);
	add("lport", stream.local_port and ("%d"):format(stream.local_port));
	add("secured", stream.secured == "" or stream.secured);
	add("session", session.id);
	add("nologin", true);
	add("final-resp-ok", true);
	add("grant", true);
	add("enforces", true);
	for _, name in ipairs(stream.types) do
		add("cb-" .. name, base64.encode(stream.bindings[name]));
	end
	if self.offered then
		add("offered", self.offered.mechanisms);
		add("offered-cb", self.offered.bindings);
	end
	return table.concat(line, "\t") .. mechanisms.certificate_parameters(stream);
end

-- Relays a message of the client: nil for none, as with <auth/> without text.
function handler:process(message)
	if not sasl.can_wait() then
		module:log("error", "SASL outside of an async runner: %s", debug.traceback());
		return "failure", "temporary-auth-failure";
	end
	local verb, rest;
	if self.exchange then
		verb, rest = "CONT", "\t" .. encode(message or "");
	else
		self.exchange = { session = self.session };
		verb, rest = "AUTH", "\t" .. self.selected .. "\t" .. self:describe();
		if message then rest = rest .. "\tresp=" .. encode(message); end
	end
	local answer = client:ask(self.exchange, verb, rest);
	if self.session.destroyed then
		self:cancel();
		self.session.base_type = "c2s"; -- gone with the session, but Prosody 13's mod_saslauth names events by it
		return "failure", "temporary-auth-failure";
	elseif not answer then
		return "failure", "temporary-auth-failure", UNAVAILABLE;
	elseif answer[1] == "OK" then
		return self:accepted(sasl.parameters(answer));
	elseif answer[1] == "FAIL" then
		return self:refused(sasl.parameters(answer));
	end
	local challenge = answer[1] == "CONT" and decode(answer[3] or "");
	if not challenge then return self:malformed(); end
	return "challenge", challenge;
end

function handler:malformed()
	module:log("error", "Malformed answer from the authentication service to a login by %s", self.selected);
	self:cancel();
	return "failure", "temporary-auth-failure";
end

function handler:accepted(fields)
	-- A local part of this host. A general purpose server may append the domain.
	local user, domain = (fields.user or ""):match("^([^@]+)@?(.*)$");
	local data;
	if fields.resp then data = decode(fields.resp); end
	if not user or domain ~= "" and domain ~= host or fields.resp and not data then return self:malformed(); end
	local attributes = {};
	for key, value in pairs(fields) do
		if not NOT_ATTRIBUTES[key] then attributes[key] = value; end
	end
	local role = ROLES[attributes.role] or attributes.role;
	if role and not role_known(role) then
		module:log("error", "%s has the role %q, which this host does not define", user, role);
		return "failure", "temporary-auth-failure";
	end
	self.session.auth_attributes = attributes;
	self.session.auth_anonymous = self.selected == "ANONYMOUS" or nil;
	self.session.extauth_grant = fields.grant;
	self.username, self.role = user, role;
	return "success", data;
end

function handler:refused(fields)
	local condition = fields.temp and CONDITIONS.temp_fail or fields.authz and CONDITIONS.authz_fail
		or CONDITIONS[fields.code] or "not-authorized";
	return "failure", condition, fields.reason and printable(fields.reason);
end

-- Ends an exchange that the client gave up.
function handler:cancel()
	if self.exchange then client:cancel(self.exchange); end
end

-- Streams ---------------------------------------------------------------------------------------------------------

local XMLNS_BINDING = "urn:xmpp:sasl-cb:0"; -- XEP-0440

local function names_of(parent, tag)
	local names = {};
	for child in parent:childtags(tag) do table.insert(names, child:get_text()); end
	return table.concat(names, ",");
end

-- After the modules that offer mechanisms.
module:hook("stream-features", function (event)
	local session, features = event.origin, event.features;
	local own = session.sasl_handler;
	if getmetatable(own) ~= handler or session.username or session.destroyed then return; end
	if own.unknown then
		session:close({ condition = "remote-connection-failed"; text = UNAVAILABLE }); -- RFC 6120, 4.9.3.15
		return;
	end
	local offered = features:get_child("mechanisms", "urn:ietf:params:xml:ns:xmpp-sasl")
		or features:get_child("authentication", "urn:xmpp:sasl:2");
	if not offered then return; end
	own.offered = { mechanisms = names_of(offered, "mechanism") };
	local types = own.stream.types;
	if not types[1] or not client.extended or features:get_child("sasl-channel-binding", XMLNS_BINDING) then return; end
	own.offered.bindings = table.concat(types, ",");
	features:tag("sasl-channel-binding", { xmlns = XMLNS_BINDING });
	for _, name in ipairs(types) do features:tag("channel-binding", { type = name }):up(); end
	features:up();
end, -100);

local function aborted(event)
	local own = event.origin.sasl_handler;
	if getmetatable(own) == handler then own:cancel(); end
end
module:hook("stanza/urn:ietf:params:xml:ns:xmpp-sasl:abort", aborted, 10);
module:hook("stanza/urn:xmpp:sasl:2:abort", aborted, 10);

-- As mod_auth_anonymous does.
if not anonymous_s2s then
	module:hook("route/remote", function (event)
		if event.origin.auth_anonymous then return false; end
	end, 300);
end

-- Accounts --------------------------------------------------------------------------------------------------------

function accounts.provider.get_sasl_handler(session)
	return new_handler(session);
end

module:provides("auth", accounts.provider);

module:require "tokens"(mechanisms);
module:require "restrictions";

-- Life ------------------------------------------------------------------------------------------------------------

local function stop()
	client:stop();
	accounts.stop();
end

function module.load()
	if prosody.process_type ~= "prosodyctl" then client:start(); end
end

module.unload = stop;
module:hook_global("server-stopping", stop);
