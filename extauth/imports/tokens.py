"""A text as tokens: what the readers of Erlang terms and of Lua data have in common."""

import re

MAX_DEPTH = 64  # of what is nested


class Tokens:
    """Steps through a text: the present token is `word`, of the kind `kind`.

    Args:
        text: the whole text.
        token: matches a token with the blanks before it; each kind is a group of that name.
        error: what is said where there is none.

    Raises:
        ValueError: the text begins with no token.
    """

    def __init__(self, text: str, token: re.Pattern[str], error: str) -> None:
        self._text = text
        self._token = token
        self._error = error
        self._at = 0
        self.kind = ""
        self.word = ""
        self.step()

    @property
    def rest(self) -> str:
        """What stands behind the token, but for blanks."""
        return self._text[self._at :].strip()

    def step(self) -> None:
        """Take the next token.

        Raises:
            ValueError: there is none.
        """
        match = self._token.match(self._text, self._at)
        if match is None or match.lastgroup is None:
            raise ValueError(self._error)
        self.kind, self.word, self._at = match.lastgroup, match[match.lastgroup], match.end()
