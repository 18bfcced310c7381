-- What a client's stream says for itself: how it is protected, its channel bindings, its certificate, its addresses.
local load_certificate = require "ssl".loadcertificate;
local base64 = require "util.encodings".base64;
local hashes = require "util.hashes";
local jid_split = require "util.jid".prepped_split;

local SUBJECT_ALTERNATIVE_NAME = "2.5.29.17";
local XMPP_ADDR = "1.3.6.1.5.5.7.8.5"; -- RFC 6120, 13.7.1.4

-- Base64 of a certificate's DER.
local function der(certificate)
	return (certificate:pem():match("%-\n(.-)%-%-%-%-%-END"):gsub("%s", ""));
end

-- RFC 5929, 4.1: by the hash of the certificate's signature, but SHA-256 instead of MD5 and SHA-1. Signatures without
-- one hash (EdDSA), or whose name does not tell it (PSS), leave this binding undefined.
local END_POINT_HASHES = {
	md5 = hashes.sha256; sha1 = hashes.sha256; sha224 = hashes.sha224; sha256 = hashes.sha256;
	sha384 = hashes.sha384; sha512 = hashes.sha512;
};

local function end_point(certificate)
	local signature = certificate:getsignaturename():lower();
	local hash = END_POINT_HASHES[signature:match("sha%d+") or signature:match("md5")];
	return hash and hash(base64.decode(der(certificate)));
end

local from_files = {}; -- tls-server-end-point by the file of a certificate, as of the last (re)load; false: undefined

local function end_point_of_file(path)
	if from_files[path] == nil then
		local file = io.open(path);
		local certificate = file and load_certificate(file:read("*a"));
		if file then file:close(); end
		from_files[path] = certificate and end_point(certificate) or false;
	end
	return from_files[path] or nil;
end

module:hook_global("config-reloaded", function () from_files = {}; end);

-- Returns the data of each channel binding type the stream has, by name (RFC 5929, RFC 9266).
local function bindings(session, socket)
	local found = {};
	if socket:info().protocol == "TLSv1.3" then
		if socket.exportkeyingmaterial then
			found["tls-exporter"] = socket:exportkeyingmaterial("EXPORTER-Channel-Binding", 32, "");
		end
	else
		found["tls-unique"] = socket:getpeerfinished();
	end
	-- Old LuaSec does not tell which certificate it showed; after STARTTLS it is the one of mod_tls's context.
	local certificate = socket.getlocalcertificate and socket:getlocalcertificate();
	if certificate then
		found["tls-server-end-point"] = end_point(certificate);
	elseif session.ssl_cfg and type(session.ssl_cfg.certificate) == "string" then
		found["tls-server-end-point"] = end_point_of_file(session.ssl_cfg.certificate);
	end
	return found;
end

-- Returns the client's certificate as base64 of DER if its chain is valid, and the user if it names just one of this
-- host (XEP-0178).
local function certificate(socket)
	local cert = socket:getpeercertificate();
	if not cert or not socket:getpeerverification() or not cert:validat(os.time()) then return nil; end
	local names = cert:extensions()[SUBJECT_ALTERNATIVE_NAME] or {};
	local users = {};
	for _, name in ipairs(names[XMPP_ADDR] or {}) do
		local user, host = jid_split(name);
		if user and host == module.host then table.insert(users, user); end
	end
	return der(cert), #users == 1 and users[1] or nil;
end

-- Describes a session: `secured` (nil, "" for protection by others, such as a proxy, or "tls"), `bindings`, `types`
-- (their names, sorted), `certificate`, `certificate_user`, `ip`, `local_ip`, `local_port`, and `lists`, for what may be
-- offered to its certificate.
local function describe(session)
	local conn = session.conn;
	local stream = {
		secured = session.encrypted and "tls" or session.secure and "" or nil;
		bindings = {};
		types = {};
		lists = {};
		ip = session.ip;
		local_ip = conn and conn.sockname;
		local_port = conn and conn.sockport;
	};
	local socket = session.encrypted and conn and conn:socket();
	if socket and socket.info then
		stream.bindings = bindings(session, socket);
		stream.certificate, stream.certificate_user = certificate(socket);
	end
	for name in pairs(stream.bindings) do table.insert(stream.types, name); end
	table.sort(stream.types);
	return stream;
end

return describe;
