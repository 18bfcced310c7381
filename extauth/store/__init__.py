"""Durable state behind one small interface and one SQL text for SQLite and PostgreSQL.

The SQL keeps to what both understand: parameters `$1`, `$2`; no casts; integers for times (Unix seconds); RETURNING and
ON CONFLICT. A look-up may be answered at once; a write is awaited until it is durable.
"""

from contextlib import AbstractAsyncContextManager
from urllib.parse import parse_qs, unquote, urlsplit

from extauth.errors import ConfigError
from extauth.model import Secret
from extauth.store.interface import Row, SharedStore, Statement, Store, Value, announcing
from extauth.store.sqlite import SqliteStore

__all__ = ["Row", "SharedStore", "Statement", "Store", "Value", "announcing", "check_url", "open_store"]

_POSTGRES = ("postgresql", "postgres")


def check_url(url: str) -> None:
    """Check the form of what names a store.

    Raises:
        ValueError: with the text to show.
    """
    parts = urlsplit(url)
    if parts.scheme in _POSTGRES:
        if parts.password or "password" in parse_qs(parts.query):
            raise ValueError("a password has no place in a URL: name a file in state_password_file")
    elif parts.scheme != "sqlite" or parts.netloc or not parts.path.startswith("/"):
        raise ValueError("must be of the form sqlite:///absolute/path or postgresql://user@host/database")


def open_store(url: str, password: Secret | None = None) -> AbstractAsyncContextManager[SharedStore]:
    """Open the store that `url` names: sqlite:///absolute/path, or postgresql://user@host/database.

    Raises:
        ConfigError: no such kind of store, or (when entered) it can't be used as it is.
        BackendDown: (when entered) the database does not answer.
    """
    try:
        check_url(url)
    except ValueError as error:
        raise ConfigError([f"daemon.state: {error}"]) from None
    parts = urlsplit(url)
    if parts.scheme in _POSTGRES:
        from extauth.store.postgres import PostgresStore  # noqa: PLC0415 - asyncpg and asyncio are a third of the time of a start

        return PostgresStore.open(url, password)
    return SqliteStore.open(unquote(parts.path))
