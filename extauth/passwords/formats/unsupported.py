"""Schemes that are known and not read, so that the log can name them."""

from extauth.passwords.format import Reader, Stored, UnsupportedHash


def _reader(name: str) -> Reader:
    def read(_rest: str) -> Stored:
        raise UnsupportedHash(f"{name}: not supported")

    return read


_NAMES = (
    *("$3$", "$md5$", "$md5,", "$sha1$", "$2x$", "$2$", "{SASL}", "{NTLM}", "{NT}", "{LANMAN}", "{CRAM-MD5}", "{HMAC-MD5}"),
    *("{DIGEST-MD5}", "{PLAIN-MD4}", "{PLAIN-TRUNC}", "{OTP}", "{SKEY}", "{RPA}", "{PBKDF2_SHA256}", "{AES}", "{KERBEROS}"),
)
READERS = {name: _reader(name) for name in _NAMES}
