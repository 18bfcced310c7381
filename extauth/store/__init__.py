"""Durable state behind one small interface and one SQL text for SQLite and PostgreSQL.

The SQL keeps to what both understand: parameters `$1`, `$2`; no casts; integers for times (Unix seconds); RETURNING and
ON CONFLICT. A look-up may be answered at once; a write is awaited until it is durable.
"""

from contextlib import AbstractAsyncContextManager
from urllib.parse import unquote, urlsplit

from extauth.errors import ConfigError
from extauth.store.interface import Row, Statement, Store, Value
from extauth.store.sqlite import SqliteStore

__all__ = ["Row", "Statement", "Store", "Value", "open_store"]


def open_store(url: str) -> AbstractAsyncContextManager[Store]:
    """Open the store that `url` names: sqlite:///absolute/path.

    Raises:
        ConfigError: no such kind of store, or (when entered) it can't be used as it is.
    """
    parts = urlsplit(url)
    if parts.scheme == "sqlite" and not parts.netloc and parts.path.startswith("/"):
        return SqliteStore.open(unquote(parts.path))
    raise ConfigError([f"daemon.state: {url!r} is not of the form sqlite:///absolute/path"])
