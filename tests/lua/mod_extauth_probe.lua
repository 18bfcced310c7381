-- Writes to the log what the tests of mod_auth_extauth want to see.
local usermanager = require "core.usermanager";

module:hook("authentication-success", function (event)
	local session = event.session;
	local fields = {};
	for key, value in pairs(session.auth_attributes or {}) do table.insert(fields, ("%s=%q"):format(key, value)); end
	table.sort(fields);
	module:log("info", "attributes of %s: %s; role %s", session.username, table.concat(fields, ","),
		session.role and session.role.name or "none");
	if session.username ~= "probe" then return; end
	local host = session.host;
	module:add_timer(0, function () -- where nothing can wait
		module:log("info", "outside: %s %s %s %s", usermanager.user_exists("alice", host),
			usermanager.user_exists("nobody", host), usermanager.test_password("alice", host, "wrong"),
			usermanager.test_password("alice", host, "fake alice"));
	end);
end);

module:hook("route/remote", function (event)
	module:log("info", "routed to %s", event.to_host);
end, 100);
