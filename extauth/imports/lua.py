"""Lua data as Prosody's util.serialization writes it: `return { ["key"] = value; ... };`. Nothing is evaluated.

The file is read as Latin-1, so that a character is a byte; texts are given as bytes.
"""

import re

from extauth.imports.tokens import MAX_DEPTH, Tokens

_ERROR = "not Lua data"

_TOKEN = re.compile(
    r"""\s*(?:--[^\n]*\s*)*(?:
    (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|
    (?P<number>-?(?:0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?))|
    (?P<name>[A-Za-z_]\w*)|
    (?P<sign>[{}\[\]=;,])|(?P<end>$)
    )""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPE = re.compile(r"\\(?:(\d{1,3})|x([0-9a-fA-F]{2})|z\s*|(.))", re.DOTALL)
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "v": "\v", "a": "\a"}
_WORDS = {"true": True, "false": False, "nil": None}

Value = object
"""bytes, int, float, bool, None, or dict."""


class _Reader(Tokens):
    def __init__(self, text: str) -> None:
        super().__init__(text, _TOKEN, _ERROR)

    def skip(self, word: str) -> bool:
        """Take this token if it is the next."""
        if self.word != word or self.kind == "string":
            return False
        self.step()
        return True

    def value(self, depth: int = 0) -> Value:
        kind, word = self.kind, self.word
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        if kind == "sign":
            return self._table(depth)
        self.step()
        if kind == "string":
            return _unescape(word[1:-1]).encode("latin-1")
        if kind == "number":
            return int(word, 0) if re.fullmatch(r"-?(0x[0-9a-fA-F]+|0|[1-9]\d*)", word) else float(word)
        if word not in _WORDS:
            raise ValueError(_ERROR)
        return _WORDS[word]

    def _table(self, depth: int) -> dict[Value, Value]:
        if not self.skip("{"):
            raise ValueError(_ERROR)
        table: dict[Value, Value] = {}
        while not self.skip("}"):
            key, value = self._field(depth, len(table) + 1)
            table[key] = value
            if not (self.skip(";") or self.skip(",")) and self.word != "}":
                raise ValueError(_ERROR)
        return table

    def _field(self, depth: int, place: int) -> tuple[Value, Value]:
        key: Value = place
        if self.skip("["):
            key = self.value(MAX_DEPTH)
            if isinstance(key, dict) or not (self.skip("]") and self.skip("=")):
                raise ValueError(_ERROR)
        elif self.kind == "name" and self.word not in _WORDS:
            key = self.word.encode()
            self.step()
            if not self.skip("="):
                raise ValueError(_ERROR)
        return key, self.value(depth + 1)


def read(text: str) -> Value:
    """Read what a file returns.

    Raises:
        ValueError: it is no such file. The message holds nothing of it.
    """
    reader = _Reader(text)
    if not reader.skip("return"):
        raise ValueError(_ERROR)
    value = reader.value()
    reader.skip(";")
    if reader.kind != "end":
        raise ValueError(_ERROR)
    return value


def _unescape(text: str) -> str:
    def letter(match: re.Match[str]) -> str:
        decimal, hexadecimal, other = match.groups()
        if decimal or hexadecimal:
            number = int(decimal) if decimal else int(hexadecimal, 16)
            if number > 255:  # noqa: PLR2004 - a byte
                raise ValueError(_ERROR)
            return chr(number)
        return _LETTERS.get(other, other) if other else ""

    return _ESCAPE.sub(letter, text) if "\\" in text else text
