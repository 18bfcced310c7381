"""What every state store does alike, on SQLite and on PostgreSQL."""

from collections.abc import AsyncIterator

import pytest
import trio

from extauth.errors import BackendDown
from extauth.soon import settle
from extauth.store import Row, SharedStore, Statement, announcing, open_store, sqlite
from extauth.store.schema import MIGRATIONS

ADD = "INSERT INTO account (domain, name, disabled, stamp, created, changed) VALUES ('d', $1, 0, '', 0, $2) RETURNING name"
NAMES = "SELECT name FROM account ORDER BY name"
BROKEN: Statement = ("INSERT INTO nowhere VALUES ($1)", (1,))
LATE = 1 << 40  # beyond 2038


def add(name: str) -> Statement:
    return ADD, (name, LATE)


@pytest.fixture
async def store(state: str) -> AsyncIterator[SharedStore]:
    """Give an empty store."""
    async with open_store(state) as opened:
        yield opened


@pytest.fixture(name="attentive")
def _attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice at once what other processes write."""
    monkeypatch.setattr(sqlite, "LOOK", 0.01)


async def read(store: SharedStore, sql: str) -> list[Row]:
    return await settle(store.read(sql))


async def test_what_was_written_is_read(store: SharedStore) -> None:
    assert await store.write(add("alice"), add("bob")) == [[("alice",)], [("bob",)]]
    assert await read(store, NAMES) == [("alice",), ("bob",)]
    assert await settle(store.read("SELECT changed, stamp FROM account WHERE name = $1", "bob")) == [(LATE, "")]


async def test_bytes_and_nothing_are_kept(store: SharedStore) -> None:
    await store.write(("INSERT INTO secret (name, value) VALUES ($1, $2)", ("s", b"\0\xff")))
    key = "INSERT INTO scram_key (domain, name, hash, credential, stored_key, server_key) VALUES ('d', 'n', 'h', 'c', $1, $2)"
    await store.write((key, (b"", b"\1")))
    assert await read(store, "SELECT value FROM secret") == [(b"\0\xff",)]
    assert await read(store, "SELECT stored_key, expires FROM scram_key") == [(b"", None)]


async def test_one_statement_is_a_unit_of_work_and_so_is_none(store: SharedStore) -> None:
    assert await store.write() == []
    assert await store.write(add("alice")) == [[("alice",)]]
    assert await store.write(("DELETE FROM account", ())) == [[]]
    assert await read(store, NAMES) == []


async def test_a_failing_statement_undoes_its_unit(store: SharedStore) -> None:
    with pytest.raises(BackendDown, match="nowhere"):
        await store.write(add("alice"), BROKEN, add("bob"))
    with pytest.raises(BackendDown):
        await store.write(add("carol"), add("carol"))
    assert await read(store, NAMES) == []
    await store.write(add("dave"))
    assert await read(store, NAMES) == [("dave",)]


@pytest.mark.parametrize("value", [1 << 70, "\ud800"], ids=["number", "text"])
async def test_a_value_that_no_database_takes_harms_nobody_else(store: SharedStore, value: int | str) -> None:
    unfit = ADD, ("x", value) if isinstance(value, int) else (value, 0)
    with pytest.raises((OverflowError, UnicodeEncodeError, BackendDown)):
        await store.write(add("alice"), unfit)
    await store.write(add("bob"))
    assert await read(store, NAMES) == [("bob",)]


async def test_a_read_that_fails_is_an_outage(store: SharedStore) -> None:
    with pytest.raises(BackendDown, match="nowhere"):
        await read(store, "SELECT 1 FROM nowhere")


async def test_an_outage_tells_no_values(store: SharedStore) -> None:
    for statements in ([add("canary"), add("canary")], [(ADD, ("canary", "canary"))], [(ADD, ("canary\0", LATE))] * 2):
        with pytest.raises(BackendDown) as caught:
            await store.write(*statements, ("SELECT canary_column FROM account", ()))
        assert "canary" not in str(caught.value).replace("canary_column", "")
        assert caught.value.__suppress_context__ or "canary" not in repr(caught.value.__cause__)


async def test_many_who_write_at_once_all_do(store: SharedStore) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(store.write, add(f"{number:03}"), ("UPDATE account SET disabled = 1 WHERE name = $1", ("000",)))
    assert await read(store, NAMES) == [(f"{number:03}",) for number in range(100)]


async def test_of_many_who_would_be_the_only_one_one_is(store: SharedStore) -> None:
    won: list[Row] = []

    async def spend() -> None:
        [rows] = await store.write((f"{ADD.replace('RETURNING', 'ON CONFLICT DO NOTHING RETURNING')}", ("token", 0)))
        won.extend(rows)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(spend)
    assert won == [("token",)]


async def test_what_was_written_is_there_when_opened_again(state: str) -> None:
    async with open_store(state) as store:
        await store.write(add("alice"))
    async with open_store(state) as store:
        assert await read(store, NAMES) == [("alice",)]


async def test_several_who_open_an_empty_store_at_once_all_can(state: str) -> None:
    together = trio.Event()
    opened = 0

    async def open_() -> None:
        nonlocal opened
        await together.wait()
        async with open_store(state) as store:
            assert await read(store, NAMES) == []
            opened += 1

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(open_)
        together.set()
    assert opened == 4


def test_every_migration_fits_both_databases() -> None:
    for statement in (statement for migration in MIGRATIONS for statement in migration):
        assert "::" not in statement
        assert "AUTOINCREMENT" not in statement


# Announcements ----------------------------------------------------------------------------------------------------------------


class Heard:
    """What a subscriber has heard."""

    def __init__(self, store: SharedStore) -> None:
        self.texts: list[str | None] = []
        store.subscribe(self.texts.append)

    async def until(self, text: str | None) -> None:
        with trio.fail_after(10):
            while text not in self.texts:
                await trio.sleep(0.001)


async def test_what_is_announced_is_heard_with_the_unit_of_work(store: SharedStore) -> None:
    heard = Heard(store)
    with pytest.raises(BackendDown):
        await store.write(announcing("undone"), BROKEN)
    await store.write(add("alice"), announcing("alice@example.com"))
    await heard.until("alice@example.com")
    await store.write(announcing("gr\u00fcn \u2603"))
    await heard.until("gr\u00fcn \u2603")
    assert [text for text in heard.texts if text is not None] == ["alice@example.com", "gr\u00fcn \u2603"]


@pytest.mark.usefixtures("attentive")
async def test_what_another_process_writes_is_noticed(state: str) -> None:
    async with open_store(state) as ours, open_store(state) as theirs:
        heard = Heard(ours)
        await ours.write()
        await theirs.write(add("alice"), announcing("alice"))
        await heard.until("alice" if state.startswith("postgresql") else None)


@pytest.mark.usefixtures("attentive")
async def test_an_announcement_alone_is_noticed_by_others(state: str) -> None:
    async with open_store(state) as ours, open_store(state) as theirs:
        heard = Heard(ours)
        for _ in range(3):  # also after announcements of one's own
            heard.texts.clear()
            await ours.write(announcing("mine"))
            await theirs.write(announcing("alice"))
            await heard.until("alice" if state.startswith("postgresql") else None)


@pytest.mark.usefixtures("attentive")
async def test_ones_own_writes_are_nothing_to_notice(state: str) -> None:
    async with open_store(state) as store:
        heard = Heard(store)
        await store.write(announcing("begin"))
        await heard.until("begin")
        heard.texts.clear()
        await store.write(add("alice"))
        await store.write(announcing("end"))
        await heard.until("end")
        assert heard.texts == ["end"]
