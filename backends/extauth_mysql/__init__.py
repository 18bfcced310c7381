"""Backend `mysql`: accounts in the tables of MariaDB or MySQL, by PyMySQL in threads."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar

import trio

from extauth.backend import Backend, Context
from extauth.sql.backend import SqlBackend
from extauth.sql.database import ThreadedDatabase
from extauth.sql.server import ServerConfig
from extauth.sql.statement import MYSQL, Dialect
from extauth.threads import Threads
from extauth_mysql.wire import Connection

__all__ = ["Config", "open"]


@dataclass(frozen=True, kw_only=True)
class Config(ServerConfig):
    """[backend.NAME] of `type = "mysql"`."""

    dialect: ClassVar[Dialect] = MYSQL
    standard_port: ClassVar[int] = 3306


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001 - the name every backend has
    """Prepare for the server; it is connected to when it is needed."""
    address = config.address(context.name)
    with Threads("MySQL", config.connections, config.queue_patience) as threads:
        database = ThreadedDatabase(threads, lambda deadline, changes: Connection(address, deadline, changes=changes))
        try:
            async with trio.open_nursery() as nursery:
                yield SqlBackend(config, context, database, nursery)
                nursery.cancel_scope.cancel()
        finally:
            database.close()
