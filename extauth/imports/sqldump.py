r"""Rows of one table in an SQL dump: of mysqldump, pg_dump (COPY, or --inserts), sqlite3's `.dump`, `ejabberdctl export2sql`.

The dump is read statement by statement from its beginning: a text in another table that looks like a statement is a text.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

Row = dict[str, str | None]

_HEADER = 500  # characters in which a dump tells who wrote it, and so whether a backslash escapes in texts
_BACKSLASHES = re.compile(r"-- (?:MySQL dump|MariaDB dump|phpMyAdmin)")
_NO_BACKSLASHES = re.compile(r"-- PostgreSQL database dump|PRAGMA foreign_keys")
_PIECES = r"""
    (?P<blank>\s+|--[^\n]*|/\*.*?\*/)|
    (?P<escaped>[Ee]'(?:[^'\\]|''|\\.)*')|
    (?P<string>STRING)|
    (?P<dollars>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)|
    (?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`)|
    (?P<word>[\w.+-]+)|
    (?P<sign>.)
"""
_STANDARD = re.compile(_PIECES.replace("STRING", "'(?:[^']|'')*'"), re.VERBOSE | re.DOTALL)
_MYSQL = re.compile(_PIECES.replace("STRING", r"'(?:[^'\\]|''|\\.)*'"), re.VERBOSE | re.DOTALL)
_UNKNOWN = re.compile(_PIECES.replace("STRING", r"'(?:[^'\\]|''|\\[^'])*'"), re.VERBOSE | re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "v": "\v", "0": "\0", "Z": "\x1a"}
_CONSTRAINTS = {"primary", "key", "unique", "constraint", "index", "foreign", "check", "fulltext", "exclude"}


class _Dump:
    """A dump, and how far it has been read. A token is its kind and text; the kind is "" at the end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._mysql = _BACKSLASHES.search(text, 0, _HEADER) is not None
        standard = _NO_BACKSLASHES.search(text, 0, _HEADER) is not None
        self._match = (_MYSQL if self._mysql else _STANDARD if standard else _UNKNOWN).match

    def token(self) -> tuple[str, str]:
        """Return the next token, without what is blank."""
        while match := self._match(self._text, self._at):
            self._at = match.end()
            if match[0] in {"'", '"', "`"}:
                raise ValueError("a text that does not end, or a quote escaped in a way that is not told")
            if match.lastgroup != "blank":
                return str(match.lastgroup), match[0]
        return "", ""

    def skip_statement(self) -> None:
        """Go on after the next semicolon."""
        while (token := self.token())[0] and token != ("sign", ";"):
            pass

    def words(self, end: str) -> list[str]:
        """Return the tokens up to the sign `end`, without what stands in parentheses: nothing if it does not come."""
        depth, found = 0, list[str]()
        while (token := self.token())[0]:
            if token == ("sign", end) and not depth:
                return found
            depth += {"(": 1, ")": -1}.get(token[1], 0) if token[0] == "sign" else 0
            if not depth:
                found.append(token[1])
        return []

    def value(self, token: tuple[str, str]) -> str | None:
        """Return the value that a token stands for."""
        kind, text = token
        if kind == "word":
            return None if text.upper() == "NULL" else text
        if kind not in {"string", "escaped"}:
            raise ValueError("a value that is neither a text nor a number")
        plain = text.lstrip("Ee")[1:-1].replace("''", "'")
        return _unescape(plain) if kind == "escaped" or self._mysql else plain

    def lines(self) -> Iterator[list[str | None]]:
        r"""Yield the lines of COPY until `\.` (PostgreSQL manual, COPY, "Text Format")."""
        self._at = self._text.index("\n", self._at) + 1
        while (end := self._text.find("\n", self._at)) >= 0:
            line, self._at = self._text[self._at : end].removesuffix("\r"), end + 1
            if line == "\\.":
                return
            yield [None if value == "\\N" else _unescape(value) for value in line.split("\t")]
        raise ValueError("a table that does not end")


def rows(text: str, table: str) -> Iterator[Row]:
    """Yield the rows of `table`, each by the names of its columns.

    Raises:
        ValueError: a row can't be read, or its columns are not told. The message holds nothing of it.
    """
    dump = _Dump(text)
    columns: list[str] = []
    while (token := dump.token())[0]:
        verb = token[1].upper()
        if verb == "INSERT":
            yield from _inserted(dump, table, columns)
        elif verb == "COPY":
            yield from _copied(dump, table)
        elif verb == "CREATE":
            columns = _created(dump, table) or columns
        elif token != ("sign", ";"):
            dump.skip_statement()


def _inserted(dump: _Dump, table: str, columns: list[str]) -> Iterator[Row]:
    """Read `INSERT [IGNORE] INTO table [(columns)] VALUES (...), (...);`."""
    word = dump.token()
    while word[1].upper() in {"IGNORE", "OR", "REPLACE", "INTO"}:
        word = dump.token()
    if _name(word[1]) != table:
        dump.skip_statement()
        return
    token = dump.token()
    if token == ("sign", "("):
        columns = [_name(word) for word in dump.words(")") if word != ","]
        token = dump.token()
    if token[1].upper() != "VALUES":
        raise ValueError("an INSERT without VALUES")
    while (token := dump.token()) != ("sign", ";"):
        if token == ("sign", "("):
            yield _row(columns, _values(dump))
        elif token != ("sign", ","):
            raise ValueError("a statement that does not end")


def _values(dump: _Dump) -> list[str | None]:
    values: list[str | None] = []
    while (token := dump.token()) != ("sign", ")"):
        if token != ("sign", ","):
            values.append(dump.value(token))
    return values


def _copied(dump: _Dump, table: str) -> Iterator[Row]:
    """Read COPY table (columns) FROM stdin; and the lines after it."""
    name = _name(dump.token()[1])
    columns = [_name(word) for word in dump.words(")") if word != ","] if dump.token() == ("sign", "(") else []
    dump.skip_statement()
    for values in dump.lines():
        if name == table:
            yield _row(columns, values)


def _created(dump: _Dump, table: str) -> list[str]:
    """Return the columns if this is CREATE TABLE of this table."""
    words: list[str] = []
    while (token := dump.token())[0] and token != ("sign", "("):
        if token == ("sign", ";"):
            return []
        words.append(_name(token[1]))
    if words[:1] != ["table"] or words[-1] != table:
        dump.skip_statement()
        return []
    first = [",", *dump.words(")")]
    dump.skip_statement()
    # A column may have such a name, too, but only in quotes.
    return [_name(word) for comma, word in pairwise(first) if comma == "," and word.lower() not in _CONSTRAINTS]


def _row(columns: list[str], values: list[str | None]) -> Row:
    if len(columns) != len(values):
        raise ValueError("a row of another number of columns than are told")
    return dict(zip(columns, values, strict=True))


def _name(text: str) -> str:
    """Return a name in lower case, without quotes and schema."""
    return text.strip('`"').rpartition(".")[2].strip('`"').lower()


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: _LETTERS.get(match[1], match[1]), text) if "\\" in text else text
