"""The keys that all backends of SQL have."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from extauth.model import VIA
from extauth.passwords.prepare import LONGEST
from extauth.passwords.stored import WEAK, WRITABLE
from extauth.sql.presets import PRESETS
from extauth.sql.statement import Dialect, Statement, compile_statement
from extauth.values import Checked

QUESTION = ("user", "domain", "jid")  # parameters of the query
CHANGE = (*QUESTION, "password")  # of what changes accounts
REHASH = (*CHANGE, "stored")  # of what replaces a stored value: only as long as it is still there

_PREFIX_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.")


@dataclass(frozen=True, kw_only=True)
class SqlConfig(Checked):
    """What a backend's table may have beside how its database is reached."""

    dialect: ClassVar[Dialect]

    preset: Literal["prosody", "ejabberd", "ejabberd-hosts", "django", "nextcloud", "wordpress"] | None = None
    table_prefix: str | None = None  # of the preset's tables, instead of the application's usual one
    query: str | None = None  # reads an account, instead of a preset
    set_password: str | None = None  # statements that change accounts; none: nothing is changed
    create_user: str | None = None
    remove_user: str | None = None
    rehash: str | None = None  # replaces a stored value of an old format at a login
    scheme: str = "argon2id"  # how new passwords are stored
    weak: tuple[str, ...] = ()  # weak schemes of stored values that are accepted
    scram: tuple[Literal["SHA-1", "SHA-256", "SHA-384", "SHA-512"], ...] = ()  # every user has stored keys of these hashes
    attributes: tuple[str, ...] = ()  # columns that become attributes of the login
    min_length: int = 8  # of new passwords
    connections: int = 8
    queue_patience: float = 1.0  # seconds that a request may wait for one of them
    timeout: float = 4.0  # seconds that a request may take

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        if (self.preset is None) == (self.query is None):
            yield "preset, query: give one of them"
        if self.table_prefix is not None and (self.preset is None or not _PREFIX_CHARACTERS.issuperset(self.table_prefix)):
            yield "table_prefix: goes with a preset, and is of ASCII letters, digits, '_' and '.'"
        statements = (
            ("query", self.query, QUESTION),
            ("set_password", self.set_password, CHANGE),
            ("create_user", self.create_user, CHANGE),
            ("remove_user", self.remove_user, QUESTION),
            ("rehash", self.rehash, REHASH),
        )
        for key, text, known in statements:
            if text is not None:
                yield from _problems(key, text, self.dialect, known)
        yield from _unknown("weak", self.weak, WEAK)
        yield from _unknown("scheme", (self.scheme,), WRITABLE)
        if VIA in self.attributes:
            yield f'attributes: "{VIA}" tells how somebody logged in; give the column another name in the query'
        if not 1 <= self.min_length <= LONGEST:
            yield f"min_length: must be 1 to {LONGEST}"
        if not 1 <= self.connections <= 1024:  # noqa: PLR2004
            yield "connections: must be 1 to 1024"
        yield from self.not_positive("queue_patience", "timeout")

    def question(self) -> Statement:
        """Return the statement that reads an account."""
        if self.preset is None:
            assert self.query is not None
            return compile_statement(self.query, self.dialect, QUESTION)
        preset = PRESETS[self.preset]
        text = preset.query.format(prefix=preset.prefix if self.table_prefix is None else self.table_prefix)
        return compile_statement(self.dialect.quote(text), self.dialect, QUESTION)

    def change(self, text: str) -> Statement:
        """Return a statement that changes an account."""
        return compile_statement(text, self.dialect, REHASH)


def _problems(key: str, text: str, dialect: Dialect, known: Iterable[str]) -> list[str]:
    try:
        statement = compile_statement(text, dialect, tuple(known))
    except ValueError as error:
        return [f"{key}: {error}"]
    told = [] if {"user", "jid"} & set(statement.names) else [f"{key}: holds neither $user nor $jid"]
    needed = {"set_password": {"password"}, "create_user": {"password"}, "rehash": {"password", "stored"}}
    return told + [f"{key}: does not hold ${name}" for name in sorted(needed.get(key, set()) - set(statement.names))]


def _unknown(key: str, names: Iterable[str], known: Iterable[str]) -> list[str]:
    return [f"{key}: {name!r}: there are {', '.join(sorted(known))}" for name in names if name not in known]
