-- Keeps a session to what the attributes of its login allow: `rooms` are all that it may talk to, and `may-change-account=no`
-- leaves its account as it is. The daemon lets in such logins only where this is enforced.
local jid_prep = require "util.jid".prep;
local jid_bare = require "util.jid".bare;
local jid_host = require "util.jid".host;
local st = require "util.stanza";

local host = module.host;

-- What a session sets for itself alone, by namespace; everything else is of its account.
local OF_THE_SESSION = {
	["urn:ietf:params:xml:ns:xmpp-session"] = true;
	["urn:xmpp:carbons:2"] = true;
};
-- What belongs to those who have a say in a room (XEP-0045).
local OF_THE_ROOM = {
	["http://jabber.org/protocol/muc#owner"] = true;
	["http://jabber.org/protocol/muc#admin"] = true;
	["jabber:iq:register"] = true;
};
local XMLNS_MUC_USER = "http://jabber.org/protocol/muc#user";

-- The rooms and the services they are on, of attributes: two sets.
local known = setmetatable({}, { __mode = "k" });
local function rooms_of(attributes)
	if not known[attributes] then
		local rooms, services = {}, {};
		for name in attributes.rooms:gmatch("[^,]+") do
			local room = jid_prep(name);
			if room then rooms[room], services[jid_host(room)] = true, true; end
		end
		known[attributes] = { rooms = rooms; services = services };
	end
	return known[attributes].rooms, known[attributes].services;
end

-- Whether a room is one of this server that does not exist: who enters it would become its owner.
local function is_missing(room)
	local service = prosody.hosts[jid_host(room)];
	local muc = service and service.modules and service.modules.muc;
	return muc and not muc.get_room_from_jid(room);
end

local function invites(stanza)
	local user = stanza:get_child("x", XMLNS_MUC_USER);
	return stanza:get_child("x", "jabber:x:conference") or user and user:get_child("invite");
end

local function xmlns_of(stanza)
	return stanza.tags[1] and stanza.tags[1].attr.xmlns;
end

-- Return why a stanza may not pass, as type and condition of a stanza error, or nil.

local function in_room(stanza, room)
	if is_missing(room) then return "cancel", "item-not-found"; end
	if stanza.name == "iq" and OF_THE_ROOM[xmlns_of(stanza)] or invites(stanza) then return "auth", "forbidden"; end
end

local function elsewhere(stanza, session, attributes)
	local to, rooms, services = stanza.attr.to, rooms_of(attributes);
	local room = to and jid_bare(to);
	if room and rooms[room] then return in_room(stanza, room); end
	local own = not to or to == host or room == session.username .. "@" .. host;
	if stanza.name == "iq" and (own or stanza.attr.type == "get" and services[to]) or own and stanza.name == "presence" then
		return nil;
	end
	return "auth", "forbidden";
end

local function of_account(stanza, session)
	local to = stanza.attr.to;
	local own = not to or jid_host(to) == host;
	if own and stanza.name == "iq" and stanza.attr.type == "set" and not OF_THE_SESSION[xmlns_of(stanza)] then
		return "cancel", "not-allowed";
	end
end

module:hook("pre-stanza", function (event)
	local session, stanza = event.origin, event.stanza;
	local attributes = session.auth_attributes;
	if not attributes then return nil; end
	local kind, condition;
	if attributes.rooms then kind, condition = elsewhere(stanza, session, attributes); end
	if not kind and attributes["may-change-account"] == "no" then kind, condition = of_account(stanza, session); end
	if not kind then return nil; end
	local is_answer = stanza.attr.type == "error" or stanza.name == "iq" and stanza.attr.type == "result";
	if not is_answer then session.send(st.error_reply(stanza, kind, condition, "Not with this login")); end
	return true;
end, 1000);
