"""scrypt (RFC 7914) as Django and Werkzeug write it. That of crypt(3), `$7$`, is in `crypt`."""

import hashlib
import re
import secrets
from base64 import b64encode

from extauth.passwords.format import Stored, Writer, base64, same, unhex, within

_DJANGO = re.compile(r"(\d{1,9})\$([^$]{1,128})\$(\d{1,9})\$(\d{1,9})\$([A-Za-z0-9+/]{22,172}={0,2})", re.ASCII)
_WERKZEUG = re.compile(r"(\d{1,9}):(\d{1,9}):(\d{1,9})\$([^$]{1,128})\$([0-9a-f]{32,256})", re.ASCII)

MAX_MEMORY = 256 * 1024 * 1024  # bytes
MAX_WORK = 1024 * 1024 * 1024  # bytes times parallelization
COST = (16384, 8, 5)  # N, r, p: Django's; OWASP has it among its equals
SALT_BYTES = 16
HASH_BYTES = 64


def _derive(password: bytes, salt: bytes, cost: tuple[int, ...], length: int) -> bytes:
    n, r, p = cost
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=128 * r * (n + p + 2) + 1024 * 1024, dklen=length)


def _stored(cost: tuple[int, int, int], salt: bytes, stored: bytes) -> Stored:
    n, r, p = cost
    within("scrypt", (128 * n * r, MAX_MEMORY), (128 * n * r * p, MAX_WORK))
    if n < 2 or n & (n - 1) or not r or not p:  # noqa: PLR2004 - RFC 7914 section 2
        raise ValueError("scrypt")
    return Stored("scrypt", lambda password: same(_derive(password, salt, cost, len(stored)), stored), cost)


def _django(rest: str) -> Stored:
    match = _DJANGO.fullmatch(rest)
    if match is None:
        raise ValueError("scrypt")
    return _stored((int(match[1]), int(match[3]), int(match[4])), match[2].encode(), base64(match[5]))


def _werkzeug(rest: str) -> Stored:
    match = _WERKZEUG.fullmatch(rest)
    if match is None:
        raise ValueError("scrypt")
    return _stored((int(match[1]), int(match[2]), int(match[3])), match[4].encode(), unhex(match[5]))


def _write(prepared: str, cost: tuple[int, ...]) -> str:
    salt = secrets.token_hex(SALT_BYTES)
    derived = b64encode(_derive(prepared.encode(), salt.encode(), cost, HASH_BYTES)).decode()
    return f"scrypt${cost[0]}${salt}${cost[1]}${cost[2]}${derived}"


READERS = {"scrypt$": _django, "scrypt:": _werkzeug}
WRITERS = {"django-scrypt": Writer("scrypt", COST, _write)}
