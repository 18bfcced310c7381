"""bcrypt, and those who hash a password before it, because bcrypt takes 72 bytes at most: Django and WordPress 6.8."""

import hashlib
import hmac
import re
from base64 import b64encode
from collections.abc import Callable

import bcrypt

from extauth.passwords.format import Reader, Stored, Writer, same, within

_REST = re.compile(r"2([aby])\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII)

LONGEST = 72  # bytes: what is longer is refused, since older implementations ignored the rest
MAX_COST = 15  # two seconds
COST = (12,)


def _as_is(password: bytes) -> bytes:
    return password


def _django(password: bytes) -> bytes:
    """django.contrib.auth.hashers.BCryptSHA256PasswordHasher."""
    return hashlib.sha256(password).hexdigest().encode()


def _wordpress(password: bytes) -> bytes:
    """WordPress 6.8, wp-includes/pluggable.php."""
    return b64encode(hmac.digest(b"wp-sha384", password, "sha384"))


def _reader(scheme: str, prefix: str, before: Callable[[bytes], bytes]) -> Reader:
    def read(rest: str) -> Stored:
        text = prefix + rest
        match = _REST.fullmatch(text.removeprefix("$"))
        if match is None:
            raise ValueError(scheme)
        cost = int(match[2])
        within(scheme, (cost, MAX_COST))
        if cost < 4:  # noqa: PLR2004 - bcrypt's own minimum
            raise ValueError(scheme)
        stored = text.encode()

        def check(password: bytes) -> bool:
            hashed = before(password)
            return len(hashed) <= LONGEST and same(bcrypt.hashpw(hashed, stored), stored)

        return Stored(scheme, check, (cost,))

    return read


def _writer(scheme: str, prefix: str, version: str, before: Callable[[bytes], bytes]) -> Writer:
    def write(prepared: str, cost: tuple[int, ...]) -> str:
        hashed = before(prepared.encode())
        if len(hashed) > LONGEST:
            raise ValueError(f"bcrypt takes no more than {LONGEST} bytes")
        # $2b$ and $2y$ are the same algorithm; PHP and htpasswd know it by the second name.
        return prefix + bcrypt.hashpw(hashed, bcrypt.gensalt(cost[0])).decode().replace("$2b$", version, 1)

    return Writer(scheme, COST, write)


READERS = {
    **{f"$2{version}$": _reader("bcrypt", f"$2{version}$", _as_is) for version in "aby"},
    "bcrypt_sha256$": _reader("bcrypt-sha256", "", _django),
    "$wp$": _reader("wordpress-bcrypt", "$", _wordpress),
}
WRAPPERS = {
    "{BLF-CRYPT}": "$2",
    "{BCRYPT}": "$2",
    "bcrypt$": "$2",  # Django
    "1|": "$2",  # Nextcloud
}
WRITERS = {
    "bcrypt": _writer("bcrypt", "", "$2y$", _as_is),
    "django-bcrypt-sha256": _writer("bcrypt-sha256", "bcrypt_sha256$", "$2b$", _django),
    "wordpress": _writer("wordpress-bcrypt", "$wp", "$2y$", _wordpress),
}
