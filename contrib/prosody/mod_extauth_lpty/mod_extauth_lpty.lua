-- Makes the first login after a start of Prosody work with mod_auth_external and lpty.
--
-- lpty switches a terminal's echo off only in the child it starts, while mod_auth_external already writes the first
-- query; as a rule the module then reads its own query back. This global module makes each terminal raw, and waits for
-- that, before the first program is started on it.
module:set_global();

local lpty = require "lpty";
local startproc = lpty.startproc;
local prepared = setmetatable({}, { __mode = "k" });

function lpty.startproc(pty, ...)
	if not prepared[pty] then
		prepared[pty] = true;
		startproc(pty, "/bin/stty", "raw", "-echo");
		for _ = 1, 100 do -- at most a second
			if not pty:hasproc() then break; end
			pty:read(0.01);
		end
	end
	return startproc(pty, ...);
end

function module.unload()
	lpty.startproc = startproc;
end
