"""The mark of a store on SQLite: equal marks, equal rows, whoever writes and however."""

import os
import random
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from extauth.store.sqlite import SqliteStore
from extauth.store.walindex import wal_header
from tests.test_store import NAMES, add

ROWS = "SELECT name, value FROM secret ORDER BY name"
PUT = "INSERT INTO secret (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"


@pytest.fixture
def path(tmp: Path) -> Path:
    return tmp / "state" / "state.db"


@contextmanager
def connected(path: Path) -> Generator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def put(connection: sqlite3.Connection, rows: int, size: int) -> None:
    connection.executemany(PUT, [(str(random.randrange(50)), random.randbytes(size)) for _ in range(rows)])


def transaction(connection: sqlite3.Connection, end: str, rows: int = 3, size: int = 10) -> None:
    connection.execute("BEGIN")
    put(connection, rows, size)
    connection.execute(end)


DEEDS: Mapping[str, Callable[[sqlite3.Connection], object]] = {
    "a statement": lambda connection: put(connection, 1, 10),
    "a commit": lambda connection: transaction(connection, "COMMIT"),
    "a large commit": lambda connection: transaction(connection, "COMMIT", 30, 10_000),  # more than its cache holds
    "a large rollback": lambda connection: transaction(connection, "ROLLBACK", 30, 10_000),
    "a rollback": lambda connection: transaction(connection, "ROLLBACK"),
    "passive": lambda connection: connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall(),
    "restart": lambda connection: connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall(),
    "truncate": lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(),
    "vacuum": lambda connection: connection.execute("VACUUM"),
    "schema": lambda connection: connection.execute(f"CREATE TABLE t{random.getrandbits(60)} (x)"),
}


async def test_whatever_another_connection_does_equal_marks_mean_equal_rows(path: Path) -> None:
    random.seed(7)
    seen: dict[bytes, object] = {}
    async with SqliteStore.open(str(path)) as store:
        with connected(path) as other, connected(path) as observer:
            other.execute("PRAGMA cache_size = 4")
            other.execute("PRAGMA synchronous = OFF")
            for deed in random.choices(list(DEEDS.values()), k=200):
                before, version = store.mark(), observer.execute("PRAGMA data_version").fetchone()
                rows = store.read(ROWS)
                assert before is not None
                assert seen.setdefault(before, rows) == rows
                assert store.mark() == before
                deed(other)
                if observer.execute("PRAGMA data_version").fetchone() != version:
                    assert store.mark() not in seen
    assert len(seen) > 50


async def test_what_has_not_been_committed_changes_no_mark(path: Path) -> None:
    async with SqliteStore.open(str(path)) as store:
        with connected(path) as other:
            before = store.mark()
            other.execute("BEGIN IMMEDIATE")
            put(other, 100, 10_000)
            assert store.mark() == before
            other.execute("COMMIT")
            assert store.mark() != before


async def test_ones_own_writes_change_it(path: Path) -> None:
    async with SqliteStore.open(str(path)) as store:
        before = store.mark()
        await store.write(add("alice"))
        assert store.mark() != before


# Another process writes as fast as it can, in a log that begins again every few pages, and tells what it has committed.
WRITER = """
    import sqlite3, sys
    connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
    connection.execute("PRAGMA wal_autocheckpoint = 7")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("INSERT INTO secret VALUES ('n', 0) ON CONFLICT DO NOTHING")
    number = int(sys.argv[2])
    while True:
        number += 1
        connection.execute("UPDATE secret SET value = ? WHERE name = 'n'", (number,))
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
"""


def number(store: SqliteStore) -> int:
    rows = store.read("SELECT value FROM secret WHERE name = 'n'")
    return int(str(rows[0][0])) if rows else 0


async def test_what_another_process_has_told_of_is_never_missed_though_it_is_killed(path: Path) -> None:
    async with SqliteStore.open(str(path)) as store:
        copies = 0
        for life in range(5):
            mark, copy = store.mark(), number(store)
            command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(copy)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: ASYNC220 - it starts at once
                assert process.stdout is not None
                for _ in range(400 + life):
                    told = int(process.stdout.readline())
                    now = store.mark()
                    if now != mark:
                        mark, copy = now, number(store)
                        copies += 1
                    assert copy >= told
                process.kill()
            if store.mark() == mark:
                assert number(store) == copy
        assert copies > 100


async def test_it_is_told_by_a_file_that_was_opened_before(path: Path) -> None:
    """The first to open the file makes its index anew."""
    async with SqliteStore.open(str(path)) as ours, SqliteStore.open(str(path)) as theirs:
        assert ours.mark() == theirs.mark()
        await theirs.write(add("alice"))
        mark = ours.mark()
        assert mark == theirs.mark()
        await ours.write(add("bob"))
        assert ours.mark() == theirs.mark() != mark
        assert theirs.read(NAMES) == [("alice",), ("bob",)]


def locks(path: Path) -> int:
    """Count the locks that this process holds on a file (proc(5))."""
    status = path.stat()
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return sum(str(os.getpid()) in words and place in words for words in lines)


async def test_sqlite_keeps_its_locks_when_one_of_several_stores_is_closed(path: Path) -> None:
    index = path.with_name(f"{path.name}-shm")
    async with SqliteStore.open(str(path)) as store:
        held = locks(index)
        assert held
        async with SqliteStore.open(str(path)):
            assert locks(index) >= held
        assert locks(index) == held
        assert store.mark() is not None
    assert not index.exists()


def test_without_a_write_ahead_log_there_is_no_mark(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with connected(path) as connection:
        connection.execute("CREATE TABLE t (x)")
        path.with_name(f"{path.name}-shm").write_bytes(bytes(100))  # left behind
        with wal_header(str(path), connection) as header:
            assert header is None


async def test_a_form_that_is_not_known_is_no_mark(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extauth.store.walindex._VERSION", b"\1\2\3\4")
    async with SqliteStore.open(str(path)) as store:
        assert store.mark() is None
        await store.write(add("alice"))
        assert store.read(NAMES) == [("alice",)]
