-- The token request (XMLNS below, as MongooseIM has it): a client that has logged in asks the account of its user for an access
-- and a refresh token, by which it logs in again. What proves the login is the grant that came with it.
local st = require "util.stanza";
local sasl = module:require "sasl";

local host = module.host;

local XMLNS = "erlang-solutions.com:xmpp:token-auth:0";
local UNAVAILABLE = "The authentication service is not available";

-- The device by which the daemon tells the sessions of a user apart: SASL2 has an id of the client, else it is the resource.
local function device_of(session)
	return session.client_id or session.resource or "";
end

-- The answer to a request, from that of the daemon; nil: it gave none.
local function reply_to(stanza, session, answer)
	local fields = answer and sasl.parameters(answer);
	if answer and answer[1] == "TOKENS" and fields.access and fields.refresh then
		local reply = st.reply(stanza):tag("items", { xmlns = XMLNS });
		reply:text_tag("access_token", fields.access, { xmlns = XMLNS });
		reply:text_tag("refresh_token", fields.refresh, { xmlns = XMLNS });
		reply.attr.from = session.username .. "@" .. host;
		return reply;
	elseif answer and answer[1] == "FAIL" and not fields.temp and fields.code ~= "temp_fail" then
		return st.error_reply(stanza, "auth", "forbidden", "This session gets no tokens any more");
	end
	return st.error_reply(stanza, "wait", "remote-server-timeout", UNAVAILABLE);
end

-- Answers requests, with what `mechanisms` has.
local function serve(mechanisms)
	-- Service discovery tells of it while the daemon offers the mechanism for these tokens.
	local advertised = false;
	function mechanisms.on_list(names)
		local issues = names["X-OAUTH"] ~= nil;
		if issues == advertised then return; end
		advertised = issues;
		if issues then
			module:add_item("feature", XMLNS);
		else
			module:remove_item("feature", XMLNS);
		end
	end

	module:hook("iq/self/" .. XMLNS .. ":query", function (event)
		local session, stanza = event.origin, event.stanza;
		local grant = session.extauth_grant;
		if not grant then
			if not advertised then return nil; end
			session.send(st.error_reply(stanza, "auth", "forbidden", "A login of this kind gets no tokens"));
			return true;
		end
		local question = "\tgrant=" .. sasl.escape(grant) .. "\tdevice=" .. sasl.escape(device_of(session));
		mechanisms.client:submit({ session = session }, function (answer)
			if not session.destroyed then session.send(reply_to(stanza, session, answer)); end
		end, "TOKENS", question);
		return true;
	end);
end

return serve;
