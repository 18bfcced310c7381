"""Backend `sqlite`: accounts in the tables of an SQLite file."""

import os
import sqlite3
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

from extauth.backend import Backend, Context
from extauth.errors import BackendDown
from extauth.sql.backend import open_in_threads
from extauth.sql.config import SqlConfig
from extauth.sql.database import Conflict, Lost, Row
from extauth.sql.statement import SQLITE, Dialect, Statement

STEPS = 1000  # of SQLite's virtual machine, between two looks at the clock


@dataclass(frozen=True, kw_only=True)
class Config(SqlConfig):
    """[backend.NAME] of `type = "sqlite"`."""

    dialect: ClassVar[Dialect] = SQLITE

    path: str  # of the file

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        yield from super().problems()
        if not self.path.startswith("/"):
            yield "path: must be absolute"


def open(config: Config, context: Context) -> AbstractAsyncContextManager[Backend]:  # noqa: A001 - the name every backend has
    """Prepare for the file; it is opened when it is needed."""
    return open_in_threads(
        "SQLite", config, context, lambda deadline, changes: Connection(config.path, deadline, changes=changes)
    )


class Connection:
    """A connection to the file; it never makes one."""

    def __init__(self, path: str, deadline: float, *, changes: bool) -> None:
        self._path = path
        self._deadline = deadline
        with self._border():
            uri = f"file:{quote(path)}?mode={'rw' if changes else 'ro'}"
            self._file = self._which()
            self._sqlite = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
            self._sqlite.set_progress_handler(lambda: time.monotonic() > self._deadline, STEPS)

    def read(self, statement: Statement, values: Sequence[str], deadline: float) -> list[Row]:
        """Run a SELECT."""
        with self._border():
            if self._which() != self._file:
                raise Lost("SQLite: another file has taken its place")
            cursor = self._execute(statement, values, deadline)
            names = [column[0].lower() for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def change(self, statement: Statement, values: Sequence[str], deadline: float) -> int:
        """Run a statement in a transaction."""
        with self._border():
            self._wait_at_most(deadline)
            self._sqlite.execute("BEGIN IMMEDIATE")
        with self._border():
            count = self._execute(statement, values, deadline).rowcount
            self._sqlite.execute("ROLLBACK" if count > 1 else "COMMIT")
            return count

    def close(self) -> None:
        """Close it."""
        with suppress(sqlite3.Error):
            self._sqlite.close()

    def _which(self) -> tuple[int, int]:
        status = os.stat(self._path)
        return status.st_dev, status.st_ino

    def _execute(self, statement: Statement, values: Sequence[str], deadline: float) -> sqlite3.Cursor:
        self._wait_at_most(deadline)
        return self._sqlite.execute(statement.text, values)

    def _wait_at_most(self, deadline: float) -> None:
        """Bound how long a statement may run, and wait for whoever holds a lock."""
        self._deadline = deadline
        milliseconds = max(1, int(1000 * (deadline - time.monotonic())))
        self._sqlite.execute(f"PRAGMA busy_timeout = {milliseconds}")

    @contextmanager
    def _border(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise Lost(f"{self._path}: {error.strerror}") from None
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            if name in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"):
                raise Conflict from None
            if name.startswith(("SQLITE_CANTOPEN", "SQLITE_IOERR")):
                raise Lost(f"{self._path}: {error}") from None
            raise BackendDown(f"{self._path}: {error}") from None
