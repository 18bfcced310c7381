"""The keys that sign tokens."""

import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from extauth.keystore import LIFE, SLACK, Keystore
from extauth.soon import settle
from extauth.store import Row, Store, Value, open_store
from extauth.store.sqlite import SqliteStore
from tests.tokenscene import START, Clock

DOMAIN = "example.com"
NAME = "token_secret"


@pytest.fixture
async def store(state: str) -> AsyncIterator[Store]:
    async with open_store(state) as store:
        yield store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(store: Store, clock: Clock) -> Keystore:
    return Keystore(store, clock)


async def values(keys: Keystore, name: str = NAME, domain: str = DOMAIN) -> list[bytes]:
    return [key.value for key in await settle(keys.keys(domain, name))]


async def verifies(keys: Keystore, value: bytes) -> bool:
    return await settle(keys.verify(DOMAIN, NAME, lambda known: value in known))


async def test_a_key_is_made_when_it_is_needed_and_stays(keys: Keystore, store: Store, clock: Clock) -> None:
    value = await keys.signing(DOMAIN, NAME, START)
    assert len(value) == 64
    assert await keys.signing(DOMAIN, NAME, START + 10 * SLACK) == value
    assert await Keystore(store, clock).signing(DOMAIN, NAME, START) == value
    assert await keys.signing("example.org", NAME, START) != value
    assert await keys.signing(DOMAIN, "guest_secret", START) != value


async def test_rotation_voids_nothing(keys: Keystore) -> None:
    signed = [await keys.signing(DOMAIN, NAME, START)]
    for _ in range(3):
        await keys.add(DOMAIN, NAME)  # at the same moment, by this clock
        signed.append(await keys.signing(DOMAIN, NAME, START))
    assert len(set(signed)) == 4
    assert all([await verifies(keys, value) for value in signed])
    assert (await values(keys))[0] == signed[-1]


async def test_an_imported_key_signs_byte_for_byte(keys: Keystore) -> None:
    await keys.signing(DOMAIN, NAME, START)
    await keys.add(DOMAIN, NAME, b"a fake key\n\0\xff")
    assert await keys.signing(DOMAIN, NAME, START) == b"a fake key\n\0\xff"
    assert [key.imported for key in await keys.described(DOMAIN)] == [True, False]


async def test_a_key_in_a_file_signs_and_those_of_the_store_verify(store: Store, clock: Clock) -> None:
    stored = await Keystore(store, clock).signing(DOMAIN, NAME, START)
    keys = Keystore(store, clock, {NAME: b"fake"})
    assert await keys.signing(DOMAIN, NAME, START) == b"fake"
    assert await values(keys) == [b"fake", stored]


async def test_a_key_is_retired_only_when_nothing_it_signed_can_be_valid(keys: Keystore, clock: Clock) -> None:
    value = await keys.signing(DOMAIN, NAME, START + 100)
    (info,) = await keys.described(DOMAIN)
    await keys.add(DOMAIN, NAME)
    for time in (START, START + 100, info.latest):
        clock.time = time
        assert not await keys.retire(DOMAIN, NAME, info.id)
        assert await verifies(keys, value)
    clock.time = info.latest + 1
    assert not await keys.retire(DOMAIN, "guest_secret", info.id)
    assert not await keys.retire("example.org", NAME, info.id)
    assert await keys.retire(DOMAIN, NAME, info.id)
    assert not await verifies(keys, value)
    assert not await keys.retire(DOMAIN, NAME, info.id)


async def test_force_retires_at_once(keys: Keystore) -> None:
    value = await keys.signing(DOMAIN, NAME, START + 100)
    (info,) = await keys.described(DOMAIN)
    assert await keys.retire(DOMAIN, NAME, info.id, force=True)
    assert not await verifies(keys, value)
    assert await keys.signing(DOMAIN, NAME, START + 100) != value


async def test_what_is_signed_later_is_written_down_before(keys: Keystore, store: Store, clock: Clock) -> None:
    other = Keystore(store, clock)
    await keys.signing(DOMAIN, NAME, START)
    for expires in (START + SLACK, START + SLACK + 1, START + 100 * SLACK):
        await keys.signing(DOMAIN, NAME, expires)
        assert (await other.described(DOMAIN))[0].latest >= expires


async def test_a_key_that_another_process_has_made_is_known_at_once(keys: Keystore, store: Store, clock: Clock) -> None:
    await keys.signing(DOMAIN, NAME, START)
    await Keystore(store, clock).add(DOMAIN, NAME, b"fake")
    assert await verifies(keys, b"fake")


class Remote:
    """A store that has to be waited for, and counts its look-ups."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.write = store.write
        self.reads = 0

    async def read(self, sql: str, *values: Value) -> list[Row]:
        self.reads += 1
        return await settle(self._store.read(sql, *values))


async def test_what_a_remote_store_said_holds_for_a_moment(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monotonic = 0.0
    monkeypatch.setattr("extauth.keystore.time.monotonic", lambda: monotonic)
    remote = Remote(store)
    keys, elsewhere = Keystore(remote, clock), Keystore(store, clock)
    value = await keys.signing(DOMAIN, NAME, START)
    reads = remote.reads
    assert await verifies(keys, value)
    assert await keys.signing(DOMAIN, NAME, START) == value
    assert remote.reads == reads
    await elsewhere.add(DOMAIN, NAME, b"fake")
    assert await verifies(keys, b"fake")  # what is not known is looked up
    (_, info) = await elsewhere.described(DOMAIN)
    await elsewhere.retire(DOMAIN, NAME, info.id, force=True)
    monotonic = LIFE
    assert not await verifies(keys, value)


async def test_a_store_at_hand_is_asked_each_time(tmp: Path, clock: Clock) -> None:
    async with open_store(f"sqlite://{tmp}/state/keys.db") as store:
        keys = Keystore(store, clock)
        value = await keys.signing(DOMAIN, NAME, START)
        (info,) = await keys.described(DOMAIN)
        await Keystore(store, clock).retire(DOMAIN, NAME, info.id, force=True)
        assert not await verifies(keys, value)


OTHER_PROCESS = """
    import sys, time, trio
    from extauth.keystore import Keystore
    from extauth.store import open_store
    async def main():
        async with open_store(sys.argv[1]) as store:
            keys = Keystore(store, time.time)
            for line in sys.stdin:
                if line == "rotate\\n":
                    await keys.add("example.com", "token_secret", b"a fake key")
                else:
                    assert await keys.retire("example.com", "token_secret", line.strip(), force=True)
                print("done", flush=True)
    trio.run(main)
"""


async def test_what_another_process_does_to_keys_is_seen_at_the_next_login(tmp: Path, clock: Clock) -> None:
    state = f"sqlite://{tmp}/state/keys.db"
    async with open_store(state) as store:
        keys = Keystore(store, clock)
        value = await keys.signing(DOMAIN, NAME, START)
        (info,) = await keys.described(DOMAIN)
        command = [sys.executable, "-c", textwrap.dedent(OTHER_PROCESS), state]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220
            assert process.stdin is not None
            assert process.stdout is not None
            assert await verifies(keys, value)
            assert not await verifies(keys, b"a fake key")
            print("rotate", file=process.stdin, flush=True)
            assert process.stdout.readline() == "done\n"
            assert await values(keys) == [b"a fake key", value]
            assert await verifies(keys, value)
            print(info.id, file=process.stdin, flush=True)
            assert process.stdout.readline() == "done\n"
            assert not await verifies(keys, value)
            assert await values(keys) == [b"a fake key"]
            process.stdin.close()
            assert process.wait() == 0


async def test_a_store_at_hand_is_looked_into_only_after_somebody_has_written(tmp: Path, clock: Clock) -> None:
    async with open_store(f"sqlite://{tmp}/state/keys.db") as store:
        keys = Keystore(store, clock)
        value = await keys.signing(DOMAIN, NAME, START)
        looked: list[str] = []
        assert isinstance(store, SqliteStore)
        store._reader.set_trace_callback(looked.append)  # pyright: ignore[reportPrivateUsage]
        assert await verifies(keys, value)
        looked.clear()
        for _ in range(3):
            assert await verifies(keys, value)
            assert not await verifies(keys, b"fake")
        assert not looked
        await store.write(("INSERT INTO secret (name, value) VALUES ('x', '')", ()))
        assert await verifies(keys, value)
        assert len(looked) == 1


async def test_two_that_make_the_first_key_at_once_verify_each_others(store: Store, clock: Clock) -> None:
    nodes = [Keystore(store, clock) for _ in range(5)]
    made: list[bytes] = []

    async def sign(keys: Keystore) -> None:
        made.append(await keys.signing(DOMAIN, NAME, START))

    async with trio.open_nursery() as nursery:
        for keys in nodes:
            nursery.start_soon(sign, keys)
    assert all([await verifies(keys, value) for keys in nodes for value in made])


async def test_what_a_key_is_stays_hidden(store: Store, clock: Clock) -> None:
    keys = await settle(Keystore(store, clock, {NAME: b"fake"}).keys(DOMAIN, NAME))
    assert len(keys) == 1
    assert "fake" not in repr(keys)
