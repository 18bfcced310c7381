"""Filters and names with places for the user: what is put in is always escaped, by the rules of where it is put.

A template is plain text with `{user}` and `{domain}`. It is split when the configuration is read and never formatted, so a user
whose name looks like a place stays a name.
"""

import re
from collections.abc import Callable

from extauth.model import Identity

_PLACE = re.compile(r"\{([^{}]*)\}")
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_PRINCIPAL = re.compile(r"[\w.\-+=~!#$%^]+", re.ASCII)


def filter_value(text: str) -> str:
    """Return `text` as an assertion value of a search filter (RFC 4515 section 3)."""
    return "".join(chr(octet) if octet in _PLAIN else f"\\{octet:02x}" for octet in text.encode())


def dn_value(text: str) -> str:
    """Return `text` as an attribute value of a distinguished name (RFC 4514 section 2.4)."""
    return filter_value(text)  # there too, any octet may be a backslash and two hexadecimal digits


def principal_value(text: str) -> str:
    r"""Return `text` as a part of user@domain or DOMAIN\user, in which nothing can be escaped.

    Raises:
        ValueError: it holds what might mean something there.
    """
    if not _PRINCIPAL.fullmatch(text):
        raise ValueError("can't be part of a principal name")
    return text


class Template:
    """A text with places.

    Raises:
        ValueError: it has a place of another name, or a brace that belongs to none.
    """

    def __init__(self, text: str, escape: Callable[[str], str]) -> None:
        self._pieces = _PLACE.split(text)  # text and names of places in turn
        self._escape = escape
        for place in self._pieces[1::2]:
            if place not in ("user", "domain"):
                raise ValueError(f"{{{place}}} is no place; there are {{user}} and {{domain}}")
        if any(brace in piece for piece in self._pieces[::2] for brace in "{}"):
            raise ValueError("a brace that belongs to no place")

    def fill(self, identity: Identity) -> str:
        """Return the text for a user.

        Raises:
            ValueError: the name can't be put there.
        """
        values = {"user": identity.user, "domain": identity.domain}
        return "".join(self._escape(values[piece]) if index % 2 else piece for index, piece in enumerate(self._pieces))


def bind_name_template(text: str) -> Template:
    r"""Return the template of whom to bind as: a distinguished name, or a principal name (user@domain, DOMAIN\user)."""
    return Template(text, dn_value if "=" in text else principal_value)
