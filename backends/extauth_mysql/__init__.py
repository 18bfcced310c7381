"""Backend `mysql`: accounts in the tables of MariaDB or MySQL, by PyMySQL in threads."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import ClassVar

from extauth.backend import Backend, Context
from extauth.sql.backend import open_in_threads
from extauth.sql.server import ServerConfig
from extauth.sql.statement import MYSQL, Dialect
from extauth_mysql.wire import Connection

__all__ = ["Config", "open"]


@dataclass(frozen=True, kw_only=True)
class Config(ServerConfig):
    """[backend.NAME] of `type = "mysql"`."""

    dialect: ClassVar[Dialect] = MYSQL
    standard_port: ClassVar[int] = 3306


def open(config: Config, context: Context) -> AbstractAsyncContextManager[Backend]:  # noqa: A001 - the name every backend has
    """Prepare for the server; it is connected to when it is needed."""
    address = config.address(context.name)
    return open_in_threads("MySQL", config, context, lambda deadline, changes: Connection(address, deadline, changes=changes))
