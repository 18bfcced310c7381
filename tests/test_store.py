"""The state store on SQLite: group commit, and a file that only its owner reads. What all stores do alike: test_stores.py."""

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from extauth.errors import BackendDown, ConfigError
from extauth.store import Statement, Store, open_store, sqlite
from extauth.store.schema import VERSION
from extauth.store.sqlite import BATCH, SqliteStore

ADD = "INSERT INTO account (domain, name, disabled, stamp, created, changed) VALUES ('d', $1, 0, '', 0, 0)"
COUNT = "SELECT count(*) FROM account"
NAMES = "SELECT name FROM account ORDER BY name"
BROKEN: Statement = ("INSERT INTO nowhere VALUES ($1)", (1,))
ROOT = Path(__file__).parents[1]


def add(name: str) -> Statement:
    return ADD, (name,)


async def fails(store: Store, *statements: Statement) -> None:
    with pytest.raises(BackendDown):
        await store.write(*statements)


async def until(holds: Callable[[], object]) -> None:
    with trio.fail_after(10):
        while not holds():
            await trio.sleep(0.001)


@pytest.fixture
def path(tmp: Path) -> Path:
    return tmp / "state" / "state.db"


class Transactions:
    """Counts the transactions of the store's writer, and holds them while `open` is not set."""

    def __init__(self) -> None:
        self.begun = 0
        self.committed = 0
        self.open = threading.Event()
        self.open.set()

    def run(self, sql: str) -> None:
        """Take note of a statement before it is run."""
        if sql == "BEGIN IMMEDIATE":
            self.begun += 1
            self.open.wait(10)
        self.committed += sql == "COMMIT"


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> Transactions:
    noted = Transactions()

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any, **keys: Any) -> sqlite3.Cursor:  # noqa: ANN401 - sqlite3's own
            noted.run(sql)
            return super().execute(sql, *parameters, **keys)

    genuine = sqlite3.connect

    def connect(*arguments: Any, **keys: Any) -> sqlite3.Connection:  # noqa: ANN401
        return genuine(*arguments, **keys, factory=Connection)

    monkeypatch.setattr(sqlite3, "connect", connect)
    return noted


@pytest.fixture
async def store(path: Path, transactions: Transactions) -> AsyncIterator[SqliteStore]:
    """Give an empty store whose transactions are counted from now on."""
    async with SqliteStore.open(str(path)) as opened:
        transactions.begun = transactions.committed = 0
        yield opened


# Units of work ----------------------------------------------------------------------------------------------------------------


async def test_each_statement_returns_its_rows(store: SqliteStore) -> None:
    rows = await store.write(
        (f"{ADD} RETURNING name, domain", ("alice",)), add("bob"), ("DELETE FROM account RETURNING name", ())
    )
    assert rows == [[("alice", "d")], [], [("alice",), ("bob",)]]


async def test_nothing_to_do_is_done_in_a_transaction_of_its_own(store: SqliteStore, transactions: Transactions) -> None:
    assert await store.write() == []
    assert transactions.committed == 1


async def test_a_failing_unit_leaves_the_others_of_its_transaction_alone(
    store: SqliteStore, transactions: Transactions
) -> None:
    transactions.open.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write, add("first"))
        await until(lambda: transactions.begun)
        nursery.start_soon(store.write, add("alice"))
        nursery.start_soon(fails, store, add("bob"), add("bob"))
        nursery.start_soon(store.write, add("carol"))
        await trio.testing.wait_all_tasks_blocked()
        transactions.open.set()
    assert transactions.committed == 2
    assert store.read(NAMES) == [("alice",), ("carol",), ("first",)]


async def test_a_cancelled_caller_takes_nothing_back(store: SqliteStore, transactions: Transactions) -> None:
    transactions.open.clear()
    with trio.move_on_after(0.01) as scope:
        await store.write(add("alice"))
    transactions.open.set()
    assert scope.cancelled_caught
    await store.write()
    assert store.read(NAMES) == [("alice",)]


# Group commit -----------------------------------------------------------------------------------------------------------------


async def test_writes_that_wait_share_a_transaction(store: SqliteStore, transactions: Transactions) -> None:
    transactions.open.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write, add("first"))
        await until(lambda: transactions.begun)
        for number in range(2 * BATCH):
            nursery.start_soon(store.write, add(str(number)))
        await trio.testing.wait_all_tasks_blocked()
        transactions.open.set()
    assert transactions.committed == 3
    assert store.read(COUNT) == [(1 + 2 * BATCH,)]


async def test_a_look_up_does_not_wait_for_a_transaction(store: SqliteStore, transactions: Transactions) -> None:
    await store.write(add("alice"))
    transactions.open.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write, add("bob"))
        await until(lambda: transactions.begun == 2)
        assert store.read(NAMES) == [("alice",)]
        transactions.open.set()
    assert store.read(NAMES) == [("alice",), ("bob",)]


async def test_what_waits_when_the_store_closes_is_still_written(path: Path, transactions: Transactions) -> None:
    async with trio.open_nursery() as nursery, SqliteStore.open(str(path)) as store:
        transactions.open.clear()
        for number in range(BATCH + 10):
            nursery.start_soon(store.write, add(str(number)))
        await trio.testing.wait_all_tasks_blocked()
        transactions.open.set()
    async with SqliteStore.open(str(path)) as store:
        assert store.read(COUNT) == [(BATCH + 10,)]


# Other processes --------------------------------------------------------------------------------------------------------------

WRITER = """
    import sys, trio
    from extauth.store.sqlite import SqliteStore
    from tests.test_store import add
    async def main():
        async with SqliteStore.open(sys.argv[1]) as store:
            for number in range(100):
                await store.write(add(f"theirs{number}"))
    trio.run(main)
"""


async def test_two_processes_write_at_a_time(store: SqliteStore, path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]
    with subprocess.Popen(  # noqa: ASYNC220 - it starts at once
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": "backends"}
    ) as process:
        for number in range(100):
            await store.write(add(f"ours{number}"))
        with trio.fail_after(30):
            assert await trio.to_thread.run_sync(process.wait) == 0
    assert store.read(COUNT) == [(200,)]


@pytest.fixture(name="impatient")
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait hardly at all for the write lock."""
    monkeypatch.setattr(sqlite, "BUSY", 0.01)


@pytest.mark.usefixtures("impatient")
async def test_a_lock_held_too_long_is_an_outage_that_ends_with_it(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        other.execute("INSERT INTO account VALUES ('d', 'theirs', 0, '', 0, 0)")
        with pytest.raises(BackendDown, match="database is locked"):
            await store.write(add("ours"))
        assert store.read(NAMES) == []
        other.execute("COMMIT")
    assert store.read(NAMES) == [("theirs",)]
    await store.write(add("ours"))
    assert store.read(NAMES) == [("ours",), ("theirs",)]


# What is remembered -----------------------------------------------------------------------------------------------------------


async def test_a_look_up_is_remembered_until_somebody_commits(store: SqliteStore, path: Path) -> None:
    def remembered() -> bool:
        return store.read(NAMES) is store.read(NAMES)

    assert remembered()
    await store.write(add("ours"))
    assert store.read(NAMES) == [("ours",)]
    assert remembered()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        for name in ("theirs", "theirs too"):
            other.execute("INSERT INTO account VALUES ('d', ?, 0, '', 0, 0)", (name,))
            assert store.read(NAMES)[-1] == (name,)
            assert remembered()
    assert store.read("SELECT name FROM account WHERE name = $1", "ours") == [("ours",)]
    assert store.read("SELECT name FROM account WHERE name = $1", "theirs") == [("theirs",)]


async def test_only_so_much_is_remembered(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "FEW", 1)
    monkeypatch.setattr(sqlite, "REMEMBERED", 2)
    await store.write(add("alice"), add("bob"))
    assert store.read(NAMES) is not store.read(NAMES)
    first = store.read(COUNT)
    for number in range(4):
        store.read("SELECT $1", number)
    assert store.read(COUNT) is not first


async def test_nothing_is_remembered_where_nobody_tells_of_commits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def header(_path: str, _reader: sqlite3.Connection) -> nullcontext[None]:
        return nullcontext()

    monkeypatch.setattr(sqlite, "wal_header", header)
    async with SqliteStore.open(str(path)) as store:
        assert store.read(NAMES) is not store.read(NAMES)
        await store.write(add("alice"))
        assert store.read(NAMES) == [("alice",)]


# Outages ----------------------------------------------------------------------------------------------------------------------


async def test_the_reader_cannot_write(store: SqliteStore) -> None:
    with pytest.raises(BackendDown, match="readonly"):
        store.read(ADD, "alice")


# The file ---------------------------------------------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_only_the_owner_can_read_the_file(path: Path) -> None:
    before = os.umask(0)
    try:
        async with SqliteStore.open(str(path)) as store:
            await store.write(add("alice"))
            files = sorted(file.name for file in path.parent.iterdir())
            assert files == ["state.db", "state.db-shm", "state.db-wal"]
            assert {mode(file) for file in path.parent.iterdir()} == {0o600}
            assert mode(path.parent) == 0o700
    finally:
        os.umask(before)


async def test_what_was_written_is_there_when_opened_again(path: Path) -> None:
    async with SqliteStore.open(str(path)) as store:
        await store.write(add("alice"))
    async with SqliteStore.open(str(path)) as store:
        assert store.read(NAMES) == [("alice",)]
        assert store.read("PRAGMA user_version") == [(VERSION,)]
        assert store.read("PRAGMA journal_mode") == [("wal",)]


async def test_every_commit_waits_for_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[sqlite3.Connection] = []
    open_writer = sqlite._open_writer  # pyright: ignore[reportPrivateUsage]

    def noting(name: str) -> sqlite3.Connection:
        opened.append(open_writer(name))
        assert opened[0].execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        return opened[0]

    monkeypatch.setattr(sqlite, "_open_writer", noting)
    async with SqliteStore.open(str(path)):
        assert opened


def refusal(path: Path) -> str:
    async def open_() -> None:
        async with SqliteStore.open(str(path)):
            raise AssertionError("it was opened")

    with pytest.raises(ConfigError) as caught:
        trio.run(open_)
    (problem,) = caught.value.problems
    assert problem.startswith("daemon.state: ")
    return problem


@pytest.fixture
def folder(path: Path) -> Path:
    """Give the empty folder that the file is to be in."""
    path.parent.mkdir(mode=0o700)
    return path.parent


@pytest.mark.usefixtures("folder")
def test_a_file_that_others_can_read_is_refused(path: Path) -> None:
    path.touch()
    path.chmod(0o640)
    assert refusal(path) == f"daemon.state: {path}: others may read it (mode 0640); chmod 600 it"


def test_a_folder_that_others_can_write_to_is_refused(path: Path, folder: Path) -> None:
    folder.chmod(0o720)
    assert refusal(path) == f"daemon.state: {folder}: others may write to this folder; chmod 700 it"


def test_a_symbolic_link_is_refused(path: Path, folder: Path) -> None:
    (folder / "elsewhere").touch(mode=0o600)
    path.symlink_to("elsewhere")
    assert "symbolic links" in refusal(path)


@pytest.mark.usefixtures("folder")
def test_a_folder_in_the_files_place_is_refused(path: Path) -> None:
    path.mkdir()
    assert "Is a directory" in refusal(path)


@pytest.mark.usefixtures("folder")
def test_a_pipe_is_refused(path: Path) -> None:
    os.mkfifo(path, 0o600)
    assert "not a regular file" in refusal(path)


def test_a_file_in_the_folders_place_is_refused(path: Path) -> None:
    path.parent.touch()
    assert "exists" in refusal(path)


@pytest.mark.usefixtures("folder")
def test_what_is_no_database_is_refused(path: Path) -> None:
    path.write_text("these are no accounts" * 100)
    path.chmod(0o600)
    assert "not a database" in refusal(path)


@pytest.mark.usefixtures("folder")
def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    path.touch(mode=0o600)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={VERSION + 1}")
    told = f"was written by a newer extauth (schema {VERSION + 1}, this program knows {VERSION})"
    assert told in refusal(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


# The address ------------------------------------------------------------------------------------------------------------------


async def test_an_address_names_the_file(path: Path) -> None:
    spaced = path.with_name("my state.db")
    async with open_store(f"sqlite://{path.parent}/my%20state.db"):
        assert spaced.exists()


@pytest.mark.parametrize("url", ["", "sqlite", "sqlite:", "sqlite:relative.db", "sqlite://host/state.db", "mysql:///state.db"])
def test_another_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="must be of the form sqlite:///absolute/path or postgresql://"):
        open_store(url)
