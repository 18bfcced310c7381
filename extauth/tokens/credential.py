"""App passwords and temporary tokens: random texts that we issue in a password's place, known again by their beginning.

MARK "-" ID "-" SECRET: letters, digits and "-", so that every line protocol takes them; 44 characters.
"""

import hashlib
import re
import secrets

from msgspec import Struct

from extauth.model import Secret

APP = "app"
TEMPORARY = "temporary"
FAST = "fast"  # has a form of its own: extauth.fasttokens
MARKS = {APP: "eap", TEMPORARY: "etp"}
ISSUED_KINDS = (*MARKS, FAST)

ID_LENGTH = 12  # 60 bits: no two alike
SECRET_LENGTH = 26  # 130 bits

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_FORM = re.compile(rf"(eap|etp)-([a-z2-7]{{{ID_LENGTH}}})-[a-z2-7]{{{SECRET_LENGTH}}}", re.ASCII).fullmatch
_KINDS = {mark: kind for kind, mark in MARKS.items()}


class Claim(Struct, frozen=True):
    """What a text claims to be."""

    kind: str
    id: str
    text: Secret


def make(kind: str) -> Claim:
    """Make a new one."""
    word = _random(ID_LENGTH)
    return Claim(kind, word, Secret(f"{MARKS[kind]}-{word}-{_random(SECRET_LENGTH)}"))


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def recognise(text: str) -> Claim | None:
    """Read what is one by the look of it; None: it is none. No password looks so by chance."""
    found = _FORM(text)
    return None if found is None else Claim(_KINDS[found[1]], found[2], Secret(text))


def digest(text: Secret) -> bytes:
    """Return what is kept of a text. It is random, so one round of SHA-256 keeps it."""
    return hashlib.sha256(text.reveal().encode()).digest()
