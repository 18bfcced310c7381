"""Texts with places for the user: what is put in stays what it is, whatever it looks like.

A template is plain text with `{user}` and `{domain}`. It is split when the configuration is read and never formatted, so a user
whose name looks like a place stays a name.
"""

import re
from collections.abc import Callable

from extauth.model import Identity

_PLACE = re.compile(r"\{([^{}]*)\}")


class Template:
    """A text with places.

    Raises:
        ValueError: it has a place of another name, or a brace that belongs to none.
    """

    def __init__(self, text: str, escape: Callable[[str], str] = str) -> None:
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
