"""Connections to a PostgreSQL that comes and goes; all of it in the loop of a bridge.

One connection more than are worked with watches: it listens for what is announced, and finds out, as soon as somebody has met
with a failure, whether the server is there. The others wait for that rather than each for itself.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeAlias, TypeVar

import asyncpg

from extauth.errors import BackendDown
from extauth.store.interface import CHANNEL, Results, Row, Statement, Value

CONNECTIONS = 8
PATIENCE = 3.0  # seconds that a read or write may take, from waiting for a connection to the answer: less than any listener's
PAUSE = 0.1  # seconds between attempts to connect
FAREWELL = 0.5  # seconds that closing a connection may take
ROUND = 10.0  # seconds between looks at a connection that nobody complains of

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

LOST = (
    OSError,  # TimeoutError, too
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby that has taken the place of the server, or will
    asyncpg.InvalidCachedStatementError,  # another node has brought the schema up to date
    asyncpg.InterfaceError,  # the connection is closed; or a value is of no use, which is a ValueError as well
    asyncpg.InternalClientError,  # it is just being closed
)
UNDONE = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)  # the server says so: nothing has taken effect


class Select:
    """One look-up."""

    unknown = False

    def __init__(self, sql: str, values: Sequence[Value]) -> None:
        self._sql = sql
        self._values = values

    async def __call__(self, connection: Connection) -> list[Row]:
        """Run it."""
        return [tuple(row) for row in await connection.fetch(self._sql, *self._values)]


class Unit:
    """One unit of work. `unknown`: it may have taken effect, unless the server says that it has not."""

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.unknown = False
        self._statements = statements

    async def __call__(self, connection: Connection) -> Results:
        """Run it in a transaction."""
        if len(self._statements) == 1:  # is a transaction by itself
            [(sql, values)] = self._statements
            self.unknown = True
            return [[tuple(row) for row in await connection.fetch(sql, *values)]]
        self.unknown = False
        await connection.execute("BEGIN")
        results = [[tuple(row) for row in await connection.fetch(sql, *values)] for sql, values in self._statements]
        self.unknown = True
        await connection.execute("COMMIT")
        return results


class Connections:
    """As many connections as are needed, up to CONNECTIONS.

    Parameters:
        connect: opens one.
        hear: is called with every text that is announced; with None when some may have been missed.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], hear: Callable[[str | None], None]) -> None:
        self._connect = connect
        self._hear = hear
        self._idle: list[Connection] = []
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._up = asyncio.Event()
        self._complaint = asyncio.Event()
        self._failed: float | None = None  # since when (monotonic)
        self._why = ""
        self._watching: asyncio.Task[None]

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, unknown: Callable[[], bool]) -> T:
        """Run `work` on a connection; again on another if that one is lost, unless `unknown()`.

        Raises:
            BackendDown: not within PATIENCE; or at once, if the server has been away for longer.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    await self._wait_until_up()
                    try:
                        return await self._attempt(work)
                    except LOST as error:
                        if _quotes(error):
                            raise
                        self._complain(error)
                        if unknown():
                            raise BackendDown(f"{describe(error)}; whether it was written is not known") from None
                    except UNDONE:
                        continue
        except TimeoutError:
            if self._up.is_set():  # else it is known why
                self._complain(TimeoutError(f"no answer within {PATIENCE:g} s"))
            raise BackendDown(self._why) from None
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise BackendDown(describe(error)) from None  # the cause would quote values

    async def open(self) -> None:
        """Begin to look after the server."""
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Take leave."""
        self._watching.cancel()
        await asyncio.wait([self._watching])
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            while self._idle:
                await self._idle.pop().close(timeout=FAREWELL)

    async def _watch(self) -> None:
        """Listen for announcements, and look after the server whenever somebody complains. Never returns."""
        while True:
            connection: Connection | None = None
            try:
                async with asyncio.timeout(PATIENCE):
                    connection = await self._connect()
                    await connection.add_listener(CHANNEL, self._heard)
                self._hear(None)
                while True:
                    self._failed = None
                    self._up.set()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(ROUND):
                            await self._complaint.wait()
                    self._complaint.clear()
                    async with asyncio.timeout(PATIENCE):
                        await connection.fetchval("SELECT 1")
            except Exception as error:  # whatever it is, somebody has to watch
                self._complain(error)
            finally:
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(PAUSE)

    async def _wait_until_up(self) -> None:
        if self._up.is_set():
            return
        if self._failed is not None and time.monotonic() - self._failed > PATIENCE:
            raise BackendDown(self._why)
        await self._up.wait()

    async def _attempt(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async with self._free:
            connection = await self._take()
            try:
                result = await work(connection)
            except BaseException:  # it may be within a transaction, or an answer be under way
                connection.terminate()
                raise
            self._idle.append(connection)
            return result

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await self._connect()

    def _complain(self, error: Exception) -> None:
        """Have the server looked after, and distrust all connections."""
        self._why = describe(error)
        if self._failed is None:
            self._failed = time.monotonic()
        self._up.clear()
        self._complaint.set()
        while self._idle:
            self._idle.pop().terminate()

    def _heard(self, _connection: object, _pid: int, _channel: str, text: object) -> None:
        self._hear(str(text))


def describe(error: Exception) -> str:
    """Say what happened, without the values that the server's DETAIL and errors about values quote."""
    if _quotes(error):
        return "PostgreSQL: a value of no use"
    return f"PostgreSQL: {error.args[0] if isinstance(error, asyncpg.PostgresError) else str(error) or type(error).__name__}"


def _quotes(error: Exception) -> bool:
    """Tell whether it is about a value, the server's error or the driver's."""
    if isinstance(error, asyncpg.InterfaceError):
        return isinstance(error, ValueError) and not isinstance(error, asyncpg.ClientConfigurationError)
    return isinstance(error, asyncpg.DataError)
