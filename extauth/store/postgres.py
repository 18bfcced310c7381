"""The store on PostgreSQL, which several nodes may share: asyncpg over a bridge.

Every unit of work is a transaction, READ COMMITTED. A look-up or a unit that has not got as far as its COMMIT is tried again on
another connection when its own is lost; one whose COMMIT has no answer is told as an outage, and never as done.
"""

import re
import ssl
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import asyncpg
import trio

from extauth.bridge import Bridge, open_bridge
from extauth.errors import BackendDown, ConfigError
from extauth.model import Secret
from extauth.store import connections
from extauth.store.connections import LOST, PAUSE, Connection, Connections, Select, Unit, describe
from extauth.store.interface import Hear, Results, Row, Statement, Value, newer_schema
from extauth.store.schema import MIGRATIONS, VERSION

START = 10.0  # seconds that the server may take to be there when the store is opened
TIMEOUT = 2.5  # seconds to connect
MIGRATING = 0x65787461757468  # the advisory lock: "extauth"

_DURABLE = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"

_UNFIT = (  # what a person must mend
    ssl.SSLCertVerificationError,
    asyncpg.InvalidAuthorizationSpecificationError,  # a wrong password, too
    asyncpg.InvalidCatalogNameError,
    asyncpg.ClientConfigurationError,
    ValueError,  # a URL that can't be read
)


class _Address:
    """Where the database is, and the password that is not in its URL."""

    def __init__(self, url: str, password: Secret | None) -> None:
        parts = urlsplit(url)
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._url = url
        self._password = password

    async def connect(self) -> Connection:
        """Open a connection whose commits are durable when they are answered, whatever the server's default is."""
        connection = await asyncpg.connect(
            self._url,
            password=self._password.reveal() if self._password else None,
            timeout=TIMEOUT,
            server_settings={"application_name": "extauth", "statement_timeout": str(int(1000 * connections.PATIENCE))},
        )
        try:
            await connection.execute(_DURABLE)
        except BaseException:
            connection.terminate()
            raise
        return connection


class PostgresStore:
    """A `Store` in a database of PostgreSQL."""

    def __init__(self, bridge: Bridge, address: _Address) -> None:
        self._bridge = bridge
        self._token = trio.lowlevel.current_trio_token()
        self._connections = Connections(address.connect, self._heard)
        self._hear: list[Hear] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, password: Secret | None) -> AsyncGenerator["PostgresStore", None]:
        """Connect, bring the schema up to date, and look after the connection from then on.

        Raises:
            ConfigError: the database can't be used: not admitted, not there, a newer schema than this program's.
            BackendDown: no server answers.
        """
        address = _Address(url, password)
        async with open_bridge("store") as bridge:
            await _prepare(bridge, address)
            store = cls(bridge, address)
            await bridge.call(store._connections.open)
            try:
                yield store
            finally:
                with trio.CancelScope(shield=True):
                    await bridge.call(store._connections.close)

    def read(self, sql: str, *values: Value) -> Awaitable[list[Row]]:
        """Run one SELECT."""
        return self._bridge.call(self._read, sql, values)

    async def write(self, *statements: Statement) -> Results:
        """Run a unit of work in a transaction and wait until it is durable."""
        return await self._bridge.call(self._write, statements)

    def subscribe(self, hear: Hear) -> None:
        """Call `hear` with what any node announces, and with None after every interruption."""
        self._hear.append(hear)

    # In the bridge's loop -------------------------------------------------------------------------------------------------

    async def _read(self, sql: str, values: tuple[Value, ...]) -> list[Row]:
        return await self._connections.run(Select(sql, values), unknown=lambda: False)

    async def _write(self, statements: tuple[Statement, ...]) -> Results:
        unit = Unit(statements)
        return await self._connections.run(unit, unknown=lambda: unit.unknown)

    def _heard(self, text: str | None) -> None:
        with suppress(trio.RunFinishedError):  # nobody is left to hear it
            self._token.run_sync_soon(self._tell, text)

    def _tell(self, text: str | None) -> None:
        for hear in self._hear:
            hear(text)


async def _prepare(bridge: Bridge, address: _Address) -> None:
    """Bring the schema up to date, as soon as the server is there."""
    place = f"daemon.state: {address.name}"
    deadline = trio.current_time() + START
    while True:
        try:
            found = await bridge.call(_migrate, address)
        except _UNFIT as error:
            raise ConfigError([f"{place}: {describe(error)}"]) from None
        except LOST as error:
            if trio.current_time() > deadline:
                raise BackendDown(f"{place}: {describe(error)}") from None
            await trio.sleep(PAUSE)
            continue
        except asyncpg.PostgresError as error:
            raise ConfigError([f"{place}: {describe(error)}"]) from None
        if found > VERSION:
            raise ConfigError([f"{place} {newer_schema(found, VERSION)}"])
        return


async def _migrate(address: _Address) -> int:
    """Bring the schema up to date, one node at a time, and return which version it had."""
    connection = await address.connect()
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL statement_timeout = 0")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATING)
            if await connection.fetchval("SELECT to_regclass('schema_version')") is None:
                await connection.execute("CREATE TABLE schema_version (version BIGINT NOT NULL)")
                await connection.execute("INSERT INTO schema_version VALUES (0)")
            found = int(await connection.fetchval("SELECT version FROM schema_version"))
            for migration in MIGRATIONS[found:]:
                for statement in migration:
                    await connection.execute(re.sub(r"\bINTEGER\b", "BIGINT", statement))  # PostgreSQL's ends in 2038
            if found < VERSION:
                await connection.execute("UPDATE schema_version SET version = $1", VERSION)
            return found
    finally:
        connection.terminate()
