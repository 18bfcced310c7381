"""Whether people exist who are known only by their tokens."""

from collections.abc import AsyncIterator, Awaitable
from typing import Literal

import pytest

from extauth.changes import Member
from extauth.errors import BackendDown
from extauth.issuing import EndSessions
from extauth.layers import seen as module
from extauth.layers.compose import with_record
from extauth.layers.rules import DAY
from extauth.layers.seen import Seen
from extauth.model import (
    Accept,
    CheckToken,
    CreateUser,
    Identity,
    Reason,
    Reject,
    RemoveUser,
    Request,
    Secret,
    SetPassword,
    Unavailable,
    UserExists,
    Verdict,
)
from extauth.soon import settle
from extauth.store import Row, Statement, Store, Value, open_store
from extauth.store.interface import Results
from tests.fakes import ALICE, ORIGIN, FakeBackend, Scene

BOB = Identity("bob", "example.com")
NOBODY = Identity("", "example.com")
NO_USER = Reject(Reason.NO_USER)
MALLORY = Identity("mallory", "example.com")


class CountingStore:
    """Counts what is asked of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.away = False
        self.reads = 0
        self.writes = 0

    def read(self, sql: str, *values: Value) -> list[Row] | Awaitable[list[Row]]:
        self.reads += 1
        return self._store.read(sql, *values)

    async def write(self, *statements: Statement) -> Results:
        if self.away:
            raise BackendDown("the disk is full")
        self.writes += 1
        return await self._store.write(*statements)


def judge(request: Request) -> Accept | Reject | None:
    """Accept tokens that name alice or bob; they begin with "t:"."""
    assert isinstance(request, CheckToken)
    kind, _, user = request.token.reveal().partition(":")
    if kind != "t":
        return None
    return Accept(Identity(user, "example.com")) if user in ("alice", "bob") else Reject(Reason.BAD_PASSWORD)


class Site:
    """A chain of a token backend and one with accounts, of which bob has one."""

    def __init__(self, store: CountingStore, exists: Literal["seen", "always", "never"] = "seen") -> None:
        self.store = store
        self.time = 1_000_000_000.0
        self.seen = Seen(store, lambda: self.time)
        self.people = FakeBackend(
            {
                UserExists: lambda request: Accept(BOB) if request.identity == BOB else None,
                SetPassword: Accept(BOB),
                CreateUser: lambda request: Accept(request.identity),
                RemoveUser: Accept(BOB),
            }
        )
        members = [Member("app", FakeBackend({CheckToken: judge})), Member("people", self.people)]
        members = with_record(members, exists, self.seen)
        self.names = [member.name for member in members]
        self.scene = Scene([member.backend for member in members])

    async def ask(self, request: Request) -> Verdict:
        verdict: Verdict = await settle(self.scene.authority.ask(request))
        return verdict

    async def login(self, user: str = "alice", identity: Identity = NOBODY) -> Verdict:
        return await self.ask(CheckToken(identity, ORIGIN, Secret(f"t:{user}")))

    async def exists(self, identity: Identity = ALICE) -> bool:
        verdict = await self.ask(UserExists(identity, ORIGIN))
        assert verdict in (Accept(identity), NO_USER)
        return isinstance(verdict, Accept)


@pytest.fixture
async def store(state: str) -> AsyncIterator[CountingStore]:
    """Give an empty store of each kind."""
    async with open_store(state) as opened:
        yield CountingStore(opened)


async def test_who_has_logged_in_by_a_token_exists(store: CountingStore) -> None:
    site = Site(store)
    assert not await site.exists()
    assert await site.login() == Accept(ALICE)
    assert await site.exists()
    assert not await site.exists(MALLORY)
    assert not await site.exists(Identity("alice", "example.org"))
    assert await Site(store).exists()  # after a restart, and on every other node


async def test_who_was_refused_does_not_exist(store: CountingStore) -> None:
    site = Site(store)
    assert await site.login("mallory") == Reject(Reason.BAD_PASSWORD)
    assert await site.login("alice", MALLORY) == NO_USER  # somebody else's token
    assert not await site.exists(MALLORY)
    assert not await site.exists()


async def test_always_and_never(store: CountingStore) -> None:
    always, never = Site(store, "always"), Site(store, "never")
    await always.login()
    await never.login()
    assert await always.exists(MALLORY)
    assert not await never.exists()
    assert store.writes == 0
    assert await always.exists(BOB)
    assert await never.exists(BOB)


async def test_a_chain_whose_backends_all_can_tell_has_no_record(store: CountingStore) -> None:
    members = [Member("people", FakeBackend({UserExists: None}))]
    assert with_record(members, "seen", Seen(store, lambda: 0.0)) == members
    assert with_record(members, "always", Seen(store, lambda: 0.0)) == members


async def test_tokens_of_ours_make_nobody_exist(store: CountingStore) -> None:
    members = [
        Member("tokens", FakeBackend({CheckToken: judge, EndSessions: None})),
        Member("people", FakeBackend({UserExists: None})),
    ]
    assert with_record(members, "seen", Seen(store, lambda: 0.0)) == members


async def test_it_is_written_once_a_day(store: CountingStore) -> None:
    site = Site(store)
    for _ in range(5):
        await site.login()
    assert (store.reads, store.writes) == (1, 1)
    again = Site(store)
    again.time += 3600
    for _ in range(5):
        await again.login()
    assert (store.reads, store.writes) == (2, 1)
    again.time += DAY
    for _ in range(5):
        await again.login()
    assert (store.reads, store.writes) == (3, 2)
    assert await again.seen.count("app", again.time - 1) == {"example.com": 1}


async def test_changes_go_to_the_backend_that_has_the_account(store: CountingStore) -> None:
    site = Site(store)
    await site.login("bob")
    assert await site.ask(SetPassword(BOB, ORIGIN, Secret("fake new"))) == Accept(BOB)
    await site.login()
    assert await site.ask(SetPassword(ALICE, ORIGIN, Secret("fake new"))) == Reject(Reason.NOT_SUPPORTED)
    assert await site.ask(CreateUser(ALICE, ORIGIN, Secret("fake new"))) == Reject(Reason.USER_EXISTS)
    assert await site.ask(CreateUser(MALLORY, ORIGIN, Secret("fake new"))) == Accept(MALLORY)


async def test_removing_forgets_that_somebody_was_seen(store: CountingStore) -> None:
    site = Site(store)
    await site.login()
    assert await site.ask(RemoveUser(ALICE, ORIGIN)) == Accept(ALICE)
    assert not await site.exists()
    assert await site.ask(RemoveUser(ALICE, ORIGIN)) == NO_USER
    await site.login()
    assert await site.exists()


async def test_a_login_by_a_backend_of_another_chain_does_not_count(store: CountingStore) -> None:
    site = Site(store)
    recording = site.seen.record(ALICE, "people")
    assert recording is not None
    await recording
    assert not await site.exists()


async def test_a_store_that_is_away_costs_nobody_a_login(store: CountingStore) -> None:
    site = Site(store)
    store.away = True
    assert await site.login() == Accept(ALICE)
    store.away = False
    assert await site.login() == Accept(ALICE)
    assert await site.exists()


async def test_what_the_process_remembers_has_bounds(store: CountingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 1)
    site = Site(store)
    for user in ("alice", "bob", "alice"):
        await site.login(user)
    assert len(site.seen._today) == 1  # pyright: ignore[reportPrivateUsage]


async def test_an_outage_is_told_if_nobody_else_knows(store: CountingStore) -> None:
    site = Site(store)
    site.people.replies[UserExists] = BackendDown("no route")
    assert isinstance(await site.ask(UserExists(ALICE, ORIGIN)), Unavailable)
    await site.login()
    assert await site.ask(UserExists(ALICE, ORIGIN)) == Accept(ALICE)
