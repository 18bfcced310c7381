"""Passwords that are stored as they are."""

from extauth.passwords.format import Stored, same


def _read(text: str) -> Stored:
    if not text:
        raise ValueError("plain")
    stored = text.encode()
    return Stored("plain", lambda password: same(password, stored), weak=True)


READERS = dict.fromkeys(("{PLAIN}", "{CLEAR}", "{CLEARTEXT}"), _read)
BARE = {"plain": _read}
WEAK = ("plain",)
