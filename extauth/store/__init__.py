"""Durable state behind one small interface and one SQL text for SQLite and PostgreSQL.

The SQL keeps to what both understand: parameters `$1`, `$2`; no casts; integers for times (Unix seconds); RETURNING and
ON CONFLICT. A look-up may be answered at once; a write is awaited until it is durable.
"""

from contextlib import AbstractAsyncContextManager
from urllib.parse import unquote, urlsplit

from extauth.errors import ConfigError
from extauth.model import Secret
from extauth.store.interface import Row, SharedStore, Statement, Store, Value, announcing
from extauth.store.sqlite import SqliteStore

__all__ = ["Row", "SharedStore", "Statement", "Store", "Value", "announcing", "open_store"]

_POSTGRES = ("postgresql", "postgres")


def open_store(url: str, password: Secret | None = None) -> AbstractAsyncContextManager[SharedStore]:
    """Open the store that `url` names: sqlite:///absolute/path, or postgresql://user@host/database.

    Raises:
        ConfigError: no such kind of store, or (when entered) it can't be used as it is.
        BackendDown: (when entered) the database does not answer.
    """
    parts = urlsplit(url)
    if parts.scheme in _POSTGRES:
        from extauth.store.postgres import PostgresStore  # noqa: PLC0415 - asyncpg and asyncio are a third of the time of a start

        return PostgresStore.open(url, password)
    if parts.scheme == "sqlite" and not parts.netloc and parts.path.startswith("/"):
        return SqliteStore.open(unquote(parts.path))
    raise ConfigError(["daemon.state: must be of the form sqlite:///absolute/path or postgresql://user@host/database"])
