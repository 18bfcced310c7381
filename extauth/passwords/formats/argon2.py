"""Argon2 (RFC 9106) in its reference encoding; with the prefixes of Django, Nextcloud, Dovecot and OpenLDAP."""

import re
import secrets

from argon2.low_level import Type, hash_secret, hash_secret_raw

from extauth.passwords.format import Reader, Stored, Writer, base64, same, within

_TYPES = {"argon2d": Type.D, "argon2i": Type.I, "argon2id": Type.ID}
_REST = re.compile(
    r"(?:v=(16|19)\$)?m=(\d{1,9}),t=(\d{1,9}),p=(\d{1,4})\$([A-Za-z0-9+/]{11,128})\$([A-Za-z0-9+/]{16,128})", re.ASCII
)

MAX_MEMORY = 256 * 1024  # KiB
MAX_WORK = 2 * 1024 * 1024  # KiB times passes: a second or two
MAX_LANES = 16
COST = (64 * 1024, 3, 4)  # KiB, passes, lanes: RFC 9106 section 4, second recommendation
SALT_BYTES = 16
HASH_BYTES = 32


def _reader(scheme: str) -> Reader:
    kind = _TYPES[scheme]

    def read(rest: str) -> Stored:
        match = _REST.fullmatch(rest)
        if match is None:
            raise ValueError(scheme)
        version, memory, passes, lanes = (int(number or 16) for number in match.groups()[:4])
        salt, stored = base64(match[5]), base64(match[6])
        within(scheme, (memory, MAX_MEMORY), (memory * passes, MAX_WORK), (lanes, MAX_LANES))
        if memory < 8 * lanes or not passes or not lanes:
            raise ValueError(scheme)

        def check(password: bytes) -> bool:
            return same(hash_secret_raw(password, salt, passes, memory, lanes, len(stored), kind, version), stored)

        return Stored(scheme, check, (memory, passes, lanes))

    return read


def _write(prepared: str, cost: tuple[int, ...]) -> str:
    memory, passes, lanes = cost
    salt = secrets.token_bytes(SALT_BYTES)
    return hash_secret(prepared.encode(), salt, passes, memory, lanes, HASH_BYTES, Type.ID).decode()


def _prefixed(prefix: str) -> Writer:
    def write(prepared: str, cost: tuple[int, ...]) -> str:
        return prefix + _write(prepared, cost)

    return Writer("argon2id", COST, write)


READERS = {f"${scheme}$": _reader(scheme) for scheme in _TYPES}
WRAPPERS = {
    **dict.fromkeys(("{ARGON2}", "{ARGON2I}", "{ARGON2ID}"), "$argon2"),
    "argon2": "$argon2",  # Django
    "2|": "$argon2i$",  # Nextcloud
    "3|": "$argon2id$",
}
WRITERS = {
    "argon2id": _prefixed(""),
    "django-argon2": _prefixed("argon2"),
    "nextcloud": _prefixed("3|"),
    "dovecot-argon2id": _prefixed("{ARGON2ID}"),
    "ldap-argon2": _prefixed("{ARGON2}"),
}
