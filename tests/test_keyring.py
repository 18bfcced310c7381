"""The SCRAM credentials of users in the state store."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from extauth import keyring
from extauth.keyring import MAX_CANDIDATES, PASSWORD, Keyring, Ring, dropping_all
from extauth.model import Identity
from extauth.passwords import scram
from extauth.soon import settle
from extauth.store import Store, open_store
from extauth.store.schema import MIGRATIONS
from extauth.store.sqlite import SqliteStore
from extauth.threads import Threads

ALICE = Identity("alice", "example.com")
BOB = Identity("bob", "example.com")
ELSEWHERE = Identity("alice", "example.org")
FEW = scram.MIN_ITERATIONS
ACCOUNT = (
    "INSERT INTO account (domain, name, disabled, stamp, created, changed) VALUES ($1, $2, 0, $3, 0, 0) "
    "ON CONFLICT (domain, name) DO UPDATE SET stamp = excluded.stamp"
)
KEYS = "SELECT hash, credential, stored_key FROM scram_key WHERE domain = $1 AND name = $2"


@dataclass
class Place:
    """A store with a keyring on it."""

    store: Store
    keys: Keyring
    time: float = 1000.0

    async def find(self, identity: Identity = ALICE, family: str = "SHA-256") -> Ring | None:
        found: Ring | None = await settle(self.keys.find(identity, family))
        return found

    async def names(self, identity: Identity = ALICE) -> list[str]:
        ring = await self.find(identity)
        return [candidate.credential for candidate in ring.candidates] if ring else []

    async def fits(self, password: str, identity: Identity = ALICE, family: scram.Hash = scram.Hash.SHA_256) -> str | None:
        """Return the credential that a password proves."""
        ring = await self.find(identity, family.value)
        if ring is None:
            return None
        stored = tuple(candidate.stored_key for candidate in ring.candidates)
        index = scram.verify(family, (password,), ring.salt, ring.iterations, stored)
        return None if index is None else ring.candidates[index].credential

    async def set_password(self, password: str, identity: Identity = ALICE) -> None:
        keys = await self.keys.replacement(password)
        account = (ACCOUNT, (identity.domain, identity.user, keys.stamp))
        await self.store.write(account, *self.keys.replacing(identity, keys))


@pytest.fixture
async def place(state: str) -> AsyncIterator[Place]:
    """Give an empty keyring."""
    async with open_store(state) as store:
        with Threads("test", 2, 10) as threads:
            opened = Place(store, Keyring(store, threads, lambda: opened.time, FEW))
            yield opened


async def test_nobody_has_keys_at_first(place: Place) -> None:
    assert await place.find() is None


async def test_a_user_without_an_account_has_credentials(place: Place) -> None:
    assert await place.keys.add(ALICE, "learned:people", "fake directory password")
    for family in scram.Hash:
        assert await place.fits("fake directory password", family=family) == "learned:people"
        assert await place.fits("another one", family=family) is None
    assert await place.find(family="MD5") is None
    assert await place.find(BOB) is None
    assert await place.find(ELSEWHERE) is None


async def test_credentials_share_salt_and_iterations(place: Place) -> None:
    await place.set_password("fake password")
    before = await place.find()
    with Threads("test", 1, 10) as threads:
        stricter = Keyring(place.store, threads, lambda: place.time, 2 * FEW)
        assert await stricter.add(ALICE, "app:phone", "fake app password")
    after = await place.find()
    assert before is not None
    assert after is not None
    assert (before.salt, before.iterations) == (after.salt, after.iterations) == (after.salt, FEW)
    assert await place.fits("fake password") == PASSWORD
    assert await place.fits("fake app password") == "app:phone"


async def test_a_new_password_ends_the_other_credentials(place: Place) -> None:
    await place.set_password("fake password")
    await place.keys.add(ALICE, "app:phone", "fake app password")
    before = await place.find()
    await place.set_password("another fake one")
    after = await place.find()
    assert before is not None
    assert after is not None
    assert before.salt != after.salt
    assert await place.names() == [PASSWORD]
    assert await place.fits("another fake one") == PASSWORD


async def test_keys_derived_with_salts_since_replaced_are_not_kept(place: Place) -> None:
    await place.set_password("fake password")
    keys = await place.keys.addition(ALICE, "fake app password")
    await place.set_password("another fake one")
    added, *_ = await place.store.write(*place.keys.adding(ALICE, "app:phone", keys))
    assert added == []
    assert await place.names() == [PASSWORD]


async def test_a_replacement_without_the_account_does_nothing(place: Place) -> None:
    await place.keys.add(ALICE, "learned:people", "fake directory password")
    before = await place.find()
    keys = await place.keys.replacement("fake password")
    await place.store.write(*place.keys.replacing(ALICE, keys))
    assert await place.find() == before


async def test_two_who_start_a_ring_share_it(place: Place) -> None:
    async with trio.open_nursery() as nursery:
        for credential in ("learned:a", "learned:b"):
            nursery.start_soon(place.keys.add, ALICE, credential, f"fake {credential}")
    assert await place.fits("fake learned:a") == "learned:a"
    assert await place.fits("fake learned:b") == "learned:b"


async def test_a_credential_is_replaced_by_one_of_its_id(place: Place) -> None:
    await place.keys.add(ALICE, "learned:people", "fake old")
    await place.keys.add(ALICE, "learned:people", "fake new")
    assert await place.fits("fake old") is None
    assert await place.fits("fake new") == "learned:people"
    assert len(await settle(place.store.read(KEYS, *_key(ALICE)))) == len(scram.Hash)


async def test_a_credential_expires(place: Place) -> None:
    await place.keys.add(ALICE, "temporary:1", "fake temporary", expires=1060)
    place.time = 1059.9
    assert await place.names() == ["temporary:1"]
    place.time = 1060.0
    assert await place.find() is None
    await place.keys.add(ALICE, "temporary:2", "fake temporary 2", expires=1120)
    stored = {credential for _, credential, _ in await settle(place.store.read(KEYS, *_key(ALICE)))}
    assert stored == {"temporary:2"}  # what has expired does not pile up


async def test_a_credential_that_expires_is_held_and_counted(place: Place) -> None:
    assert await settle(place.keys.held(ALICE, "learned:people")) is None
    for user in (ALICE, BOB, ELSEWHERE):
        await place.keys.add(user, "learned:people", "fake secret", expires=1060 if user == BOB else 1120)
    held = await settle(place.keys.held(BOB, "learned:people"))
    assert held is not None
    assert held.expires == 1060
    assert await place.keys.fits(held, ("fake other", "fake secret"))
    assert not await place.keys.fits(held, ("fake other",))
    assert await place.keys.count("learned:people") == {"example.com": 2, "example.org": 1}
    place.time = 1060.0
    assert await place.keys.count("learned:people") == {"example.com": 1, "example.org": 1}
    assert await settle(place.keys.held(BOB, "learned:people")) == held


async def test_one_credential_is_dropped(place: Place) -> None:
    for user in (ALICE, BOB):
        await place.keys.add(user, "app:phone", "fake phone")
        await place.keys.add(user, "app:desk", "fake desk")
    before = await place.find()
    await place.store.write(*place.keys.dropping(ALICE, "app:phone"))
    after = await place.find()
    assert await place.names() == ["app:desk"]
    assert sorted(await place.names(BOB)) == ["app:desk", "app:phone"]
    assert before is not None
    assert after is not None
    assert before.salt == after.salt


async def test_all_are_dropped_with_their_salts(place: Place) -> None:
    for user in (ALICE, BOB, ELSEWHERE):
        await place.keys.add(user, "app:phone", "fake phone")
    before = await place.find()
    await place.store.write(*dropping_all(ALICE))
    assert await place.find() is None
    assert await place.names(BOB) == await place.names(ELSEWHERE) == ["app:phone"]
    await place.keys.add(ALICE, "app:phone", "fake phone")
    after = await place.find()
    assert before is not None
    assert after is not None
    assert before.salt != after.salt


@pytest.mark.parametrize("own", [PASSWORD, "learned:people"])
async def test_of_too_many_the_newest_count_and_the_own_password_always(place: Place, own: str) -> None:
    if own == PASSWORD:
        await place.set_password("fake password")
    else:
        await place.keys.add(ALICE, own, "fake password")
    keys = await place.keys.addition(ALICE, "fake token")
    for number in range(20):
        place.time += 1
        await place.store.write(*place.keys.adding(ALICE, f"temporary:{number:02}", keys))
    assert await place.names() == [own, *(f"temporary:{number:02}" for number in range(19, 20 - MAX_CANDIDATES, -1))]


async def test_salts_that_an_import_left_out_are_completed(place: Place) -> None:
    await place.set_password("fake password")
    salt = scram.new_salt()
    await place.store.write(
        ("DELETE FROM scram_key", ()),
        ("DELETE FROM scram_salt", ()),
        ("INSERT INTO scram_salt VALUES ('example.com', 'alice', 'SHA-1', $1)", (salt,)),
    )
    await place.keys.add(ALICE, "app:phone", "fake phone")
    ring = await place.find(family="SHA-1")
    assert ring is not None
    assert ring.salt == salt
    for family in scram.Hash:
        assert await place.fits("fake phone", family=family) == "app:phone"


def test_accounts_of_the_first_schema_keep_their_keys(tmp: Path) -> None:
    async def check() -> None:
        async with SqliteStore.open(str(tmp / "state.db")) as store:
            with Threads("test", 1, 10) as threads:
                place = Place(store, Keyring(store, threads, lambda: 1000.0, 2 * FEW))
                assert await place.fits("fake password") == PASSWORD
                assert await place.keys.add(ALICE, "app:phone", "fake phone")
                assert await place.fits("fake phone") == "app:phone"

    salt = scram.new_salt()
    keys = scram.make(scram.Hash.SHA_256, "fake password", salt, FEW)
    with contextlib.closing(sqlite3.connect(tmp / "state.db")) as before:
        for statement in MIGRATIONS[0]:
            before.execute(statement)
        before.execute("INSERT INTO account VALUES ('example.com', 'alice', 0, ?, 'stamp', 0, 0)", (FEW,))
        before.execute("INSERT INTO scram_salt VALUES ('example.com', 'alice', 'SHA-256', ?)", (salt,))
        row = ("example.com", "alice", "SHA-256", "password", keys.stored_key, keys.server_key)
        before.execute("INSERT INTO scram_key VALUES (?, ?, ?, ?, ?, ?)", row)
        before.execute("PRAGMA user_version=1")
        before.commit()
    (tmp / "state.db").chmod(0o600)
    trio.run(check)


def test_the_sql_fits_both_databases() -> None:
    texts = [value for name, value in vars(keyring).items() if name.isupper() and isinstance(value, str) and " " in value]
    assert len(texts) == 19
    for text in texts:
        assert "::" not in text
        assert "?" not in text


def _key(identity: Identity) -> tuple[str, str]:
    return identity.domain, identity.user
