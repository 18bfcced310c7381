"""What a format of stored passwords is made of: the value that it reads, and the limits that every reader keeps."""

import binascii
import hmac
from base64 import b64decode
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from extauth.passwords.scram import Hash

Check = Callable[[bytes], bool]
"""Tells whether a password, in UTF-8, is the one. Slow by intention, and compares in constant time."""


class UnsupportedHash(ValueError):  # noqa: N818 - it names a state of the world
    """A stored value by which nobody can be judged. The message names the scheme and never holds any of the value."""


class ScramEntry(Struct, frozen=True, gc=False):
    """The stored SCRAM keys of one hash (RFC 5802 section 3)."""

    hash: Hash
    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return f"ScramEntry({self.hash.value!r}, ...)"


class Stored(Struct, frozen=True):
    """A stored password. `cost` are the numbers of its scheme that make it slow, if it is; `scram` holds SCRAM keys alone."""

    scheme: str
    check: Check
    cost: tuple[int, ...] = ()
    weak: bool = False
    scram: tuple[ScramEntry, ...] = ()

    def verify(self, forms: tuple[str, ...]) -> bool:
        """Tell whether one of the password's `forms` (prepare.for_checking) is the one. Slow if there is a `cost`."""
        return any(self.check(form.encode()) for form in forms if form and "\0" not in form)

    def __repr__(self) -> str:
        return f"Stored({self.scheme!r}, ...)"


Reader = Callable[[str], Stored]
"""Reads what follows a prefix; ValueError if that is malformed, UnsupportedHash if it says more than that."""


class Writer(NamedTuple):
    """How new values are written: which `scheme` they are, with which `cost`, and by what function of password and cost."""

    scheme: str
    cost: tuple[int, ...]
    write: Callable[[str, tuple[int, ...]], str]


def within(scheme: str, *limits: tuple[int, int]) -> None:
    """Refuse a cost that would keep us busy, before anything is computed. `limits` are pairs of a number and its maximum.

    Raises:
        UnsupportedHash: a number is above its maximum.
    """
    if any(number > maximum for number, maximum in limits):
        raise UnsupportedHash(f"{scheme}: costs more than a login may")


def same(found: bytes, stored: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(found, stored)


def base64(text: str) -> bytes:
    """Decode Base64, with or without padding; `.` may stand for `+` (passlib, OpenLDAP's pw-pbkdf2)."""
    return b64decode(text.replace(".", "+").rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)


def unhex(text: str) -> bytes:
    """Decode hexadecimal digits."""
    return binascii.unhexlify(text)
