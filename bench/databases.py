"""PostgreSQL and MariaDB with the accounts that loadgen asks for, and the contenders that ask them by their drivers alone.

`python -m bench.databases postgres|mysql PORT SECONDS` looks up accounts by CALLERS at once, over as many connections as
extauth has, and prints look-ups a second and the processor time of one in seconds.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from textwrap import dedent

import asyncpg
import pymysql
import uvloop

from bench.plain_backend import passwords
from tests.servers.mariadb import MariaDb
from tests.servers.postgres import PASSWORD, USER, Postgres

CALLERS, CONNECTIONS = 32, 8
USERS = list(passwords(1000))
DOMAINS = {"postgres": "postgres.example.org", "mysql": "mysql.example.org"}
DRIVERS = {"postgres": "asyncpg on uvloop", "mysql": "PyMySQL in threads"}
TABLE = "CREATE TABLE people (login VARCHAR(100) PRIMARY KEY, secret VARCHAR(100))"
SELECT = "SELECT login AS name, secret AS password FROM people WHERE login = "


@contextmanager
def running(folder: Path) -> Generator[dict[str, Postgres | MariaDb]]:
    """Run both."""
    rows = ", ".join(f"('{user}', '{{PLAIN}}{password}')" for user, password in passwords(1000).items())
    with ExitStack() as stack:
        servers: dict[str, Postgres | MariaDb] = {}
        for kind in DOMAINS:
            (folder / kind).mkdir()
        servers["postgres"] = stack.enter_context(Postgres(folder / "postgres"))
        servers["mysql"] = stack.enter_context(MariaDb(folder / "mysql"))
        for server in servers.values():
            server.run(TABLE, f"INSERT INTO people VALUES {rows}")  # noqa: S608
        servers["postgres"].run(f"GRANT ALL ON people TO {USER}")
        yield servers


def configuration(folder: Path, servers: dict[str, Postgres | MariaDb]) -> str:
    """Return the tables of the backends and their domains."""
    secret = folder / "secret"
    secret.write_text(PASSWORD)
    secret.chmod(0o600)
    return "".join(
        dedent(f"""
        [backend.{kind}]
        host = "127.0.0.1"
        port = {server.port}
        database = "site"
        user = "{USER}"
        password_file = "{secret}"
        connections = {CONNECTIONS}
        query = "{SELECT}$user"
        weak = ["plain"]
        [domain."{DOMAINS[kind]}"]
        backends = ["{kind}"]
        """)
        for kind, server in servers.items()
    )


class _Clock:
    """Counts from when the connections are there."""

    def __init__(self, seconds: float) -> None:
        self._begun, self._used = time.perf_counter(), time.process_time()
        self._until = self._begun + seconds

    def runs(self) -> bool:
        return time.perf_counter() < self._until

    def show(self, done: int) -> None:
        print(done / (time.perf_counter() - self._begun), (time.process_time() - self._used) / done)


async def _asyncpg(port: int, seconds: float) -> None:
    pool = await asyncpg.create_pool(
        host="127.0.0.1", port=port, user=USER, password=PASSWORD, database="site", min_size=CONNECTIONS, max_size=CONNECTIONS
    )
    clock = _Clock(seconds)

    async def work(number: int) -> int:
        done = 0
        while clock.runs():
            assert await pool.fetch(f"{SELECT}$1", USERS[(number + done) % len(USERS)])
            done += 1
        return done

    clock.show(sum(await asyncio.gather(*map(work, range(CALLERS)))))
    await pool.close()


def _pymysql(port: int, seconds: float) -> None:
    connections = [
        pymysql.connect(host="127.0.0.1", port=port, user=USER, password=PASSWORD, database="site", autocommit=True)
        for _ in range(CONNECTIONS)
    ]
    clock = _Clock(seconds)
    counts: list[int] = []

    def work(connection: "pymysql.Connection[pymysql.cursors.Cursor]") -> None:
        done = 0
        with connection, connection.cursor() as cursor:
            while clock.runs():
                assert cursor.execute(f"{SELECT}%s", (USERS[done % len(USERS)],))
                done += 1
        counts.append(done)

    threads = [threading.Thread(target=work, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.show(sum(counts))


def _main() -> None:
    kind, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    if kind == "postgres":
        uvloop.run(_asyncpg(port, seconds))
    else:
        _pymysql(port, seconds)


if __name__ == "__main__":
    _main()
