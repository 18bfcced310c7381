"""Connections to PostgreSQL, with deadlines, and its errors as ours.

A pool of our own: asyncpg's asks the server to reset a connection after each use, which costs a look-up a second round trip.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import asyncpg
import trio

from extauth.bridge import Bridge
from extauth.errors import BackendDown
from extauth.sql.database import Conflict, Lost, Row
from extauth.sql.server import Address
from extauth.sql.statement import Statement

T = TypeVar("T")

Driver: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

FAREWELL = 1.0  # seconds that closing may take
LISTEN_AGAIN = 0.5  # seconds until a connection that listened is replaced
PULSE = 5.0  # seconds between two looks whether it is there

_GONE = (
    OSError,  # also TimeoutError
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,  # the connection is closed
    asyncpg.InternalClientError,  # it closes at this very moment
    asyncpg.InvalidCachedStatementError,  # the table has been changed: another connection reads it anew
)


class _TooMany(Exception):  # noqa: N818 - it undoes a transaction
    """A statement was about more than one row."""


class PostgresDatabase:
    """A `Database` on PostgreSQL.

    Args:
        size: how many connections there may be.
        queue_patience: seconds that a look-up may wait for one of them.
        patience: seconds that the server itself lets a statement take.
    """

    def __init__(self, bridge: Bridge, address: Address, size: int, queue_patience: float, patience: float) -> None:
        self._bridge = bridge
        self._address = address
        self._queue_patience = queue_patience
        self._patience = patience
        self._free = asyncio.Semaphore(size)
        self._idle: list[Driver] = []

    async def read(self, statement: Statement, values: Sequence[str], deadline: float) -> list[Row]:
        """Run a SELECT on an idle connection or a new one."""
        return await self._in_time(deadline, self._bridge.call(self._read, statement, values))

    async def change(self, statement: Statement, values: Sequence[str], deadline: float) -> int:
        """Run a statement in a transaction, on a new connection."""
        return await self._in_time(deadline, self._bridge.call(self._change, statement, values))

    async def listen(self, channel: str, heard: Callable[[str], object]) -> None:
        """Listen to a channel for as long as this runs, and tell `heard` what was said; "" after each time of not listening."""
        token = trio.lowlevel.current_trio_token()

        def tell(text: str) -> None:
            with suppress(trio.RunFinishedError):  # nobody is left to hear it
                token.run_sync_soon(heard, text)

        await self._bridge.call(self._listen, channel, tell)

    async def close(self) -> None:
        """Close the idle connections."""
        await self._bridge.call(self._close)

    async def _in_time(self, deadline: float, call: Coroutine[Any, Any, T]) -> T:
        try:
            with trio.fail_after(max(0, deadline - time.monotonic())):
                return await call
        except trio.TooSlowError:
            raise Lost("PostgreSQL: no answer in time") from None

    # In the loop ----------------------------------------------------------------------------------------------------------

    async def _read(self, statement: Statement, values: Sequence[str]) -> list[Row]:
        await self._wait_for_turn()
        try:
            connection = self._idle.pop() if self._idle else await self._connect(changes=False)
            try:
                with _border(Lost):
                    rows = await connection.fetch(statement.text, *values)
            except BaseException as error:
                connection.terminate()
                if isinstance(error, Lost):
                    await self._close()  # if one is broken, the others are, too
                raise
            self._idle.append(connection)
        finally:
            self._free.release()
        return [dict(row) for row in rows]

    async def _wait_for_turn(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(self._queue_patience):
                await self._free.acquire()
        except TimeoutError:
            raise BackendDown("PostgreSQL: all connections are busy") from None

    async def _change(self, statement: Statement, values: Sequence[str]) -> int:
        connection = await self._connect(changes=True)
        try:
            with _border(BackendDown):
                count = await _run(connection, statement, values)
            with suppress(*_GONE, asyncpg.PostgresError):
                await connection.close(timeout=FAREWELL)
        finally:
            connection.terminate()  # unless it is closed
        return count

    async def _connect(self, *, changes: bool) -> Driver:
        address = self._address
        try:
            return await asyncpg.connect(
                host=address.host,
                port=address.port,
                user=address.user,
                password=address.password.reveal() if address.password else "",
                database=address.database,
                ssl=address.tls or "disable",
                server_settings={
                    "application_name": "extauth",
                    "default_transaction_read_only": "off" if changes else "on",
                    "standard_conforming_strings": "on",
                    "statement_timeout": str(max(1, int(1000 * self._patience))),
                },
            )
        except (*_GONE, asyncpg.PostgresError) as error:
            # Without its cause: a traceback through the driver has the password among its values.
            raise Lost(f"PostgreSQL: {_text(error)}") from None

    async def _listen(self, channel: str, tell: Callable[[str], object]) -> None:
        while True:
            with suppress(BackendDown):
                await self._listen_once(channel, tell)
            await asyncio.sleep(LISTEN_AGAIN)

    async def _listen_once(self, channel: str, tell: Callable[[str], object]) -> None:
        def told(_connection: object, _process: int, _channel: str, text: object) -> None:
            tell(str(text))

        connection = await self._connect(changes=False)
        try:
            with _border(Lost):
                await connection.add_listener(channel, told)
                tell("")
                while True:
                    await asyncio.sleep(PULSE)
                    await connection.execute("SELECT 1", timeout=PULSE)
        finally:
            connection.terminate()

    async def _close(self) -> None:
        closing, self._idle = self._idle, []
        for connection in closing:
            connection.terminate()


async def _run(connection: Driver, statement: Statement, values: Sequence[str]) -> int:
    count = 0
    try:
        async with connection.transaction():
            status = await connection.execute(statement.text, *values)
            count = int(status.rpartition(" ")[2])  # "UPDATE 1", "INSERT 0 1"
            if count > 1:
                raise _TooMany
    except _TooMany:
        pass
    return count


@contextmanager
def _border(of_broken: type[BackendDown]) -> Generator[None]:
    """Turn the driver's errors into ours; that of a broken connection into `of_broken`."""
    try:
        yield
    except asyncpg.UniqueViolationError:
        raise Conflict from None
    except (*_GONE, asyncpg.PostgresError) as error:
        # A value that is none of the column's type is an InterfaceError, too.
        broken = isinstance(error, _GONE) and not isinstance(error, ValueError)
        raise (of_broken if broken else BackendDown)(f"PostgreSQL: {_text(error)}") from None


def _text(error: Exception) -> str:
    """Return what the error says, without the detail, which may quote a row."""
    text = error.args[0] if isinstance(error, asyncpg.PostgresError) and error.args else error
    return f"{type(error).__name__}: {text}"
