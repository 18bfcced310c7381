"""The state store on a PostgreSQL that fails in every way it can."""

import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from extauth.errors import BackendDown, ConfigError
from extauth.keyring import Keyring
from extauth.model import Identity, Secret
from extauth.passwords import scram
from extauth.soon import settle
from extauth.store import Row, SharedStore, Statement, announcing, connections, open_store, postgres
from extauth.store.schema import MIGRATIONS, VERSION
from extauth.threads import Threads
from tests import needs
from tests.certificates import Certificates, make_certificates
from tests.servers.postgres import ADMIN, PASSWORD, USER, Postgres
from tests.servers.process import temporary_folder
from tests.test_stores import NAMES, Heard, add

pytestmark = needs.debian("postgresql")

SLEEP: Statement = ("SELECT pg_sleep(1)", ())
ASLEEP = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
END = f"SELECT pg_terminate_backend(pid) FROM ({ASLEEP}) AS asleep"  # noqa: S608
SLOW_COMMIT = (
    "CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(10); RETURN NULL; END $$",
    "CREATE CONSTRAINT TRIGGER doze AFTER INSERT ON account DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION doze()",
)


@pytest.fixture
def server(postgres: Postgres) -> Postgres:
    """Give a server with an empty database."""
    postgres.empty()
    return postgres


@pytest.fixture
async def store(server: Postgres) -> AsyncIterator[SharedStore]:
    """Give an empty store."""
    async with open_store(server.url) as opened:
        yield opened


@pytest.fixture(scope="module")
def _own(certificates: Certificates) -> Iterator[Postgres]:  # pyright: ignore[reportUnusedFunction]
    with temporary_folder() as folder, Postgres(folder, certificates) as server:
        yield server


@pytest.fixture
def own(_own: Postgres) -> Iterator[Postgres]:
    """Give a server that may be stopped and started."""
    _own.empty()
    yield _own
    if not _own.running:
        _own.start()


@pytest.fixture(name="impatient")
def _impatient(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait hardly at all for a server that is away."""
    monkeypatch.setattr(connections, "PATIENCE", 0.5)
    monkeypatch.setattr(postgres, "TIMEOUT", 0.4)
    monkeypatch.setattr(postgres, "START", 0.1)


@pytest.fixture(autouse=True, name="patient")
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait as long as a loaded machine needs."""
    monkeypatch.setattr(connections, "PATIENCE", 15)


async def names(store: SharedStore) -> list[Row]:
    return await settle(store.read(NAMES))


async def until(holds: Callable[[], Awaitable[object]]) -> None:
    with trio.fail_after(20):
        while not await holds():
            await trio.sleep(0.01)


async def until_asleep(store: SharedStore) -> None:
    async def asleep() -> list[Row]:
        return await settle(store.read(ASLEEP))

    await until(asleep)


async def until_answered(store: SharedStore) -> None:
    async def answers() -> bool:
        try:
            return bool(await settle(store.read("SELECT 1")))
        except BackendDown:
            return False

    await until(answers)


# Lost connections -------------------------------------------------------------------------------------------------------------


async def test_whoever_reads_does_not_notice_that_connections_are_ended(store: SharedStore, server: Postgres) -> None:
    await store.write(add("alice"))
    for _ in range(3):
        await trio.to_thread.run_sync(server.kill_connections)
        assert await names(store) == [("alice",)]


async def test_a_read_that_is_cut_off_is_made_again(store: SharedStore, server: Postgres) -> None:
    read: list[Row] = []

    async def sleep() -> None:
        read.extend(await settle(store.read("SELECT 'woken' FROM pg_sleep(1)")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleep)
        await until_asleep(store)
        await settle(store.read(END))
    assert read == [("woken",)]


async def test_a_unit_of_work_that_is_cut_off_before_its_commit_is_done_once(store: SharedStore, server: Postgres) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write, add("alice"), SLEEP)
        await until_asleep(store)
        await settle(store.read(END))
    assert await names(store) == [("alice",)]


@pytest.mark.parametrize("further", [(), (add("bob"),)], ids=["one statement", "two"])
async def test_a_commit_without_an_answer_is_an_outage_and_not_tried_again(
    store: SharedStore, server: Postgres, further: tuple[Statement, ...]
) -> None:
    server.run(*SLOW_COMMIT, user=USER)

    async def write() -> None:
        with pytest.raises(BackendDown, match="whether it was written is not known"):
            await store.write(add("alice"), *further)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await until_asleep(store)
        await settle(store.read(END))
    assert await names(store) == []


async def test_who_is_cancelled_leaves_at_once(store: SharedStore, server: Postgres) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write, add("alice"), ("SELECT pg_sleep(60)", ()))
        await until_asleep(store)
        nursery.cancel_scope.cancel()
    assert await names(store) == []
    await settle(store.read(END))


async def test_units_that_wait_for_each_other_are_both_done(store: SharedStore) -> None:
    await store.write(add("a"), add("b"))
    disable = "UPDATE account SET disabled = disabled + 1 WHERE name = $1"
    nap: Statement = ("SELECT pg_sleep(0.3)", ())
    async with trio.open_nursery() as nursery:
        for first, second in ("ab", "ba"):
            nursery.start_soon(store.write, (disable, (first,)), nap, (disable, (second,)))
    assert await settle(store.read("SELECT disabled FROM account")) == [(2,), (2,)]


# Servers that are away --------------------------------------------------------------------------------------------------------


async def test_a_server_that_is_started_anew_is_found_again(own: Postgres) -> None:
    async with open_store(own.url) as store:
        await store.write(add("alice"))
        heard = Heard(store)
        await trio.to_thread.run_sync(own.stop)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, own.start)
            await until_answered(store)
        assert await names(store) == [("alice",)]
        await heard.until(None)
        await store.write(announcing("still"))
        await heard.until("still")


@pytest.mark.usefixtures("impatient")
async def test_while_the_server_is_away_everybody_is_told_soon(own: Postgres) -> None:
    async with open_store(own.url) as store:
        await trio.to_thread.run_sync(own.stop)
        with pytest.raises(BackendDown, match=r"PostgreSQL: .*(No such file|Connection refused|closed|terminating)"):
            await names(store)
        await trio.sleep(0.6)
        begun = trio.current_time()
        with pytest.raises(BackendDown):
            await store.write(add("alice"))
        assert trio.current_time() - begun < connections.PATIENCE
        await trio.to_thread.run_sync(own.start)
        await until_answered(store)


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_hangs_is_an_outage_until_it_goes_on(own: Postgres) -> None:
    async with open_store(own.url) as store:
        await store.write(add("alice"))
        own.signal(signal.SIGSTOP)
        try:
            with trio.fail_after(10):
                with pytest.raises(BackendDown, match=r"no answer within 0\.5 s"):
                    await names(store)
                with pytest.raises(BackendDown):
                    await store.write(add("bob"))
        finally:
            own.signal(signal.SIGCONT)
        await until_answered(store)
        assert await names(store) == [("alice",)]


@pytest.mark.usefixtures("impatient")
async def test_closing_does_not_wait_for_a_server_that_hangs(own: Postgres) -> None:
    try:
        with trio.fail_after(20):
            async with open_store(own.url) as store:
                await names(store)
                own.signal(signal.SIGSTOP)
    finally:
        own.signal(signal.SIGCONT)


async def test_a_server_may_come_later_than_the_store(own: Postgres) -> None:
    await trio.to_thread.run_sync(own.stop)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, own.start)
        async with open_store(own.url) as store:
            assert await names(store) == []


@pytest.mark.usefixtures("impatient")
async def test_without_a_server_there_is_no_store(own: Postgres) -> None:
    await trio.to_thread.run_sync(own.stop)
    with pytest.raises(BackendDown, match=r"daemon\.state: postgresql:///site: PostgreSQL: "):
        async with open_store(own.url):
            raise AssertionError("it was opened")


# What is promised of a connection ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def _default(server: Postgres, setting: str) -> AsyncGenerator[None, None]:
    await trio.to_thread.run_sync(server.run, f"ALTER ROLE {USER} SET {setting}")
    try:
        yield
    finally:
        await trio.to_thread.run_sync(server.run, f"ALTER ROLE {USER} RESET ALL")


@pytest.mark.parametrize(("default", "kept"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
async def test_every_commit_waits_for_the_disk(server: Postgres, default: str, kept: str) -> None:
    async with _default(server, f"synchronous_commit = {default}"), open_store(server.url) as store:
        assert await settle(store.read("SELECT current_setting('synchronous_commit')")) == [(kept,)]


async def test_the_server_does_not_go_on_for_those_who_have_left(store: SharedStore) -> None:
    assert await settle(store.read("SELECT current_setting('statement_timeout')")) == [("15s",)]


async def test_a_new_password_waits_for_keys_that_are_added_or_they_for_it(store: SharedStore, server: Postgres) -> None:
    """What READ COMMITTED alone would let through: keys of a salt that is replaced at the same time."""
    alice = Identity("alice", "d")
    with Threads("test", 2, 10) as threads:
        ring = Keyring(store, threads, lambda: 0, scram.MIN_ITERATIONS)
        keys = await ring.replacement("fake password")
        await store.write(add("alice"), ("UPDATE account SET stamp = $1", (keys.stamp,)), *ring.replacing(alice, keys))
        added = await ring.addition(alice, "fake app password")
        other = await ring.replacement("another fake one")
        async with trio.open_nursery() as nursery:
            changing: Statement = ("UPDATE account SET stamp = $1", (other.stamp,))
            nursery.start_soon(partial(store.write, changing, *ring.replacing(alice, other), SLEEP))
            await until_asleep(store)
            first, *_ = await store.write(*ring.adding(alice, "app:phone", added))
    assert first == []
    assert await settle(store.read("SELECT DISTINCT credential FROM scram_key")) == [("password",)]


# The schema -------------------------------------------------------------------------------------------------------------------


async def refusal(url: str, password: Secret | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        async with open_store(url, password):
            raise AssertionError("it was opened")
    (problem,) = caught.value.problems
    assert problem.startswith("daemon.state: postgresql://")
    return problem


async def test_a_newer_schema_is_refused_and_left_alone(server: Postgres) -> None:
    async with open_store(server.url):
        pass
    server.run("UPDATE schema_version SET version = version + 1")
    told = f"postgresql:///site was written by a newer extauth (schema {VERSION + 1}, this program knows {VERSION})"
    assert told in await refusal(server.url)
    assert server.run("SELECT version FROM schema_version").strip() == str(VERSION + 1)


async def test_an_older_schema_is_brought_up_to_date(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as old:
        old.setattr(postgres, "MIGRATIONS", MIGRATIONS[:1])
        old.setattr(postgres, "VERSION", 1)
        async with open_store(server.url) as store:
            await store.write(("INSERT INTO account VALUES ('d', 'alice', 0, 4096, 'stamp', 0, 0)", ()))
    async with open_store(server.url) as store:
        assert await settle(store.read("SELECT iterations FROM scram_user")) == [(4096,)]
    assert server.run("SELECT version FROM schema_version").strip() == str(VERSION)


async def test_a_migration_that_fails_leaves_all_as_it_was(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(postgres, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE novelty (n INTEGER)", "SELECT 1 FROM nowhere")))
        broken.setattr(postgres, "VERSION", VERSION + 1)
        assert "nowhere" in await refusal(server.url)
    assert server.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").strip() == "0"
    async with open_store(server.url) as store:
        assert await names(store) == []


async def test_a_role_without_rights_is_told_so(server: Postgres) -> None:
    server.run(f"ALTER SCHEMA public OWNER TO {ADMIN}", f"GRANT USAGE ON SCHEMA public TO {USER}")
    assert "permission denied for schema public" in await refusal(server.url)


# The address ------------------------------------------------------------------------------------------------------------------


def tcp(server: Postgres, rest: str = "", *, user: str = USER, host: str = "127.0.0.1") -> str:
    return f"postgresql://{user}@{host}:{server.port}/site{rest}"


async def test_a_password_is_given_apart_from_the_address(server: Postgres) -> None:
    async with open_store(tcp(server), Secret(PASSWORD)) as store:
        assert await names(store) == []


async def test_a_wrong_password_is_no_outage_and_not_shown(server: Postgres) -> None:
    problem = await refusal(tcp(server), Secret("canary"))
    assert "password authentication failed" in problem
    assert "canary" not in problem


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://extauth:canary@db.example.com/extauth",
        "postgres://extauth:canary@db.example.com:5432/extauth?sslmode=require",
        "postgresql://extauth:c@nary:canary@db.example.com/extauth",
        "postgresql://extauth@db.example.com/extauth?password=canary",
        "postgresql://:canary@/extauth",
    ],
)
async def test_a_password_in_the_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="a password has no place in a URL") as caught:
        async with open_store(url):
            raise AssertionError("it was opened")
    assert "nary" not in str(caught.value)


async def test_a_database_that_is_not_there_is_told(server: Postgres) -> None:
    assert 'database "nowhere" does not exist' in await refusal(server.url.replace("/site", "/nowhere"))


async def test_options_that_make_no_sense_are_told(server: Postgres) -> None:
    assert "sslmode" in await refusal(tcp(server, "?sslmode=never-heard-of"))


async def test_with_verify_full_only_the_right_server_is_talked_to(
    server: Postgres, certificates: Certificates, tmp: Path
) -> None:
    verified = f"?sslmode=verify-full&sslrootcert={certificates.ca}"
    async with open_store(tcp(server, verified, host="localhost"), Secret(PASSWORD)) as store:
        encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert await settle(store.read(f"SELECT 1 WHERE ({encrypted})")) == [(1,)]
    stranger = make_certificates(tmp, ["localhost"])
    url = tcp(server, f"?sslmode=verify-full&sslrootcert={stranger.ca}", host="localhost")
    assert "certificate verify failed" in await refusal(url, Secret(PASSWORD))


def test_the_loop_ends_with_the_store(server: Postgres) -> None:
    async def open_and_close() -> None:
        async with open_store(server.url) as store:
            await names(store)

    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        trio.run(open_and_close)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_store_may_be_closed_at_any_moment(server: Postgres) -> None:
    for delay in (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05):
        async with open_store(server.url):
            await trio.sleep(delay)
