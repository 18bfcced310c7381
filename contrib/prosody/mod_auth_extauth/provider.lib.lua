-- The account operations of an authentication provider, answered by the daemon.
local cache = require "util.cache";
local gettime = require "util.time".monotonic;
local can_wait = module:require "sasl".can_wait;

local host = module.host;

local EXISTS_LIFE = 10; -- seconds an answer of user_exists holds where Prosody cannot wait
local ANNOUNCED_LIFE = 60; -- seconds between the creation of an account and its password

local accounts = module:require "accounts"(
	module:get_option_string("extauth_accounts_socket", "/run/extauth/ejabberd.sock"));
local existing = cache.new(1000); -- user: { answer, time }

local function ask(verb, user, password)
	if user:find(":", 1, true) then return false; end -- no local part has one
	return accounts:ask(can_wait(), verb, user, host, password);
end

local function keep(user, exists)
	existing:set(user, { exists = exists; time = gettime() });
end

local provider = { name = "extauth" };

-- True, false, or nil and an error; anything but true is no.
function provider.test_password(user, password)
	return ask("auth", user, password);
end

function provider.user_exists(user)
	local known = existing:get(user);
	if known and not can_wait() and gettime() - known.time < EXISTS_LIFE then return known.exists; end
	local answer, err = ask("isuser", user);
	if answer ~= nil then keep(user, answer); end
	return answer, err;
end

-- Asks for a change; true, or nil and an error.
local function change(exists, verb, user, password)
	local answer, err = ask(verb, user, password);
	if not answer then return nil, err or "refused by the authentication service"; end
	keep(user, exists);
	return true;
end

-- Prosody 13 creates an account without a password and sets one right afterwards. The daemon knows no such accounts,
-- so the two become one: users about to be created, with the time.
local announced = cache.new(1000);

local function is_announced(user)
	local time = announced:get(user);
	announced:set(user, nil);
	return time and gettime() - time < ANNOUNCED_LIFE;
end

function provider.set_password(user, password)
	return change(true, is_announced(user) and "tryregister" or "setpass", user, password);
end

function provider.create_user(user, password)
	if password then return change(true, "tryregister", user, password); end
	local exists, err = provider.user_exists(user);
	if exists ~= false then return nil, err or "conflict"; end
	announced:set(user, gettime());
	return true;
end

function provider.delete_user(user)
	if is_announced(user) then return true; end
	return change(false, "removeuser", user);
end

return { provider = provider; stop = function () accounts:stop(); end };
