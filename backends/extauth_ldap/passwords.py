"""The one form in which a password is sent to a directory, whether to bind or to set one.

Each bind with a wrong password counts towards the user's lock-out, so there is one, whatever forms `extauth.passwords.prepare`
knows. It is OpaqueString (RFC 8265): composed characters, as keyboards and other programs send them, and nothing else changed.
SASLprep, which RFC 4513 section 5.1.3 advises, would turn characters into others (U+00B2 into 2, wide letters into narrow
ones), and a password with such a character, set with the directory's own tools, would never be found again.
"""

from extauth.model import Secret
from extauth.passwords.prepare import LONGEST, is_blank, opaque_string


def for_binding(text: str) -> Secret | None:
    """Return what to bind with, None if it can be nobody's password: an empty one would be a success that proves nothing."""
    return _unless_blank(text, _prepared(text) or text)


def for_setting(text: str) -> Secret | None:
    """Return what to store, so that `for_binding` finds it again; None if it can be nobody's password."""
    return _unless_blank(text, _prepared(text) or "")


def _prepared(text: str) -> str | None:
    if text.isascii() and text.isprintable():
        return text
    return opaque_string(text) if len(text) <= LONGEST else None


def _unless_blank(text: str, prepared: str) -> Secret | None:
    return None if is_blank(text) or is_blank(prepared) else Secret(prepared)
