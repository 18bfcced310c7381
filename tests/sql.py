"""The databases that the backends of SQL are tested on, behind one face."""

import os
import sqlite3
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from extauth import plugins
from extauth.backend import Backend, Context
from extauth.model import Identity
from extauth.sql.config import SqlConfig
from extauth.store import Store
from extauth.threads import Threads
from tests import needs
from tests.servers import mariadb, postgres
from tests.servers.mariadb import MariaDb
from tests.servers.postgres import Postgres
from tests.servers.process import Server

Kind = Literal["sqlite", "postgres", "mysql"]

SERVERS = (
    pytest.param("postgres", marks=needs.debian("postgresql")),
    pytest.param("mysql", marks=needs.debian("mariadb")),
)
KINDS = ("sqlite", *SERVERS)
# Of a server: all that is needed to log in to it; both servers have the same user.
assert (mariadb.USER, mariadb.PASSWORD) == (postgres.USER, postgres.PASSWORD)

# Names that would do something if they were ever a part of a statement. All are names that XMPP allows or forbids alike.
HOSTILE = [
    *("' OR '1'='1", "' OR 1=1 -- ", "alice' -- ", "alice'#", "alice'/*", "\\' OR 1=1 -- ", "\\", "alice\\"),
    *('" OR "1"="1', "') OR ('1'='1", "'; DROP TABLE people; --", "'; UPDATE people SET allowed = 0; --"),
    *("' UNION SELECT login, secret, 1, role FROM people -- ", "$$; DROP TABLE people; $$"),
    *("$user", "$1", "$domain", ":user", "?", "%s", "%(user)s", "%", "%%", "_", "{}", "{user}", "${jid}"),
    *("\u02bc OR 1=1", "\uff07 OR 1=1 -- ", "\u2019 OR 1=1 -- ", "\u00bf' OR 1=1 -- ", "\ubf27 OR 1=1 -- "),
    *("a\u0301", "\U0001f600'", "0", "1", "NULL", "0x616c696365", "X'616c696365'", "/*!50000 alice */"),
    *("`alice`", "[alice]", "alice;", "alice\n", "\r\nalice", "E'alice'", "\x1a' OR 1=1 -- ", "a" * 5000),
    *("' AND SLEEP(5) -- ", "' AND pg_sleep(5) IS NULL -- "),
]


class Database:
    """A database; on a server it may have tables of other tests."""

    def __init__(self, kind: Kind, folder: Path, server: MariaDb | Postgres | None) -> None:
        self.kind = kind
        self.server = server
        self.changed: list[Identity | None] = []
        self.file = folder / "site.db"
        folder.mkdir(exist_ok=True)
        self.secret = folder / "secret"
        self.secret.write_text(postgres.PASSWORD)
        self.secret.chmod(0o600)
        if server is None:
            sqlite3.connect(self.file).close()

    def run(self, *statements: str) -> None:
        """Run statements with all rights."""
        if isinstance(self.server, Postgres):
            self.server.run("SET client_min_messages = error", *statements, user=postgres.USER)
        elif isinstance(self.server, MariaDb):
            self.server.run(*statements)
        else:
            connection = sqlite3.connect(self.file)
            connection.executescript(";\n".join(statements))
            connection.close()

    def table(self, name: str, columns: str, *rows: Mapping[str, str | int | None], options: str = "") -> None:
        """Make a table anew, with rows."""
        create = f"CREATE TABLE {name} ({columns}) {options}"
        self.run(f"DROP TABLE IF EXISTS {name}", create, *(self._insert(name, row) for row in rows))

    def insert(self, table: str, **values: str | int | None) -> None:
        """Insert a row."""
        self.run(self._insert(table, values))

    def _insert(self, table: str, values: Mapping[str, str | int | None]) -> str:
        literals = ["NULL" if v is None else self.text(v) if isinstance(v, str) else str(v) for v in values.values()]
        names = [f"`{name}`" if self.kind == "mysql" else f'"{name}"' for name in values]
        return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(literals)})"  # noqa: S608

    def lines(self, query: str) -> list[str]:
        """Return the rows of a query, each as a line."""
        if self.server is not None:
            return self.server.run(query).splitlines()
        connection = sqlite3.connect(self.file)
        found = ["|".join(map(str, row)) for row in connection.execute(query)]
        connection.close()
        return found

    def pause(self, number: int) -> None:
        """Send SIGSTOP or SIGCONT to the server and its workers."""
        assert self.server is not None
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text().split()
        for pid in (self.server.pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def text(self, value: str) -> str:
        """Return a text as a literal, whatever is in it."""
        digits = value.encode().hex()
        return {
            "sqlite": f"CAST(X'{digits}' AS TEXT)",
            "postgres": f"convert_from('\\x{digits}', 'UTF8')",
            "mysql": f"_utf8mb4 X'{digits}'",
        }[self.kind]

    def keys(self, **keys: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return the keys of a backend's table; what else the machine does is not to be an outage."""
        if self.server is None:
            return {"path": str(self.file), **keys}
        keys = {"timeout": 20.0, "queue_patience": 20.0, **keys}
        usual = {"host": "127.0.0.1", "port": self.server.port, "database": "site", "user": postgres.USER}
        return {**usual, "password_file": str(self.secret), **keys}

    def config(self, **keys: Any) -> SqlConfig:  # noqa: ANN401
        """Return a configuration."""
        return cast("SqlConfig", plugins.backend(self.kind).Config(**self.keys(**keys)))

    def toml(self, **keys: Any) -> str:  # noqa: ANN401
        """Return the lines of a backend's table."""
        lines = {"type": self.kind, **self.keys(**keys)}
        return "".join(f"{key} = {_toml(value)}\n" for key, value in lines.items())

    @asynccontextmanager
    async def open(self, **keys: Any) -> AsyncGenerator[Backend, None]:  # noqa: ANN401
        """Open a backend; what it is told to have changed is added to `changed`."""
        with Threads("password", 2, 30) as hashing:
            context = Context("people", cast("Store", None), hashing, lambda: 0.0, self.changed.append)
            opened: AbstractAsyncContextManager[Backend] = plugins.backend(self.kind).open(self.config(**keys), context)
            async with opened as backend:
                yield backend


def _toml(value: object) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, cast("tuple[object, ...]", value))) + "]"
    return str(value).lower()


def make_database(kind: Kind, folder: Path, request: pytest.FixtureRequest) -> Database:
    """Return a database of a kind; the servers are those that all tests share."""
    names: Mapping[str, str] = {"postgres": "postgres", "mysql": "mariadb"}
    server = cast("Server | None", request.getfixturevalue(names[kind]) if kind in names else None)
    assert server is None or isinstance(server, MariaDb | Postgres)
    return Database(kind, folder, server)
