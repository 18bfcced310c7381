"""The store on SQLite: look-ups in the caller's thread, writes in one thread with group commit.

A look-up takes 10 us, a thread switch 60, an fsync milliseconds. So reads never leave the loop and writes never run in it: the
writer takes all units of work that have queued up, commits them in one transaction and answers each after the fsync.

What has been read is remembered until anybody commits anything, be it another process.
"""

import contextlib
import os
import queue
import re
import sqlite3
import stat
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from mmap import mmap
from pathlib import Path

import outcome
import trio

from extauth.errors import BackendDown, ConfigError
from extauth.store.interface import Hear, Results, Row, Statement, Value, newer_schema
from extauth.store.schema import MIGRATIONS, VERSION
from extauth.store.walindex import wal_header

BUSY = 5.0  # seconds to wait for another process that holds the write lock
BATCH = 256  # units of work in one transaction
LOOK = 1.0  # seconds between looks whether another process has written
REMEMBERED = 4096  # look-ups that are remembered
FEW = 16  # rows of a look-up that is remembered, at most

# How often something was announced: processes on the same file hear that it was, though not what.
_ANNOUNCED = "CREATE TABLE IF NOT EXISTS announced (count INTEGER NOT NULL PRIMARY KEY) WITHOUT ROWID"
_ANNOUNCED_NEVER = "INSERT INTO announced SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM announced)"
_ANNOUNCE = "UPDATE announced SET count = count + 1 RETURNING count"


@cache
def _numbered(sql: str) -> str:
    """Return a statement with "?1" for "$1", which is a name to sqlite3."""
    return re.sub(r"\$(?=[0-9])", "?", sql)


class _Unit:
    """One unit of work on its way through the writer."""

    __slots__ = ("_event", "_result", "statements")

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.statements = statements
        self._event = trio.Event()
        self._result: outcome.Outcome[Results] | None = None

    def finish(self, result: outcome.Outcome[Results]) -> None:
        self._result = result
        self._event.set()

    async def wait(self) -> Results:
        await self._event.wait()
        assert self._result is not None
        return self._result.unwrap()


class SqliteStore:
    """A `Store` in one SQLite file."""

    def __init__(self, path: str, reader: sqlite3.Connection, header: mmap | None) -> None:
        self._path = path
        self._reader = reader
        self._header = header
        self._mark: bytes | None = None  # of when what is remembered was read
        self._remembered: dict[tuple[str, tuple[Value, ...]], list[Row]] = {}
        self._queue: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._hear: list[Hear] = []
        self._announced: list[str] = []  # in the transaction that the writer is at
        self._version = 0  # of the file, which other processes' writes raise
        self._count = 0  # of announcements that have been heard

    @classmethod
    @asynccontextmanager
    async def open(cls, path: str) -> AsyncGenerator["SqliteStore", None]:
        """Open or create the file (0600, in a folder of 0700), bring its schema up to date and start the writer.

        Raises:
            ConfigError: the file can't be used: no permission, no database, a newer schema than this program's.
        """
        _prepare_file(path)
        try:
            writer = await trio.to_thread.run_sync(_open_writer, path)
            reader = sqlite3.connect(path, isolation_level=None)
            reader.execute("PRAGMA query_only=ON")
        except sqlite3.Error as error:
            raise ConfigError([f"daemon.state: {path}: {error}"]) from error
        with wal_header(path, reader) as header:
            store = cls(path, reader, header)
            thread = threading.Thread(target=store._write_all, args=(writer,), name="extauth-store", daemon=True)
            thread.start()
            try:
                yield store
            finally:
                store._queue.put(None)
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(thread.join)
                reader.close()
                store._header = None

    def read(self, sql: str, *values: Value) -> list[Row]:
        """Run one SELECT, at once."""
        mark = self.mark()
        if mark is None or mark != self._mark or len(self._remembered) > REMEMBERED:
            self._mark = mark
            self._remembered.clear()
        rows = self._remembered.get((sql, values))
        if rows is None:
            try:
                rows = self._reader.execute(_numbered(sql), values).fetchall()
            except sqlite3.Error as error:
                raise BackendDown(f"{self._path}: {error}") from error
            if len(rows) <= FEW:
                self._remembered[sql, values] = rows
        return rows

    def mark(self) -> bytes | None:
        """Return what SQLite itself tells by whether anybody has written."""
        return None if self._header is None else self._header[:]

    async def write(self, *statements: Statement) -> Results:
        """Queue a unit of work and wait until it is durable."""
        unit = _Unit(statements)
        self._queue.put(unit)
        return await unit.wait()

    def subscribe(self, hear: Hear) -> None:
        """Call `hear` with what is announced here, and with None when another process has announced something."""
        self._hear.append(hear)

    def _finish(self, units: list[_Unit], results: list[outcome.Outcome[Results]], announced: list[str | None]) -> None:
        for text in announced:
            for hear in self._hear:
                hear(text)
        for unit, result in zip(units, results, strict=True):
            unit.finish(result)

    # In the writer's thread ----------------------------------------------------------------------------------------------

    def _write_all(self, connection: sqlite3.Connection) -> None:
        connection.create_function("pg_notify", 2, self._announce)
        self._announced_by_others(connection)
        open_ended = True
        while open_ended:
            batch: list[_Unit | None] = []
            with contextlib.suppress(queue.Empty):
                batch.append(self._queue.get(timeout=LOOK))
                while len(batch) < BATCH:
                    batch.append(self._queue.get_nowait())
            units = [unit for unit in batch if unit is not None]
            open_ended = len(units) == len(batch)
            results = self._commit(connection, units) if units else []
            announced: list[str | None] = [None] if self._announced_by_others(connection) else []
            announced += self._announced
            self._announced = []
            if units or announced:
                with contextlib.suppress(trio.RunFinishedError):  # nobody is left to hear it
                    self._token.run_sync_soon(self._finish, units, results, announced)
        connection.close()

    def _announce(self, _channel: str, text: str) -> None:
        self._announced.append(text)

    def _announced_by_others(self, connection: sqlite3.Connection) -> bool:
        before = self._count
        with contextlib.suppress(sqlite3.Error):  # the next unit of work tells it
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if version != self._version:
                (self._count,) = connection.execute("SELECT count FROM announced").fetchone()
                self._version = version
        return self._count != before

    def _commit(self, connection: sqlite3.Connection, units: list[_Unit]) -> list[outcome.Outcome[Results]]:
        """Run all units in one transaction; a unit that fails is undone alone."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            results = [self._run(connection, unit.statements) for unit in units]
            count = self._count
            if self._announced:
                (count,) = connection.execute(_ANNOUNCE).fetchone()
            connection.execute("COMMIT")
            if count == self._count + 1:  # else others have announced something, too, which is still to be heard
                self._count = count
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            self._announced = []
            down = BackendDown(f"{self._path}: {error}")
            return [outcome.Error(down) for _ in units]
        return results

    def _run(self, connection: sqlite3.Connection, statements: Sequence[Statement]) -> outcome.Outcome[Results]:
        connection.execute("SAVEPOINT unit")
        announced = len(self._announced)
        try:
            rows = [connection.execute(_numbered(sql), values).fetchall() for sql, values in statements]
        except Exception as error:  # such as a number of more than 64 bits: it must not end the writer
            connection.execute("ROLLBACK TO unit")
            del self._announced[announced:]
            return outcome.Error(BackendDown(f"{self._path}: {error}") if isinstance(error, sqlite3.Error) else error)
        finally:
            connection.execute("RELEASE unit")
        return outcome.Value(rows)


def _prepare_file(path: str) -> None:
    """Create the file so that nobody else can read it, and refuse one that others can."""
    folder = Path(path).parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError([f"daemon.state: {path}: {error.strerror}"]) from error
    problems: list[str] = []
    if not stat.S_ISREG(status.st_mode):
        problems.append(f"daemon.state: {path}: not a regular file")
    if status.st_mode & 0o077:
        problems.append(f"daemon.state: {path}: others may read it (mode {status.st_mode & 0o777:04o}); chmod 600 it")
    if folder.stat().st_mode & 0o022:
        problems.append(f"daemon.state: {folder}: others may write to this folder; chmod 700 it")
    if problems:
        raise ConfigError(problems)


def _open_writer(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY, check_same_thread=False)
    try:
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: str) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise ConfigError([f"daemon.state: {path} {newer_schema(version, VERSION)}"])
    for migration in MIGRATIONS[version:]:
        for statement in migration:
            # Rows kept in the order of their primary key are found in half the time: one search, not one in an index and
            # one in the table. PostgreSQL has no such choice.
            connection.execute(f"{statement} WITHOUT ROWID" if statement.startswith("CREATE TABLE") else statement)
    connection.execute(_ANNOUNCED)
    connection.execute(_ANNOUNCED_NEVER)
    connection.execute(f"PRAGMA user_version={VERSION}")
    connection.execute("COMMIT")
