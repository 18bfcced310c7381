"""Erlang terms as `io:format("~p.")` writes them: what `ejabberdctl dump` makes of Mnesia's tables.

The file is read as Latin-1, so that a character is a byte. Nothing is evaluated, and no atom is made: it is a text here.
"""

import re
from typing import NamedTuple

from extauth.imports.tokens import MAX_DEPTH, Tokens

_ERROR = "not an Erlang term"

_TOKEN = re.compile(
    r"""\s*(?:%[^\n]*\s*)*(?:
    (?P<binary><<)|(?P<open>[\[{]|\#\{)|(?P<close>>>|[\]}])|(?P<comma>,|\||=>|:=)|
    (?P<float>-?\d+\.\d+(?:[eE][-+]?\d+)?)|
    (?P<number>-?\d+(?:\#[0-9a-zA-Z]+)?)|
    (?P<string>"(?:[^"\\]|\\.)*")|
    (?P<quoted>'(?:[^'\\]|\\.)*')|
    (?P<atom>[a-z][\w@]*)|
    (?P<type>/[a-z0-9]+)|(?P<end>\.(?=\s|$))
    )""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPE = re.compile(r"\\(?:x\{([0-9a-fA-F]{1,6})\}|x([0-9a-fA-F]{2})|([0-7]{1,3})|\^(.)|(.))", re.DOTALL)
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "v": "\v", "e": "\x1b", "s": " ", "d": "\x7f"}

Term = object
"""int, float, bytes (a binary), Atom, str (a string), tuple, list, or dict (a map)."""


class Atom(NamedTuple):
    """An atom."""

    name: str


class _Reader(Tokens):
    def __init__(self, text: str) -> None:
        super().__init__(text, _TOKEN, _ERROR)

    def take(self) -> str:
        """Return the token's text and take the next."""
        word = self.word
        self.step()
        return word

    def term(self, depth: int = 0) -> Term:
        """Read a term."""
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        match self.kind:
            case "number":
                base, _, digits = self.take().partition("#")
                return int(digits, int(base)) if digits else int(base)
            case "float":
                return float(self.take())
            case "string":
                return _unescape(self.take()[1:-1])
            case "quoted":
                return Atom(_unescape(self.take()[1:-1]))
            case "atom":
                return Atom(self.take())
            case "binary":
                return self._binary()
            case "open":
                return self._collection(self.take(), depth)
            case _:
                raise ValueError(_ERROR)

    def _collection(self, opened: str, depth: int) -> Term:
        closing = "]" if opened == "[" else "}"
        items: list[Term] = []
        while self.word != closing or self.kind != "close":
            items.append(self.term(depth + 1))
            if self.kind == "comma":
                self.step()
        self.step()
        if opened == "[":
            return items
        return tuple(items) if opened == "{" else dict(zip(map(repr, items[::2]), items[1::2], strict=True))

    def _binary(self) -> bytes:
        self.step()
        data = b""
        while self.word != ">>" or self.kind != "close":
            text = self.kind == "string"
            part = self.term()
            utf8 = self.kind == "type" and self.take() == "/utf8"
            if text:
                data += str(part).encode("utf-8" if utf8 and not _is_utf8(str(part)) else "latin-1")
            elif isinstance(part, int) and 0 <= part < 256:  # noqa: PLR2004 - a byte
                data += bytes([part])
            else:
                raise ValueError("not a binary")
            if self.kind == "comma":
                self.step()
        self.step()
        return data


def read(text: str) -> Term:
    """Read a text that is one term and a dot after it.

    Raises:
        ValueError: it is none. The message holds nothing of it.
    """
    reader = _Reader(text)
    found = reader.term()
    if reader.kind != "end" or reader.rest:
        raise ValueError(_ERROR)
    return found


def _is_utf8(text: str) -> bool:
    """Tell whether characters that stand for bytes are UTF-8 already."""
    try:
        text.encode("latin-1").decode()
    except UnicodeError:
        return False
    return True


def _unescape(text: str) -> str:
    def letter(match: re.Match[str]) -> str:
        braced, two, octal, control, other = match.groups()
        if braced or two:
            return chr(int(braced or two, 16))
        if octal:
            return chr(int(octal, 8))
        if control:
            return chr(ord(control) & 31)
        return _LETTERS.get(other, other)

    return _ESCAPE.sub(letter, text) if "\\" in text else text
