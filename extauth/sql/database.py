"""What a database is to the backends of SQL, and how connections of drivers that block are kept."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from extauth.errors import BackendDown
from extauth.sql.statement import Statement
from extauth.threads import Threads

T = TypeVar("T")

Row = Mapping[str, object]
"""A row by names of columns, in lower case."""


class Lost(BackendDown):
    """There is no connection any more, or yet, and nothing was changed: worth another try."""


class Conflict(Exception):  # noqa: N818 - it names a state of the world
    """A row with this key is there already."""


class Database(Protocol):
    """Runs statements. A `deadline` is a time of `time.monotonic`; nothing returns later than that."""

    async def read(self, statement: Statement, values: Sequence[str], deadline: float) -> list[Row]:
        """Run a SELECT, without a right to change anything.

        Raises:
            Lost: the connection broke, or there was none.
            BackendDown: no answer, for another reason.
        """
        ...

    async def change(self, statement: Statement, values: Sequence[str], deadline: float) -> int:
        """Run a statement in a transaction and return how many rows it was about; more than one are left as they were.

        It has a connection of its own: of a kept one that turns out to be broken nobody could tell whether the change was made.

        Raises:
            Lost: there was no connection; nothing was changed.
            Conflict: a row with this key is there already; nothing was changed.
            BackendDown: it failed, or nobody can tell.
        """
        ...


class Connection(Protocol):
    """A connection of a driver that blocks; all it raises is `Lost`, `Conflict` and `BackendDown`."""

    def read(self, statement: Statement, values: Sequence[str], deadline: float) -> list[Row]:
        """As of `Database`."""
        ...

    def change(self, statement: Statement, values: Sequence[str], deadline: float) -> int:
        """As of `Database`."""
        ...

    def close(self) -> None:
        """Close it; never raises."""
        ...


class ThreadedDatabase:
    """A database by connections that block: as many as there are threads.

    Args:
        connect: makes a connection, until a deadline, to read or to change by; raises `Lost`.
    """

    def __init__(self, threads: Threads, connect: Callable[[float, bool], Connection]) -> None:
        self._threads = threads
        self._connect = connect
        self._lock = threading.Lock()
        self._idle: list[Connection] = []

    async def read(self, statement: Statement, values: Sequence[str], deadline: float) -> list[Row]:
        """Run a SELECT on an idle connection or a new one."""
        return await self._threads.run(lambda: self._read(statement, values, deadline))

    async def change(self, statement: Statement, values: Sequence[str], deadline: float) -> int:
        """Run a statement in a transaction, on a new connection."""
        return await self._threads.run(lambda: self._change(statement, values, deadline))

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            closing, self._idle = self._idle, []
        for connection in closing:
            connection.close()

    # In a thread ----------------------------------------------------------------------------------------------------------

    def _read(self, statement: Statement, values: Sequence[str], deadline: float) -> list[Row]:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._connect(deadline, False)
        try:
            rows = connection.read(statement, values, deadline)
        except BaseException as error:
            connection.close()
            if isinstance(error, Lost):
                self.close()  # if one is broken, the others are, too
            raise
        with self._lock:
            self._idle.append(connection)
        return rows

    def _change(self, statement: Statement, values: Sequence[str], deadline: float) -> int:
        connection = self._connect(deadline, True)
        try:
            return connection.change(statement, values, deadline)
        finally:
            connection.close()
