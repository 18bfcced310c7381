"""One round of a hash function over password and salt: the schemes of RFC 2307, OpenLDAP, Dovecot, and old Django.

All but salted SHA-2 are weak, and that is fast to guess, too.
"""

import hashlib
import re
import secrets
from base64 import b64encode
from collections.abc import Callable

from extauth.passwords.format import Reader, Stored, Writer, same, unhex

_LENGTHS = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}
_DJANGO = re.compile(r"([^$]{0,128})\$([0-9a-f]{32,40})", re.ASCII)
SALT_BYTES = 16
LONGEST_SALT = 64


def _stored(digest: str, salt: bytes, stored: bytes, *, salt_first: bool = False) -> Stored:
    if len(stored) != _LENGTHS[digest] or len(salt) > LONGEST_SALT:
        raise ValueError(digest)

    def check(password: bytes) -> bool:
        return same(hashlib.new(digest, salt + password if salt_first else password + salt).digest(), stored)

    scheme = f"salted-{digest}" if salt else digest
    return Stored(scheme, check, weak=not salt or digest in {"md5", "sha1"})


def _unsalted(digest: str) -> Callable[[bytes], Stored]:
    return lambda payload: _stored(digest, b"", payload)


def _salted(digest: str) -> Callable[[bytes], Stored]:
    length = _LENGTHS[digest]

    def read(payload: bytes) -> Stored:
        if len(payload) <= length:
            raise ValueError(digest)
        return _stored(digest, payload[length:], payload[:length])

    return read


def _bare(digest: str) -> Reader:
    return lambda text: _stored(digest, b"", unhex(text))


def _django(digest: str) -> Reader:
    def read(rest: str) -> Stored:
        match = _DJANGO.fullmatch(rest)
        if match is None:
            raise ValueError(digest)
        return _stored(digest, match[1].encode(), unhex(match[2]), salt_first=True)

    return read


def _writer(digest: str) -> Writer:
    def write(prepared: str, _cost: tuple[int, ...]) -> str:
        salt = secrets.token_bytes(SALT_BYTES)
        value = hashlib.new(digest, prepared.encode() + salt).digest() + salt
        return f"{{SSHA{digest.removeprefix('sha')}}}{b64encode(value).decode()}"

    return Writer(f"salted-{digest}", (), write)


READERS = {"md5$": _django("md5"), "sha1$": _django("sha1")}
BINARY = {
    **{f"{{{name}}}": _unsalted("md5") for name in ("MD5", "PLAIN-MD5", "LDAP-MD5")},
    **{f"{{{name}}}": _unsalted("sha1") for name in ("SHA", "SHA1")},
    "{SHA256}": _unsalted("sha256"),
    "{SHA512}": _unsalted("sha512"),
    "{SMD5}": _salted("md5"),
    "{SSHA}": _salted("sha1"),
    "{SSHA256}": _salted("sha256"),
    "{SSHA512}": _salted("sha512"),
}
BARE = {digest: _bare(digest) for digest in _LENGTHS}
WEAK = (*_LENGTHS, "salted-md5", "salted-sha1")
WRITERS = {"ssha256": _writer("sha256"), "ssha512": _writer("sha512")}
