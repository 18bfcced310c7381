"""What is remembered of passwords: never an outage, never a refusal as a yes, nobody's as somebody else's."""

from collections.abc import Callable
from itertools import count

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from extauth.errors import BackendDown
from extauth.journal import Decision
from extauth.layers.cache import Caching, Remembered
from extauth.layers.memory import Memory, fingerprint, framed
from extauth.layers.rules import CacheRules
from extauth.model import (
    Accept,
    Answer,
    CheckCertificate,
    CheckPassword,
    CreateUser,
    Decoy,
    Identity,
    Origin,
    Reason,
    Reject,
    RemoveUser,
    Request,
    Secret,
    SetEnabled,
    SetPassword,
    Unavailable,
    UserExists,
    Verdict,
)
from extauth.soon import settle
from tests.fakes import ALICE, ORIGIN, FakeBackend, Scene, SlowBackend, check

BOB = Identity("bob", "example.com")
ELSEWHERE = Identity("alice", "example.org")
PASSWORDS = {ALICE: {"fake secret", "fake phone"}, BOB: {"fake secret"}}
DOWN = BackendDown("no route")
WRONG = Reject(Reason.BAD_PASSWORD)


def judge(request: Request) -> Answer | None:
    """Compare with PASSWORDS."""
    assert isinstance(request, CheckPassword)
    known = PASSWORDS.get(request.identity)
    if known is None:
        return None
    return Accept(request.identity, {"role": "staff"}) if request.password.reveal() in known else WRONG


class Site:
    """A chain of one backend with a cache, and what was asked of the backend."""

    def __init__(self, rules: CacheRules, backend: FakeBackend | None = None) -> None:
        self.backend = backend or FakeBackend(
            {CheckPassword: judge, CheckCertificate: None, Decoy: Reject(Reason.NO_USER)}, later=True
        )
        self.remembered = Remembered(rules.entries)
        self.caching = Caching("a", self.backend, rules, self.remembered)
        self.scene = Scene([self.caching])

    def reply(self, reply: Answer | Exception | Callable[[Request], Answer | None] | None) -> None:
        self.backend.replies[CheckPassword] = reply

    async def ask(self, request: Request) -> Verdict:
        verdict: Verdict = await settle(self.scene.authority.ask(request))
        return verdict

    async def login(self, password: str = "fake secret", identity: Identity = ALICE, origin: Origin = ORIGIN) -> Verdict:
        return await self.ask(check(password, identity, origin))

    @property
    def asked(self) -> int:
        """How often the backend was asked for a password since the last time."""
        asked = sum(isinstance(request, CheckPassword) for request in self.backend.asked)
        self.backend.asked.clear()
        return asked

    async def trail(self) -> str:
        await trio.testing.wait_all_tasks_blocked()  # the journal writes at the end of a pass
        decisions: list[Decision] = (await self.scene.journal.tail(0, 0))[1]
        return decisions[-1].trail


# Accepted passwords -----------------------------------------------------------------------------------------------------------


async def test_an_accepted_password_is_accepted_again_for_its_time(autojump_clock: trio.abc.Clock) -> None:
    site = Site(CacheRules(ttl=60))
    fresh, remembered = (1, "a:accept"), (0, "a:accept(cache)")
    for passed, expected in ((0, fresh), (59, remembered), (2, fresh), (59, remembered)):
        await trio.sleep(passed)
        verdict = await site.login()
        assert isinstance(verdict, Accept)
        assert (verdict.identity, verdict.attributes) == (ALICE, {"role": "staff"})
        assert (site.asked, await site.trail()) == expected


async def test_another_password_is_not_taken_for_it() -> None:
    site = Site(CacheRules(ttl=60))
    await site.login()
    assert await site.login("fake Secret") == WRONG
    assert await site.login("fake secret ") == WRONG
    assert site.asked == 3
    assert await site.trail() == "a:bad-password"


@pytest.mark.parametrize(
    ("identity", "origin"),
    [(BOB, ORIGIN), (ELSEWHERE, ORIGIN), (ALICE, Origin("front", mechanism="LOGIN"))],
)
async def test_it_is_one_users_by_one_mechanism(identity: Identity, origin: Origin) -> None:
    site = Site(CacheRules(ttl=60))
    await site.login()
    assert site.asked == 1
    verdict = await site.login("fake secret", identity, origin)
    assert site.asked == 1
    assert isinstance(verdict, Accept) is (identity != ELSEWHERE)
    assert not isinstance(verdict, Accept) or verdict.identity == identity


async def test_users_with_one_password_at_the_same_time_stay_themselves() -> None:
    site = Site(CacheRules(ttl=60))

    async def one(identity: Identity) -> None:
        for _ in range(20):
            verdict = await site.login("fake secret", identity)
            assert isinstance(verdict, Accept)
            assert verdict.identity == identity

    async with trio.open_nursery() as nursery:
        for identity in (ALICE, BOB) * 3:
            nursery.start_soon(one, identity)
    assert isinstance(await site.login("fake secret", ELSEWHERE), Reject)


async def test_two_passwords_of_a_user_do_not_disturb_each_other() -> None:
    site = Site(CacheRules(ttl=60))
    for asked in (1, 0, 0):
        for password in ("fake secret", "fake phone"):
            assert isinstance(await site.login(password), Accept)
            assert site.asked == asked
    assert await site.login("fake wrong") == WRONG
    assert isinstance(await site.login("fake phone"), Accept)
    assert site.asked == 1  # the wrong one


async def test_who_logs_in_without_a_password_is_remembered_apart(autojump_clock: trio.abc.Clock) -> None:
    site = Site(CacheRules(ttl=60, grace=3600, repeats=60))
    site.backend.replies[CheckCertificate] = Accept(ALICE)
    certificate = CheckCertificate(ALICE, ORIGIN)
    trails: list[str] = []
    for passed in (0, 59, 2):
        await trio.sleep(passed)
        assert isinstance(await site.ask(certificate), Accept)
        trails.append(await site.trail())
    assert trails == ["a:accept", "a:accept(cache)", "a:accept"]
    await site.login()
    assert site.asked == 1
    await trio.sleep(61)
    site.backend.replies[CheckCertificate] = DOWN
    assert isinstance(await site.ask(certificate), Accept)
    assert await site.trail() == "a:accept(grace)"
    site.backend.replies[CheckCertificate] = None
    for _ in range(2):  # only passwords are refused without asking
        assert await site.ask(certificate) == Reject(Reason.NO_USER)
        assert await site.trail() == "a:unknown"
    site.backend.replies[CheckCertificate] = DOWN
    assert isinstance(await site.ask(certificate), Unavailable)


async def test_who_may_not_log_in_by_certificate_may_not_by_a_remembered_password() -> None:
    site = Site(CacheRules(ttl=60))
    await site.login()
    site.backend.replies[CheckCertificate] = Reject(Reason.DISABLED)
    assert await site.ask(CheckCertificate(ALICE, ORIGIN)) == Reject(Reason.DISABLED)
    site.reply(Reject(Reason.DISABLED))
    assert await site.login() == Reject(Reason.DISABLED)


async def test_a_token_with_the_answer_is_given_once() -> None:
    site = Site(CacheRules(ttl=60, grace=60))
    site.reply(Accept(ALICE, payload=Secret("fake next token")))
    await site.login()
    await site.login()
    assert site.asked == 2


async def test_what_is_about_somebody_else_is_no_yes_the_second_time_either() -> None:
    site = Site(CacheRules(ttl=60))
    site.reply(Accept(BOB))
    for _ in range(2):
        assert await site.login() == Reject(Reason.NO_USER)


# Outages ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [CacheRules(ttl=60), CacheRules(repeats=60), CacheRules(ttl=60, repeats=60, grace=60)])
async def test_an_outage_is_not_remembered(rules: CacheRules) -> None:
    site = Site(rules)
    for failure in (DOWN, RuntimeError("a bug")):
        site.reply(failure)
        assert isinstance(await site.login(), Unavailable)
        assert isinstance(await site.login("fake wrong"), Unavailable)
    assert len(site.remembered) == 0
    site.reply(judge)
    assert isinstance(await site.login(), Accept)
    assert await site.login("fake wrong") == WRONG


async def test_grace_keeps_known_good_logins_alive(autojump_clock: trio.abc.Clock) -> None:
    site = Site(CacheRules(ttl=10, grace=100))
    await site.login()
    site.reply(DOWN)
    for seconds, trail in ((5, "a:accept(cache)"), (50, "a:accept(grace)"), (44, "a:accept(grace)")):
        await trio.sleep(seconds)
        assert isinstance(await site.login(), Accept)
        assert await site.trail() == trail
    assert isinstance(await site.login("fake phone"), Unavailable)  # not known to be good
    assert isinstance(await site.login("fake secret", BOB), Unavailable)
    await trio.sleep(2)
    assert isinstance(await site.login(), Unavailable)  # logins by grace do not make it longer
    site.reply(judge)
    assert isinstance(await site.login(), Accept)


async def test_grace_is_in_time_if_the_backend_says_nothing(autojump_clock: trio.abc.Clock) -> None:
    slow = SlowBackend({CheckPassword: judge}, seconds=1)
    site = Site(CacheRules(grace=100), slow)
    await site.login()
    slow.seconds = 1000
    began = trio.current_time()
    assert isinstance(await site.login(), Accept)
    assert trio.current_time() - began < ORIGIN.patience * 0.9
    assert await site.trail() == "a:accept(grace)"
    verdict = await site.login("fake phone")
    assert verdict == Unavailable(Reason.BACKEND_TIMEOUT)


@pytest.mark.parametrize("answer", [WRONG, Reject(Reason.DISABLED), None])
async def test_who_has_been_refused_has_no_grace(answer: Answer | None) -> None:
    site = Site(CacheRules(grace=100))
    await site.login()
    site.reply(answer)
    assert isinstance(await site.login(), Reject)
    site.reply(DOWN)
    assert isinstance(await site.login(), Unavailable)


@pytest.mark.parametrize("answer", [Reject(Reason.ACCOUNT_LOCKED), None])
async def test_a_user_who_may_not_log_in_may_not_by_another_password_either(answer: Answer | None) -> None:
    site = Site(CacheRules(ttl=100, grace=100))
    await site.login("fake phone")
    site.reply(answer)
    assert isinstance(await site.login(), Reject)
    assert isinstance(await site.login("fake phone"), Reject)


# Changes ----------------------------------------------------------------------------------------------------------------------

CHANGES = [
    SetPassword(ALICE, ORIGIN, Secret("fake new")),
    SetEnabled(ALICE, ORIGIN, enabled=False),
    RemoveUser(ALICE, ORIGIN),
    CreateUser(ALICE, ORIGIN, Secret("fake new")),
]


def changeable(change: Request, later: Callable[[], None] = lambda: None) -> FakeBackend:
    """Return a backend that refuses the old password once it has made the change."""
    changed: list[Request] = []

    def make(request: Request) -> Answer:
        later()
        changed.append(request)
        return Accept(request.identity)

    def judge_now(request: Request) -> Answer | None:
        assert isinstance(request, CheckPassword)
        return WRONG if changed and request.identity == ALICE else judge(request)

    exists = None if isinstance(change, CreateUser) else Accept(ALICE)
    return FakeBackend({type(change): make, CheckPassword: judge_now, UserExists: exists}, later=True)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.operation)
async def test_a_change_takes_effect_at_once(change: Request) -> None:
    site = Site(CacheRules(ttl=60, grace=60, repeats=60), changeable(change))
    assert isinstance(await site.login(), Accept)
    assert isinstance(await site.login("fake secret", BOB), Accept)
    assert isinstance(await site.ask(change), Accept)
    assert await site.login() == WRONG
    site.reply(DOWN)
    assert isinstance(await site.login("fake phone"), Unavailable)
    assert isinstance(await site.login("fake secret", BOB), Accept)
    assert await site.trail() == "a:accept(cache)"  # others are not concerned


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.operation)
async def test_a_change_that_may_have_been_made_takes_effect(change: Request) -> None:
    def fail() -> None:
        raise DOWN

    site = Site(CacheRules(ttl=60), changeable(change, fail))
    await site.login()
    assert isinstance(await site.ask(change), Unavailable)
    assert site.asked == 1
    await site.login()
    assert site.asked == 1


async def test_a_login_that_began_before_a_change_is_not_remembered_after_it(autojump_clock: trio.abc.Clock) -> None:
    site = Site(CacheRules(ttl=60, grace=60, repeats=60), SlowBackend({CheckPassword: judge}, seconds=5))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.login)
        nursery.start_soon(site.login, "fake wrong")
        await trio.sleep(1)
        site.remembered.forget(ALICE)
    assert len(site.remembered) == 0


# Repeats ----------------------------------------------------------------------------------------------------------------------


async def test_a_refused_password_is_not_forwarded_again(autojump_clock: trio.abc.Clock) -> None:
    site = Site(CacheRules(repeats=60))
    assert await site.login("fake stale") == WRONG
    assert site.asked == 1
    for _ in range(5):
        await trio.sleep(10)
        verdict = await site.login("fake stale")
        assert isinstance(verdict, Reject)
        assert verdict.reason is Reason.BAD_PASSWORD
        assert [type(request) for request in site.backend.asked] == [Decoy]  # it takes as long as for a stranger
        assert await site.trail() == "a:bad-password(repeat)"
        assert site.asked == 0
    assert await site.login("fake other") == WRONG
    assert isinstance(await site.login(), Accept)
    assert site.asked == 2
    await trio.sleep(11)
    assert await site.login("fake stale") == WRONG
    assert site.asked == 1


async def test_of_two_answers_to_one_password_the_later_counts(autojump_clock: trio.abc.Clock) -> None:
    slow = SlowBackend({CheckPassword: WRONG}, seconds=2)
    site = Site(CacheRules(repeats=60), slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.login)
        await trio.sleep(1)
        nursery.start_soon(site.login)
        await trio.sleep(1.5)
        site.reply(judge)
    assert isinstance(await site.login(), Accept)


async def test_a_repeat_in_an_outage_is_an_outage() -> None:
    site = Site(CacheRules(repeats=60))
    await site.login("fake stale")
    site.backend.replies[Decoy] = DOWN
    assert isinstance(await site.login("fake stale"), Unavailable)


async def test_a_backend_without_decoys_answers_repeats_at_once() -> None:
    site = Site(CacheRules(repeats=60), FakeBackend({CheckPassword: judge}))
    for asked in (1, 0):
        verdict = await site.login("fake stale")
        assert isinstance(verdict, Reject)
        assert site.asked == asked


async def test_a_stranger_is_not_asked_for_again() -> None:
    site = Site(CacheRules(repeats=60))
    for asked in (1, 0):
        assert await site.login("fake secret", ELSEWHERE) == Reject(Reason.NO_USER)
        assert [type(request) for request in site.backend.asked if isinstance(request, Decoy)] == [Decoy]
        assert site.asked == asked


@pytest.mark.parametrize("reason", [Reason.ACCOUNT_LOCKED, Reason.DISABLED, Reason.CREDENTIALS_EXPIRED, Reason.NOT_IN_GROUP])
async def test_what_an_administrator_may_mend_is_asked_again(reason: Reason) -> None:
    site = Site(CacheRules(repeats=60))
    site.reply(Reject(reason))
    for _ in range(2):
        assert await site.login() == Reject(reason)
        assert site.asked == 1


async def test_a_new_password_that_had_been_refused_is_accepted_at_once() -> None:
    passwords = {"fake old"}

    def judge_now(request: Request) -> Answer:
        assert isinstance(request, CheckPassword)
        return Accept(ALICE) if request.password.reveal() in passwords else WRONG

    def change(request: Request) -> Answer:
        assert isinstance(request, SetPassword)
        passwords.clear()
        passwords.add(request.password.reveal())
        return Accept(ALICE)

    site = Site(CacheRules(repeats=60), FakeBackend({CheckPassword: judge_now, SetPassword: change, UserExists: Accept(ALICE)}))
    assert await site.login("fake new") == WRONG
    await site.ask(SetPassword(ALICE, ORIGIN, Secret("fake new")))
    assert isinstance(await site.login("fake new"), Accept)


# The memory itself ------------------------------------------------------------------------------------------------------------


async def test_the_oldest_goes_first() -> None:
    site = Site(CacheRules(ttl=60, entries=2))
    users = [Identity(f"user{number}", "example.com") for number in range(3)]
    site.reply(lambda request: Accept(request.identity))
    for user in (*users[:2], users[0], users[2]):
        await site.login("fake secret", user)
    assert len(site.remembered) == 2
    assert site.asked == 3
    for user, asked in zip(reversed(users), (0, 0, 1), strict=True):
        await site.login("fake secret", user)
        assert site.asked == asked


@pytest.mark.parametrize(
    ("mask", "gone"), [("*", 3), ("*@example.com", 2), ("alice@example.com", 1), ("alice@*", 2), ("alice", 0), ("*.com", 2)]
)
async def test_a_mask_says_who_is_forgotten(mask: str, gone: int) -> None:
    site = Site(CacheRules(ttl=60, repeats=60))
    site.reply(lambda request: Accept(request.identity))
    for user in (ALICE, BOB, ELSEWHERE):
        await site.login("fake secret", user)
    assert site.remembered.forget_matching(mask) == gone
    assert len(site.remembered) == 3 - gone


parts = st.tuples(*[st.text(st.characters(exclude_categories=[])) for _ in range(5)])


@given(parts, parts)
def test_different_logins_have_different_prints(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert (framed(*one) == framed(*other)) is (one == other)
    assert (fingerprint(*one) == fingerprint(*other)) is (one == other)


@given(parts, st.integers(0, 4), st.integers(0, 5))
def test_what_moves_from_one_part_to_the_next_makes_a_difference(one: tuple[str, ...], index: int, size: int) -> None:
    moved = list(one)
    following = (index + 1) % 5
    moved[index], moved[following] = moved[index][:size], moved[index][size:] + moved[following]
    assert (framed(*moved) == framed(*one)) is (tuple(moved) == one)


def test_no_password_is_in_a_print() -> None:
    assert b"canary" not in fingerprint("example.com", "alice", "a", "PLAIN", "canary-51c0ffee")


@given(
    st.lists(st.tuples(st.sampled_from("ppppdfm"), st.integers(0, 5), st.integers(0, 3)), min_size=5, max_size=60),
    st.integers(1, 4),
)
def test_a_memory_is_what_a_plain_dict_would_be(steps: list[tuple[str, int, int]], size: int) -> None:
    memory: Memory[int] = Memory(size)
    model: dict[bytes, tuple[Identity, int]] = {}
    numbers = count()
    for what, key, who in steps:
        print_, identity = bytes([key]), Identity(f"user{who}", "example.com")
        match what:
            case "p":
                thing = next(numbers)
                memory.put(print_, identity, thing)
                model.pop(print_, None)
                if len(model) == size:
                    del model[next(iter(model))]
                model[print_] = (identity, thing)
            case "d":
                memory.drop(print_)
                model.pop(print_, None)
            case _:
                gone = [key for key, (user, _) in model.items() if user == identity]
                assert (memory.forget(identity) if what == "f" else memory.forget_matching(str(identity))) == len(gone)
                for key_ in gone:
                    del model[key_]
        assert len(memory) == len(model)
        assert {key: memory.get(bytes([key])) for key in range(6)} == {
            key: model[bytes([key])][1] if bytes([key]) in model else None for key in range(6)
        }
    assert set(memory._users) == {user for user, _ in model.values()}  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("rules", [{"ttl": -1}, {"ttl": 90_000}, {"grace": 700_000}, {"repeats": 4000}, {"entries": 0}])
def test_rules_out_of_bounds_are_refused(rules: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(rules))):
        CacheRules(**rules)
