-- Plays Prosody's mod_auth_external: the same calls on lpty, in the same order, for each line of a script on stdin.
--
--   lua5.2 lpty_driver.lua COMMAND [TIMEOUT]
--
-- Script lines (a query may hold \xNN):
--   query TEXT      one query; prints "accepted", "refused", "error" or "nothing"
--   plugin PATH     load a global module of Prosody
--   end             end the program as the module does on unload
--   pause SECONDS
local lpty = require "lpty"

local command, timeout = arg[1], tonumber(arg[2] or "5")
local pty = lpty.new({ throw_errors = false, no_local_echo = true, use_path = false })
io.stdout:setvbuf("line")

local function wait_for_end()
	for _ = 1, 500 do
		if not pty:hasproc() then return end
		pty:read(0.01)
	end
	error("the program does not end")
end

local function query(text)
	if not pty:hasproc() then
		local status, code = pty:exitstatus()
		if status and (status ~= "exit" or code ~= 0) then
			return nil -- for ever
		end
		if not pty:startproc(command) then return nil end
	end
	pty:send(text .. "\n")
	return pty:read(timeout)
end

local verdicts = { ["0"] = "refused", ["1"] = "accepted" }

for line in io.lines() do
	local verb, rest = line:match("^(%S+) ?(.*)$")
	if verb == "query" then
		local response = query((rest:gsub("\\x(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)))
		print(response and (verdicts[(response:gsub("\r?\n$", ""))] or "error") or "nothing")
	elseif verb == "plugin" then
		module = { set_global = function() end }
		dofile(rest)
	elseif verb == "end" then
		pty:endproc()
		wait_for_end()
		print((pty:exitstatus()))
	elseif verb == "pause" then
		os.execute("sleep " .. rest)
	end
end
