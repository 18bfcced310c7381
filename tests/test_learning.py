"""SCRAM keys made of passwords that a backend has accepted: who gets them, and when they end."""

import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from extauth.backend import Backend, Context
from extauth.errors import BackendDown, ConfigError
from extauth.keyring import PASSWORD, Keyring, dropping_all
from extauth.layers import learning as module
from extauth.layers.compose import Layered, surround
from extauth.layers.learning import Learning, Share
from extauth.layers.rules import DAY, CacheRules, Layers
from extauth.layers.seen import Seen
from extauth.model import (
    Accept,
    Answer,
    CheckCertificate,
    CheckPassword,
    CheckToken,
    FindKeys,
    Identity,
    Keys,
    Reason,
    Reject,
    RemoveUser,
    Request,
    Secret,
    SetEnabled,
    SetPassword,
    UserExists,
)
from extauth.passwords import scram
from extauth.passwords.scram import Hash
from extauth.soon import settle
from extauth.store import Row, Statement, Value
from extauth.store.interface import Results
from extauth.store.sqlite import SqliteStore
from extauth.threads import Threads
from tests.fakes import ALICE, ORIGIN, FakeBackend, check

BOB = Identity("bob", "example.com")
WRONG = Reject(Reason.BAD_PASSWORD)
DOWN = BackendDown("no route")
FEW = scram.MIN_ITERATIONS
OFFER = Layers(learn_scram="offer", learn_iterations=FEW)


class Directory(FakeBackend):
    """Shows nobody its passwords."""

    def __init__(self) -> None:
        self.passwords = {ALICE: "fake secret", BOB: "fake other"}
        self.failure: Exception | Answer | None = None
        super().__init__(
            {
                CheckPassword: self._check,
                UserExists: lambda request: Accept(request.identity) if request.identity in self.passwords else None,
                SetPassword: self._change,
                RemoveUser: self._remove,
                SetEnabled: lambda request: Accept(request.identity),
            },
            later=True,
        )

    def _check(self, request: Request) -> Answer | Exception | None:
        assert isinstance(request, CheckPassword)
        if self.failure is not None:
            return self.failure
        password = self.passwords.get(request.identity)
        if password is None:
            return None
        return Accept(request.identity) if request.password.reveal() == password else WRONG

    def _change(self, request: Request) -> Answer | Exception | None:
        assert isinstance(request, SetPassword)
        if self.failure is not None:
            return self.failure
        self.passwords[request.identity] = request.password.reveal()
        return Accept(request.identity)

    def _remove(self, request: Request) -> Answer | None:
        return Accept(request.identity) if self.passwords.pop(request.identity, None) else None


class LyingStore:
    """A store that can be away."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.away = False
        self.written: list[Statement] = []

    def read(self, sql: str, *values: Value) -> list[Row]:
        return self._store.read(sql, *values)

    async def write(self, *statements: Statement) -> Results:
        if self.away:
            raise BackendDown("the disk is full")
        self.written += statements
        return await self._store.write(*statements)


class Site:
    """A directory with learned keys around it."""

    def __init__(self, store: LyingStore, hashing: Threads) -> None:
        self.store = store
        self.time = 1_000_000_000.0
        self.directory = Directory()
        self.context = Context("people", store, hashing, lambda: self.time)
        self.seen = Seen(store, lambda: self.time)
        self.keyring = Keyring(store, hashing, lambda: self.time, FEW)
        self.layered: Layered
        self.layer: Learning

    @asynccontextmanager
    async def open(self, rules: Layers = OFFER, backend: Backend | None = None) -> AsyncGenerator["Site", None]:
        async with surround(backend or self.directory, rules, self.context, self.seen, None) as self.layered:
            assert self.layered.learning is not None
            self.layer = self.layered.learning
            yield self

    async def ask(self, request: Request) -> Answer | None:
        answer: Answer | None = await settle(self.layer.answer(request))
        return answer

    async def login(self, password: str = "fake secret", identity: Identity = ALICE) -> Answer | None:
        return await self.ask(check(password, identity))

    async def learned(self) -> None:
        """Wait until there is nothing left to learn."""
        with trio.fail_after(30):
            while True:
                statistics = self.layer._to_learn.statistics()  # pyright: ignore[reportPrivateUsage]
                if statistics.tasks_waiting_receive and not statistics.current_buffer_used:
                    return
                await trio.sleep(0.005)

    async def proves(
        self, password: str = "fake secret", identity: Identity = ALICE, family: Hash = Hash.SHA_512
    ) -> bool | None:
        """Tell whether somebody can log in by SCRAM; None if there are no keys to try."""
        keys = await self.ask(FindKeys(identity, ORIGIN, family.value))
        if not isinstance(keys, Keys):
            return None
        assert keys.identity == identity
        assert keys.backend == "people"
        stored = tuple(candidate.stored_key for candidate in keys.candidates)
        return scram.verify(family, (password,), keys.salt, keys.iterations, stored) is not None


@pytest.fixture
async def place(tmp: Path) -> AsyncIterator[Site]:
    """Give a site that is not open yet."""
    async with SqliteStore.open(str(tmp / "state.db")) as store:
        with Threads("test", 2, 30) as threads:
            yield Site(LyingStore(store), threads)


@pytest.fixture
async def site(place: Site) -> AsyncIterator[Site]:
    """Give a site that offers SCRAM."""
    async with place.open() as opened:
        yield opened


async def test_a_login_by_password_makes_the_next_by_scram_possible(site: Site) -> None:
    assert await site.proves() is None
    assert await site.login() == Accept(ALICE)
    await site.learned()
    for family in Hash:
        assert await site.proves(family=family) is True
        assert await site.proves("fake wrong", family=family) is False
    assert await site.proves("fake secret", BOB) is None


async def test_the_password_is_kept_in_no_other_form(site: Site, tmp: Path) -> None:
    site.directory.passwords[ALICE] = "canary-51c0ffee"
    await site.login("canary-51c0ffee")
    await site.learned()
    files = b"".join([await trio.Path(file).read_bytes() for file in tmp.iterdir()])  # noqa: ASYNC240
    assert b"learned:people" in files
    assert b"canary" not in files


async def test_the_answer_does_not_wait_for_the_keys(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = trio.Event()
    derive = site.context.hashing.run

    async def wait(call: Any) -> Any:  # noqa: ANN401
        await go_on.wait()
        return await derive(call)

    monkeypatch.setattr(site.context.hashing, "run", wait)
    with trio.fail_after(30):
        assert await site.login() == Accept(ALICE)
    assert await site.proves() is None
    go_on.set()
    await site.learned()
    assert await site.proves() is True


async def test_a_password_is_not_derived_twice(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    derived: list[object] = []
    derive = site.context.hashing.run

    async def count(call: Any) -> Any:  # noqa: ANN401
        derived.append(call)
        return await derive(call)

    monkeypatch.setattr(site.context.hashing, "run", count)
    for _ in range(3):
        await site.login()
    await site.learned()
    for _ in range(3):
        await site.login()
        await site.login("fake wrong")
    await site.learned()
    assert len(derived) == 2  # the keys, and a comparison with the wrong one
    written = len(site.store.written)
    async with site.open() as again:  # another process, or this one after a restart
        await again.login()
        await again.learned()
        assert len(derived) == 3  # to see that it is the one that was learned
        assert len(site.store.written) == written


async def test_collected_keys_are_not_offered(place: Site) -> None:
    async with place.open(Layers(learn_scram="collect", learn_iterations=FEW)) as site:
        assert site.layer.handles == site.directory.handles
        await site.login()
        await site.learned()
        assert await site.layer.share() == {"example.com": Share(1, 1)}
    async with place.open() as site:
        assert site.layer.handles == site.directory.handles | {FindKeys}
        assert await site.proves() is True


async def test_salt_and_iterations_stay_as_they_are(site: Site) -> None:
    await site.login()
    await site.learned()
    before = await site.ask(FindKeys(ALICE, ORIGIN, "SHA-256"))
    site.directory.passwords[ALICE] = "fake new"
    async with site.open(Layers(learn_scram="offer", learn_iterations=2 * FEW)) as stricter:
        await stricter.login("fake new")
        await stricter.learned()
        after = await stricter.ask(FindKeys(ALICE, ORIGIN, "SHA-256"))
        assert isinstance(before, Keys)
        assert isinstance(after, Keys)
        assert (before.salt, before.iterations) == (after.salt, after.iterations)
        assert before.candidates != after.candidates
        assert await stricter.proves("fake new") is True
        assert await stricter.proves() is False


# How keys end -----------------------------------------------------------------------------------------------------------------


async def test_the_new_password_takes_the_place_of_the_old(site: Site) -> None:
    await site.login()
    await site.learned()
    site.directory.passwords[ALICE] = "fake new"  # in the directory, without us
    await site.login("fake new")
    await site.learned()
    assert await site.proves("fake new") is True
    assert await site.proves() is False


async def test_keys_of_a_password_that_the_directory_refuses_end(site: Site) -> None:
    await site.login()
    await site.learned()
    await site.login("fake wrong")
    await site.learned()
    assert await site.proves() is True  # it was another one that was refused
    site.directory.passwords[ALICE] = "fake new"
    assert await site.login() == WRONG
    await site.learned()
    assert await site.proves() is None


async def test_keys_of_a_password_that_comes_and_goes_end_each_time(site: Site) -> None:
    for _ in range(3):
        await site.login()
        await site.learned()
        assert await site.proves() is True
        site.directory.passwords[ALICE] = "fake new"
        await site.login()
        await site.learned()
        assert await site.proves() is None
        site.directory.passwords[ALICE] = "fake secret"


async def test_a_password_that_was_wrong_then_right_then_wrong_again_ends_its_keys(site: Site) -> None:
    await site.login()
    await site.login("fake new")
    await site.learned()
    site.directory.passwords[ALICE] = "fake new"
    await site.login("fake new")
    await site.learned()
    assert await site.proves("fake new") is True
    site.directory.passwords[ALICE] = "fake third"
    await site.login("fake new")
    await site.learned()
    assert await site.proves("fake new") is None


@pytest.mark.parametrize("reason", [Reason.DISABLED, Reason.ACCOUNT_LOCKED, Reason.ACCOUNT_EXPIRED, Reason.NOT_IN_GROUP])
async def test_keys_of_somebody_who_may_not_log_in_end_before_that_is_told(site: Site, reason: Reason) -> None:
    await site.login()
    await site.learned()
    site.directory.failure = Reject(reason)
    assert await site.login() == Reject(reason)
    assert await site.proves() is None


async def test_keys_of_somebody_who_is_no_more_end_before_that_is_told(site: Site) -> None:
    await site.login()
    await site.learned()
    del site.directory.passwords[ALICE]
    assert await site.login() is None
    assert await site.ask(FindKeys(ALICE, ORIGIN, "SHA-1")) is None


@pytest.mark.parametrize(
    "answer", [DOWN, RuntimeError("a bug"), Reject(Reason.BAD_PASSWORD, via="repeat"), Accept(ALICE, via="grace"), Accept(BOB)]
)
async def test_what_the_directory_did_not_say_teaches_nothing(site: Site, answer: Exception | Answer) -> None:
    site.directory.failure = answer
    with suppress(BackendDown, RuntimeError):
        await site.login()
    await site.learned()
    assert await site.proves() is None
    site.directory.failure = None
    await site.login()
    await site.learned()
    site.directory.failure = answer
    for password in ("fake secret", "fake wrong"):
        with suppress(BackendDown, RuntimeError):
            await site.login(password)
    await site.learned()
    assert await site.proves() is True


async def test_keys_end_with_their_time(site: Site) -> None:
    await site.login()
    await site.learned()
    site.time += 30 * DAY - 1
    assert await site.proves() is True
    site.time += 1
    assert await site.proves() is None


async def test_logins_by_password_make_the_time_longer(site: Site) -> None:
    for _ in range(20):
        await site.login()
        await site.learned()
        site.time += 5 * DAY
        assert await site.proves() is True


async def test_a_shorter_life_is_for_keys_that_are_there_too(site: Site) -> None:
    await site.login()
    await site.learned()
    async with site.open(Layers(learn_scram="offer", learn_days=1, learn_iterations=FEW)) as shorter:
        await shorter.login()
        await shorter.learned()
        site.time += DAY
        assert await shorter.proves() is None


async def test_a_password_changed_through_us_is_known_at_once(site: Site) -> None:
    await site.login()
    await site.learned()
    assert await site.ask(SetPassword(ALICE, ORIGIN, Secret("fake new"))) == Accept(ALICE)
    assert not await site.proves()
    await site.learned()
    assert await site.proves() is False
    assert await site.proves("fake new") is True


async def test_a_change_that_was_refused_changes_nothing(site: Site) -> None:
    await site.login()
    await site.learned()
    site.directory.failure = Reject(Reason.PASSWORD_REFUSED)
    await site.ask(SetPassword(ALICE, ORIGIN, Secret("fake new")))
    await site.learned()
    assert await site.proves() is True


async def test_a_change_that_may_have_been_made_ends_the_keys(site: Site) -> None:
    await site.login()
    await site.learned()
    site.directory.failure = DOWN
    with pytest.raises(BackendDown):
        await site.ask(SetPassword(ALICE, ORIGIN, Secret("fake new")))
    assert await site.proves() is None


@pytest.mark.parametrize("change", [SetEnabled(ALICE, ORIGIN, enabled=False), RemoveUser(ALICE, ORIGIN)])
async def test_disabling_and_removing_ends_the_keys(site: Site, change: Request) -> None:
    for identity in (ALICE, BOB):
        await site.login(site.directory.passwords[identity], identity)
    await site.learned()
    assert await site.ask(change) == Accept(ALICE)
    assert await site.proves() is None
    assert await site.proves("fake other", BOB) is True


async def test_a_login_that_began_before_a_change_is_not_learned_after_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived, go_on = trio.Event(), trio.Event()
    judge = site.directory.answer

    def answer(request: Request) -> Any:  # noqa: ANN401
        return hold(request) if isinstance(request, CheckPassword) else judge(request)

    async def hold(request: CheckPassword) -> Answer | None:
        found: Answer | None = await settle(judge(request))
        arrived.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(site.directory, "answer", answer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.login)
        await arrived.wait()
        assert await site.ask(SetPassword(ALICE, ORIGIN, Secret("fake new"))) == Accept(ALICE)
        go_on.set()
    await site.learned()
    assert await site.proves() is False
    assert await site.proves("fake new") is True


async def test_keys_derived_while_the_password_changes_are_not_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    derive = site.context.hashing.run

    async def change(call: Any) -> Any:  # noqa: ANN401
        monkeypatch.setattr(site.context.hashing, "run", derive)
        result = await derive(call)
        site.directory.failure = Reject(Reason.ACCOUNT_LOCKED)
        await site.ask(RemoveUser(ALICE, ORIGIN))
        return result

    monkeypatch.setattr(site.context.hashing, "run", change)
    await site.login()
    await site.learned()
    assert await site.proves() is None


async def test_nothing_is_learned_any_more_from_what_was_asked_before_a_purge(site: Site) -> None:
    await site.login()
    site.layered.outdate(ALICE)
    await site.learned()
    assert await site.proves() is None
    assert not await settle(site.seen.by(ALICE))
    await site.login()
    await site.learned()
    assert await site.proves() is True


# Whose keys -------------------------------------------------------------------------------------------------------------------


async def test_who_has_logged_in_but_has_no_keys_is_told_so(site: Site) -> None:
    await site.login()
    await site.learned()
    site.time += 31 * DAY
    assert await site.ask(FindKeys(ALICE, ORIGIN, "SHA-256")) == Reject(Reason.NO_KEYS)
    assert await site.ask(FindKeys(BOB, ORIGIN, "SHA-256")) is None


async def test_app_passwords_are_candidates_too_and_other_backends_passwords_are_not(site: Site) -> None:
    await site.login()
    await site.learned()
    for credential in ("app:phone", "learned:other"):
        await site.keyring.add(ALICE, credential, f"fake {credential}")
    assert await site.proves() is True
    assert await site.proves("fake app:phone") is True
    assert await site.proves("fake learned:other") is False
    await site.keyring.add(BOB, "app:phone", "fake app:phone")
    assert await site.proves("fake app:phone", BOB) is True  # also of those who have no other keys
    await site.keyring.add(BOB, PASSWORD, "fake account password")
    assert await site.ask(FindKeys(BOB, ORIGIN, "SHA-256")) is None  # another backend's user


async def test_keys_that_others_have_dropped_are_made_again_once_that_is_told(site: Site) -> None:
    for told in (False, True):
        await site.login()
        await site.learned()
        assert await site.proves() is (None if told else True)
        await site.store.write(*dropping_all(ALICE))
    site.layered.forget(ALICE)
    await site.login()
    await site.learned()
    assert await site.proves() is True


async def test_the_share_of_users_with_keys(site: Site) -> None:
    assert await site.layer.share() == {}
    await site.login()
    await site.learned()
    site.time += 20 * DAY
    await site.login("fake other", BOB)
    await site.learned()
    assert await site.layer.share() == {"example.com": Share(2, 2)}
    site.time += 15 * DAY
    assert await site.layer.share() == {"example.com": Share(1, 1)}
    await site.login()
    await site.learned()
    await site.store.write(*dropping_all(BOB))
    assert await site.layer.share() == {"example.com": Share(2, 1)}


# What goes wrong --------------------------------------------------------------------------------------------------------------


async def test_a_store_that_is_away_costs_nobody_a_login(site: Site) -> None:
    site.store.away = True
    assert await site.login() == Accept(ALICE)
    await site.learned()
    site.store.away = False
    assert await site.login() == Accept(ALICE)
    await site.learned()
    assert await site.proves() is True


async def test_keys_that_can_not_be_dropped_are_an_outage(site: Site) -> None:
    await site.login()
    await site.learned()
    site.store.away = True
    site.directory.failure = Reject(Reason.DISABLED)
    with pytest.raises(BackendDown):
        await site.login()


async def test_a_bug_ends_only_one_lesson(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_call: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(site.context.hashing, "run", broken)
        await site.login()
        await site.learned()
    await site.login()
    await site.learned()
    assert await site.proves() is True


async def test_too_many_at_once_are_left_to_their_next_login(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE", 2)
    users = [Identity(f"user{number}", "example.com") for number in range(9)]
    place.directory.passwords |= dict.fromkeys(users, "fake secret")
    async with place.open() as site:
        async with trio.open_nursery() as nursery:
            for user in users:
                nursery.start_soon(site.login, "fake secret", user)
        await site.learned()
        proved = [await site.proves(identity=user) for user in users]
        assert True in proved
        assert None in proved
        for user in users:
            await site.login("fake secret", user)
            await site.learned()
            assert await site.proves(identity=user) is True


async def test_passwords_from_the_cache_do_not_make_the_time_longer(place: Site) -> None:
    async with place.open(Layers(CacheRules(ttl=3600), learn_scram="offer", learn_iterations=FEW)) as site:
        await site.login()
        await site.learned()
        site.time += 20 * DAY
        assert await site.login() == Accept(ALICE, via="cache")
        await site.learned()
        site.time += 10 * DAY
        assert await site.proves() is None


@pytest.mark.parametrize(
    ("handles", "problem"),
    [
        ({UserExists}, "this backend holds no passwords"),
        ({CheckPassword, CheckToken}, "this backend holds no passwords"),
        ({CheckPassword, FindKeys}, "this backend has SCRAM keys already"),
    ],
)
async def test_a_backend_that_it_does_not_fit_is_told(place: Site, handles: set[type[Request]], problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"^backend\.people\.learn_scram: {problem}$"):
        async with place.open(OFFER, FakeBackend(dict.fromkeys(handles))):
            pass


async def test_the_hashes_of_a_backend_are_its_own_unless_keys_are_learned(place: Site) -> None:
    class Partial(FakeBackend):
        hashes = frozenset({"SHA-1"})

    for rules, hashes in ((OFFER, None), (Layers(CacheRules(ttl=5)), {"SHA-1"}), (Layers(), {"SHA-1"})):
        async with surround(Partial({CheckPassword: None}), rules, place.context, place.seen, None) as layered:
            assert layered.hashes == hashes


async def test_what_goes_wrong_around_it_comes_out_as_it_is(place: Site) -> None:
    with pytest.raises(ConfigError):
        async with place.open():
            raise ConfigError(["another backend's"])


@pytest.mark.parametrize("rules", [{"learn_days": 0}, {"learn_iterations": 1000}, {"learn_iterations": 10**7}])
def test_rules_out_of_bounds_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(rules))):
        Layers(**rules)


# Whether the user may still log in --------------------------------------------------------------------------------------------


class Asked(Directory):
    """A directory that tells who may still log in: `still` is what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.still: Answer | Exception | None = Accept(ALICE, {"role": "staff"})
        self.replies[CheckCertificate] = lambda _: self.still
        self.handles = frozenset(self.replies)


async def taught(site: Site) -> Keys:
    """Have alice's password learned, and return the keys."""
    await site.login()
    await site.learned()
    found = await site.ask(FindKeys(ALICE, ORIGIN, "SHA-256"))
    assert isinstance(found, Keys)
    return found


@pytest.mark.parametrize("reason", [Reason.DISABLED, Reason.ACCOUNT_EXPIRED, Reason.ACCOUNT_LOCKED, Reason.NOT_IN_GROUP])
async def test_who_may_not_log_in_any_more_is_told_so_after_the_proof(place: Site, reason: Reason) -> None:
    directory = Asked()
    async with place.open(backend=directory) as site:
        keys = await taught(site)
        assert (keys.refusal, keys.attributes) == (None, {"role": "staff"})
        directory.still = Reject(reason)
        refused = await site.ask(FindKeys(ALICE, ORIGIN, "SHA-256"))
        assert refused == replace(keys, refusal=reason, attributes={})
        directory.still = Accept(ALICE)
        assert await site.proves() is True


@pytest.mark.parametrize("still", [None, Accept(BOB)])
async def test_keys_of_who_is_gone_end_with_the_next_login_by_them(place: Site, still: Answer | None) -> None:
    directory = Asked()
    async with place.open(backend=directory) as site:
        await taught(site)
        directory.still = still
        assert await site.ask(FindKeys(ALICE, ORIGIN, "SHA-256")) is None
        directory.still = Accept(ALICE)
        assert await site.proves() is None


async def test_an_outage_of_the_directory_is_one_of_scram_unless_it_is_not_asked(place: Site) -> None:
    directory = Asked()
    async with place.open(backend=directory) as site:
        await taught(site)
        directory.still = DOWN
        with pytest.raises(BackendDown, match=str(DOWN)):
            await site.proves()
    async with place.open(dataclasses.replace(OFFER, learn_recheck=False), directory) as site:
        assert await site.proves() is True


async def test_grace_of_the_cache_is_also_for_scram(place: Site) -> None:
    directory = Asked()
    async with place.open(dataclasses.replace(OFFER, cache=CacheRules(grace=3600)), directory) as site:
        await taught(site)
        assert await site.proves() is True
        directory.still = DOWN
        assert await site.proves() is True
        site.layered.forget(ALICE)
        with pytest.raises(BackendDown, match=str(DOWN)):
            await site.proves()


async def test_everybody_is_asked_about_alike(place: Site) -> None:
    """Or the time would tell who has learned keys."""
    directory = Asked()
    async with place.open(backend=directory) as site:
        await taught(site)
        directory.asked.clear()
        for identity in (ALICE, BOB, Identity("nobody", "example.com")):
            await site.ask(FindKeys(identity, ORIGIN, "SHA-256"))
        assert [type(request) for request in directory.asked] == [CheckCertificate] * 3
