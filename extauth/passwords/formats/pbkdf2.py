"""PBKDF2 (RFC 8018 section 5.2): Django, Werkzeug, passlib, OpenLDAP's pw-pbkdf2, Dovecot."""

import hashlib
import re
import secrets
from base64 import b64encode

from extauth.passwords.format import Reader, Stored, Writer, base64, same, unhex, within

MAX_ITERATIONS = 3_000_000  # a second or three
COST = (600_000,)  # OWASP, for SHA-256
DJANGO_COST = (1_000_000,)  # Django 5.2: with less it would write the value anew at the next login
SALT_BYTES = 16
SHORTEST = 16  # bytes of a derived key

_DJANGO = re.compile(r"(\d{1,9})\$([^$]{1,128})\$([A-Za-z0-9+/]{22,88}={0,2})", re.ASCII)
_WERKZEUG = re.compile(r"(sha1|sha256|sha512):(\d{1,9})\$([^$]{1,128})\$([0-9a-f]{32,128})", re.ASCII)
_MODULAR = re.compile(r"(\d{1,9})\$([A-Za-z0-9./+]{1,172}={0,2})\$([A-Za-z0-9./+]{22,88}={0,2})", re.ASCII)
_DOVECOT = re.compile(r"\$1\$([^$]{1,128})\$(\d{1,9})\$([0-9a-f]{40})", re.ASCII)


def _stored(digest: str, iterations: int, salt: bytes, stored: bytes) -> Stored:
    scheme = f"pbkdf2-{digest}"
    within(scheme, (iterations, MAX_ITERATIONS))
    if not iterations or not salt or len(stored) < SHORTEST:
        raise ValueError(scheme)

    def check(password: bytes) -> bool:
        return same(hashlib.pbkdf2_hmac(digest, password, salt, iterations, len(stored)), stored)

    return Stored(scheme, check, (iterations,))


def _match(pattern: re.Pattern[str], rest: str) -> re.Match[str]:
    match = pattern.fullmatch(rest)
    if match is None:
        raise ValueError("pbkdf2")
    return match


def _django(digest: str) -> Reader:
    def read(rest: str) -> Stored:
        match = _match(_DJANGO, rest)
        return _stored(digest, int(match[1]), match[2].encode(), base64(match[3]))

    return read


def _modular(digest: str) -> Reader:
    def read(rest: str) -> Stored:
        match = _match(_MODULAR, rest)
        return _stored(digest, int(match[1]), base64(match[2]), base64(match[3]))

    return read


def _werkzeug(rest: str) -> Stored:
    match = _match(_WERKZEUG, rest)
    return _stored(match[1], int(match[2]), match[3].encode(), unhex(match[4]))


def _dovecot(rest: str) -> Stored:
    match = _match(_DOVECOT, rest)
    return _stored("sha1", int(match[2]), match[1].encode(), unhex(match[3]))


def _write_django(prepared: str, cost: tuple[int, ...]) -> str:
    salt = secrets.token_hex(SALT_BYTES)
    derived = hashlib.pbkdf2_hmac("sha256", prepared.encode(), salt.encode(), cost[0])
    return f"pbkdf2_sha256${cost[0]}${salt}${b64encode(derived).decode()}"


def _write_ldap(prepared: str, cost: tuple[int, ...]) -> str:
    salt = secrets.token_bytes(SALT_BYTES)
    derived = hashlib.pbkdf2_hmac("sha256", prepared.encode(), salt, cost[0])
    return f"{{PBKDF2-SHA256}}{cost[0]}${_adapted(salt)}${_adapted(derived)}"


def _adapted(data: bytes) -> str:
    """Encode as passlib and pw-pbkdf2 do: Base64 with `.` for `+`, without padding."""
    return b64encode(data).decode().rstrip("=").replace("+", ".")


READERS: dict[str, Reader] = {
    "pbkdf2_sha256$": _django("sha256"),
    "pbkdf2_sha1$": _django("sha1"),
    "pbkdf2:": _werkzeug,
    "$pbkdf2$": _modular("sha1"),
    "$pbkdf2-sha256$": _modular("sha256"),
    "$pbkdf2-sha512$": _modular("sha512"),
    "{PBKDF2-SHA1}": _modular("sha1"),
    "{PBKDF2-SHA256}": _modular("sha256"),
    "{PBKDF2-SHA512}": _modular("sha512"),
    "{PBKDF2}": lambda rest: _dovecot(rest) if rest.startswith("$") else _modular("sha1")(rest),
}
WRITERS = {
    "django-pbkdf2-sha256": Writer("pbkdf2-sha256", DJANGO_COST, _write_django),
    "ldap-pbkdf2-sha256": Writer("pbkdf2-sha256", COST, _write_ldap),
}
