"""Statements as people write them, with `$user` and the like, as drivers take them: with bind parameters.

A statement is cut into tokens, so that a `$` within quotes, comments or names stays what it is. Nothing of a login ever becomes
part of the text. What the servers read in different ways, depending on their modes, is refused when the configuration is read.
"""

import re
from collections.abc import Callable, Collection, Mapping

from msgspec import Struct


class Dialect(Struct, frozen=True):
    """How a database's SQL is cut into tokens, and how its driver wants parameters.

    Args:
        name: of the database.
        mark: returns the parameter in the text, given its position (from 1).
        tokens: patterns of quoted texts and comments, beside those that all have.
        refused: pattern of what has another meaning than it seems to have -> why.
        escaped: a character that the driver wants doubled.
        quotation: what stands around quoted names.
    """

    name: str
    mark: Callable[[int], str]
    tokens: tuple[str, ...] = ()
    refused: Mapping[str, str] = {}
    escaped: str = ""
    quotation: str = '"'

    def quote(self, sql: str) -> str:
        """Return a statement of ours, whose quoted names stand in double quotes, with those of this database."""
        return sql.replace('"', self.quotation)


_OPEN = "a quotation or comment that does not end"
_POSITIONAL = "parameters are written $user, $domain, $jid"

SQLITE = Dialect(
    "SQLite",
    lambda _: "?",
    (r"`[^`]*`", r"\[[^\]]*\]"),
    {r"[?:@]": _POSITIONAL},
)
POSTGRESQL = Dialect(
    "PostgreSQL",
    lambda position: f"${position}",
    (r"[eE]'(?:[^'\\]|''|\\.)*'", r"\$(?:[^\W\d]\w*)?\$"),  # the second begins a text in dollars: see _end
    {r"[eE]'(?!(?:[^'\\]|''|\\.)*')": _OPEN},
)
MYSQL = Dialect(
    "MySQL",
    lambda _: "%s",
    (r"`[^`]*`", r"#[^\n]*"),
    {
        r"/\*M?!": "a comment that is executed",
        r"--(?=\S)": "begin a comment with -- and a blank, or write - - for two minus signs",
    },
    escaped="%",
    quotation="`",
)

_COMMON = (
    r"'[^']*'",  # a doubled quote is two texts side by side
    r'"[^"]*"',
    r"--[^\n]*",
    r"/\*.*?\*/",
    r"[^\W\d][\w$]*",  # a name may have dollars within
    r"\d[\w.]*",
)
_PARAMETER = r"\$(?P<name>[^\W\d]\w*)"


class Statement(Struct, frozen=True):
    """A statement for a driver, and the names of its parameters by position."""

    text: str
    names: tuple[str, ...]

    def bind(self, values: Mapping[str, str]) -> list[str]:
        """Return the values in the order of the parameters."""
        return [values[name] for name in self.names]


def compile_statement(sql: str, dialect: Dialect, known: Collection[str]) -> Statement:
    """Read one statement with parameters such as `$user`, each of which must be `known`.

    Raises:
        ValueError: it can't be used; with the text to show.
    """
    if "\0" in sql:
        raise ValueError("holds a NUL")
    scanner = _scanner(dialect)
    pieces: list[str] = []
    names: list[str] = []
    position, ended = 0, False
    while position < len(sql):
        for pattern, problem in dialect.refused.items():
            if re.compile(pattern, re.DOTALL).match(sql, position):
                raise ValueError(f"{_near(sql, position)}: {problem}")
        match = scanner.match(sql, position)
        if match is None:
            problem = _POSITIONAL if sql[position] == "$" else _OPEN
            raise ValueError(f"{_near(sql, position)}: {problem}")
        end = match.end()
        token, name = match[0], match["name"]
        if ended and not token.isspace():
            raise ValueError("must be one statement")
        if name is not None:
            if name not in known:
                raise ValueError(f"${name}: no such parameter; there are {', '.join(f'${k}' for k in known)}")
            names.append(name)
            pieces.append(dialect.mark(len(names)))
        elif token == ";":  # noqa: S105
            ended = True
        else:
            end = _end(sql, match, dialect)
            piece = sql[position:end]
            pieces.append(piece.replace(dialect.escaped, 2 * dialect.escaped) if dialect.escaped else piece)
        position = end
    text = "".join(pieces).strip()
    if not text:
        raise ValueError("is empty")
    return Statement(text, tuple(names))


def _scanner(dialect: Dialect) -> re.Pattern[str]:
    """Return a pattern that matches the next token. What begins a quotation that does not end is none."""
    patterns = (*dialect.tokens, *_COMMON, _PARAMETER, r"\s+", r"/(?!\*)", r"[^'\"`$/\[]|\[")
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.DOTALL)


def _end(sql: str, match: re.Match[str], dialect: Dialect) -> int:
    """Return where a token ends that is no parameter."""
    token, position = match[0], match.start()
    if token.startswith("/*") and "/*" in token[2:]:  # some databases nest them, some don't
        raise ValueError(f"{_near(sql, position)}: a comment within a comment")
    if token[0] in "'\"" and "\\" in token and dialect is MYSQL:
        raise ValueError(f"{_near(sql, position)}: what a backslash means depends on sql_mode; leave it out")
    if dialect is POSTGRESQL and token[0] == "$":  # everything up to the same tag, whatever it is
        end = sql.find(token, match.end())
        if end < 0:
            raise ValueError(f"{_near(sql, position)}: a text in dollars that does not end")
        return end + len(token)
    return match.end()


def _near(sql: str, position: int) -> str:
    return repr(sql[position : position + 20])
