"""Backend `postgres`: accounts in the tables of PostgreSQL, by asyncpg over a bridge."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar

import trio

from extauth.backend import Backend, Context
from extauth.background import background
from extauth.bridge import open_bridge
from extauth.jid import InvalidName, parse
from extauth.model import Identity
from extauth.sql.backend import SqlBackend
from extauth.sql.server import ServerConfig
from extauth.sql.statement import POSTGRESQL, Dialect
from extauth_postgres.wire import PostgresDatabase

__all__ = ["Config", "open"]


LONGEST_NAME = 63  # bytes, of PostgreSQL


@dataclass(frozen=True, kw_only=True)
class Config(ServerConfig):
    """[backend.NAME] of `type = "postgres"`."""

    dialect: ClassVar[Dialect] = POSTGRESQL
    standard_port: ClassVar[int] = 5432

    listen: str | None = None  # a channel on which changes of accounts are told (NOTIFY)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        yield from super().problems()
        if self.listen is not None and not 0 < len(self.listen.encode()) <= LONGEST_NAME:
            yield f"listen: must be 1 to {LONGEST_NAME} bytes"


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001 - the name every backend has
    """Prepare for the server; it is connected to when it is needed."""
    address = config.address(context.name)

    def forget(text: str) -> None:
        context.forget(_named(text))

    async with open_bridge(context.name) as bridge:
        database = PostgresDatabase(bridge, address, config.connections, config.queue_patience, config.timeout)
        try:
            async with background() as nursery:
                if config.listen is not None:
                    nursery.start_soon(database.listen, config.listen, forget)
                yield SqlBackend(config, context, database, nursery)
        finally:
            with trio.CancelScope(shield=True):
                await database.close()


def _named(text: str) -> Identity | None:
    """Return the account that a notification names; None if it names none, and so may mean any."""
    try:
        return parse(text)
    except InvalidName:
        return None
