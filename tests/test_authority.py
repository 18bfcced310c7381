"""Who decides: the rules of a chain, and what surrounds every decision."""

import io
import traceback
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from extauth.errors import BackendDown
from extauth.issuing import EndSessions, IssueTokens, Login
from extauth.journal import Decision
from extauth.model import (
    Accept,
    Anonymous,
    Answer,
    Candidate,
    CheckCertificate,
    CheckPassword,
    CheckToken,
    CreateUser,
    Decoy,
    FindAccount,
    FindHashedTokens,
    FindKeys,
    HashedTokens,
    Identity,
    ImportUser,
    Keys,
    Listing,
    ListUsers,
    Origin,
    Proof,
    Reason,
    Reject,
    RemoveUser,
    Request,
    Secret,
    SetEnabled,
    SetPassword,
    Tokens,
    Unavailable,
    UserExists,
    Verdict,
)
from extauth.soon import settle
from tests.fakes import ALICE, ORIGIN, FakeBackend, Reply, Scene, SlowBackend, check, log_kept

YES = Accept(ALICE)
NO = Reject(Reason.BAD_PASSWORD)
DISABLED = Reject(Reason.DISABLED)
NO_USER = Reject(Reason.NO_USER)
OTHER = Accept(Identity("älice", "example.com"))
DOWN = BackendDown("no route")
DOWN_AT_A = Unavailable(Reason.BACKEND_DOWN, "a: no route")
DOWN_AT_B = Unavailable(Reason.BACKEND_DOWN, "b: no route")
BUG = Unavailable(Reason.BUG)
SECRET = "canary-7c1f"


async def decide(scene: Scene, request: Request) -> Verdict:
    verdict: Verdict = await settle(scene.authority.ask(request))
    scene.journal.flush()
    return verdict


async def last(scene: Scene) -> Decision:
    """Return the one decision that was noted; a failure if it was not one."""
    _, decisions = await scene.journal.tail(0, 0)
    (decision,) = decisions
    counted = [(tuple(outcome), count) for outcome, count in scene.metrics.outcomes()]
    assert counted == [((decision.listener, decision.operation, decision.result, decision.reason), 1)]
    return decision


def backends(kind: type[Request], replies: tuple[Reply, ...], later: str) -> list[FakeBackend]:
    """Return a backend for each reply; `later` says "n" for one that answers now and "l" for one that takes a while."""
    return [FakeBackend({kind: reply}, later=when == "l") for reply, when in zip(replies, later, strict=False)]


# The chain --------------------------------------------------------------------------------------------------------------------

# what the backends say; with on_reject; with on_outage; the verdict; how many were asked; the trail
CHAINS: list[tuple[tuple[Reply, ...], str, str, Verdict, int, str]] = [
    ((), "stop", "stop", NO_USER, 0, ""),
    ((YES,), "stop", "stop", YES, 1, "a:accept"),
    ((NO,), "stop", "stop", NO, 1, "a:bad-password"),
    ((None,), "stop", "stop", NO_USER, 1, "a:unknown"),
    ((None, None), "stop", "stop", NO_USER, 2, "a:unknown,b:unknown"),
    ((None, YES), "stop", "stop", YES, 2, "a:unknown,b:accept"),
    ((YES, NO), "stop", "stop", YES, 1, "a:accept"),
    ((NO, YES), "stop", "stop", NO, 1, "a:bad-password"),
    ((NO, YES), "next", "stop", YES, 2, "a:bad-password,b:accept"),
    ((NO, None), "next", "stop", NO, 2, "a:bad-password,b:unknown"),
    ((NO, DISABLED), "next", "stop", NO, 2, "a:bad-password,b:account-disabled"),
    ((None, NO), "next", "stop", NO, 2, "a:unknown,b:bad-password"),
    ((DOWN, YES), "stop", "stop", DOWN_AT_A, 1, "a:down"),
    ((DOWN, YES), "stop", "next", YES, 2, "a:down,b:accept"),
    ((DOWN, NO), "stop", "next", NO, 2, "a:down,b:bad-password"),
    ((DOWN, NO), "next", "next", DOWN_AT_A, 2, "a:down,b:bad-password"),
    ((DOWN, None), "stop", "next", DOWN_AT_A, 2, "a:down,b:unknown"),
    ((None, DOWN), "stop", "next", DOWN_AT_B, 2, "a:unknown,b:down"),
    ((NO, DOWN), "next", "next", DOWN_AT_B, 2, "a:bad-password,b:down"),
    ((NO, DOWN), "next", "stop", DOWN_AT_B, 2, "a:bad-password,b:down"),
    ((DOWN, DOWN), "stop", "next", DOWN_AT_A, 2, "a:down,b:down"),
    ((None, DOWN), "stop", "stop", DOWN_AT_B, 2, "a:unknown,b:down"),
    ((OTHER,), "stop", "stop", NO_USER, 1, "a:other-name(älice@example.com)"),
    ((OTHER, YES), "stop", "stop", YES, 2, "a:other-name(älice@example.com),b:accept"),
]


@pytest.mark.parametrize("later", ["nn", "nl", "ln", "ll"])
@pytest.mark.parametrize(("replies", "on_reject", "on_outage", "verdict", "asked", "trail"), CHAINS)
@pytest.mark.parametrize("kind", [CheckPassword, CheckToken])
async def test_the_first_who_knows_the_user_decides(
    kind: type[CheckPassword | CheckToken], replies: tuple[Reply, ...], on_reject: str, on_outage: str, verdict: Verdict,
    asked: int, trail: str, later: str,
) -> None:  # fmt: skip
    chain = backends(kind, replies, later)
    scene = Scene(chain, on_reject=on_reject, on_outage=on_outage)  # type: ignore[arg-type]
    assert await decide(scene, kind(ALICE, ORIGIN, Secret("x"))) == verdict
    assert sum(len(backend.asked) for backend in chain) == asked
    decision = await last(scene)
    assert decision.trail == trail
    assert decision.backend == trail.rpartition(",")[2].partition(":")[0]


@pytest.mark.parametrize("later", ["nn", "ll"])
@pytest.mark.parametrize("on_outage", ["stop", "next"])
@pytest.mark.parametrize(
    ("replies", "verdict"),
    [
        ((None, None), NO_USER),
        ((None, YES), YES),
        ((YES, DOWN), YES),
        ((DOWN, YES), YES),
        ((DOWN, None), DOWN_AT_A),
        ((None, DOWN), DOWN_AT_B),
        ((OTHER, None), NO_USER),
        ((NO, YES), YES),
    ],
)
async def test_a_user_exists_if_anybody_says_so(
    replies: tuple[Reply, ...], verdict: Verdict, on_outage: str, later: str
) -> None:
    scene = Scene(backends(UserExists, replies, later), on_outage=on_outage)  # type: ignore[arg-type]
    assert await decide(scene, UserExists(ALICE, ORIGIN)) == verdict


@pytest.mark.parametrize("later", [False, True])
async def test_what_a_backend_of_tokens_can_not_tell_of_is_a_token_and_shown_to_no_directory(later: bool) -> None:  # noqa: FBT001
    tokens = FakeBackend({CheckPassword: BackendDown("no keys"), CheckToken: None}, later=later)
    others = FakeBackend({CheckPassword: YES, CheckToken: YES})
    directory = FakeBackend({CheckPassword: YES})
    scene = Scene([tokens, directory, others], on_outage="next")
    assert await decide(scene, check("a token by its look")) == YES
    assert (len(directory.asked), len(others.asked)) == (0, 1)


async def test_only_those_are_asked_who_handle_the_request() -> None:
    deaf, able = FakeBackend({UserExists: YES}), FakeBackend({CheckPassword: YES})
    assert await decide(Scene([deaf, able]), check()) == YES
    assert deaf.asked == []


async def test_what_can_be_known_at_once_is_answered_at_once() -> None:
    scene = Scene([FakeBackend({CheckPassword: None}), FakeBackend({CheckPassword: YES})])
    assert scene.authority.ask(check()) == YES


KEYS = Keys(ALICE, b"salt", 4096, (Candidate("password", b"s", b"k"),))
TOKENS = HashedTokens(ALICE, (("one", Secret("x")),))


@pytest.mark.parametrize(
    ("request_", "answer"), [(FindKeys(ALICE, ORIGIN, "SHA-256"), KEYS), (FindHashedTokens(ALICE, ORIGIN, "HT"), TOKENS)]
)
async def test_keys_decide_nothing_yet(request_: Request, answer: Answer) -> None:
    scene = Scene([FakeBackend({type(request_): answer})])
    assert await decide(scene, request_) is answer
    assert scene.journal.decided == 0
    assert scene.metrics.outcomes() == []


async def test_an_unknown_user_without_keys_is_not_noted_either() -> None:
    scene = Scene([FakeBackend({FindKeys: None})])
    assert await decide(scene, FindKeys(ALICE, ORIGIN, "SHA-256")) == NO_USER
    assert scene.journal.decided == 0


async def test_an_outage_on_the_way_to_keys_is_noted() -> None:
    scene = Scene([FakeBackend({FindKeys: DOWN})])
    assert await decide(scene, FindKeys(ALICE, ORIGIN, "SHA-256")) == DOWN_AT_A
    assert (await last(scene)).result == "unavailable"


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (FindKeys(ALICE, ORIGIN, "SHA-256"), Keys(Identity("alíce", "example.com"), b"salt", 4096, ())),
        (FindHashedTokens(ALICE, ORIGIN, "HT"), HashedTokens(Identity("alice", "example.org"), ())),
        (CheckToken(Identity("", "example.com"), ORIGIN, Secret("x")), Accept(Identity("alice", "example.org"))),
        (CheckToken(Identity("", "example.com"), ORIGIN, Secret("x")), Accept(Identity("", "example.com"))),
        (CheckCertificate(ALICE, ORIGIN), OTHER),
        (FindAccount(ALICE, ORIGIN), OTHER),
    ],
)
async def test_an_answer_about_somebody_else_is_none(request_: Request, answer: Answer) -> None:
    assert await decide(Scene([FakeBackend({type(request_): answer})]), request_) == NO_USER


async def test_a_token_may_name_the_user() -> None:
    scene = Scene([FakeBackend({CheckToken: YES})])
    assert await decide(scene, CheckToken(Identity("", "example.com"), ORIGIN, Secret("x"))) == YES
    assert (await last(scene)).user == "alice@example.com"


# Unknown users ----------------------------------------------------------------------------------------------------------------


async def test_an_unknown_user_costs_as_much_as_a_wrong_password() -> None:
    chain = [FakeBackend({CheckPassword: None, Decoy: NO_USER}, later=True) for _ in range(2)]
    assert await decide(Scene(chain), check(SECRET)) == NO_USER
    (_, decoy), (only,) = chain[0].asked, chain[1].asked
    assert isinstance(decoy, Decoy)
    assert decoy.password.reveal() == SECRET
    assert isinstance(only, CheckPassword)


@pytest.mark.parametrize("reply", [YES, NO])
async def test_a_known_user_needs_no_decoy(reply: Answer) -> None:
    backend = FakeBackend({CheckPassword: reply, Decoy: NO_USER})
    await decide(Scene([backend], on_reject="next"), check())
    assert [type(request) for request in backend.asked] == [CheckPassword]


async def test_a_decoy_that_cannot_be_spent_is_an_outage() -> None:
    scene = Scene([FakeBackend({CheckPassword: None, Decoy: DOWN})])
    assert await decide(scene, check()) == DOWN_AT_A


@pytest.mark.parametrize("password", ["", " ", "\u00ad", "\0", "right\0"])
async def test_a_blank_password_reaches_no_backend(password: str) -> None:
    backend = FakeBackend({CheckPassword: YES})
    scene = Scene([backend])
    assert await decide(scene, check(password)) == Reject(Reason.MALFORMED)
    assert backend.asked == []
    assert (await last(scene)).reason == "malformed-request"


# Proofs -----------------------------------------------------------------------------------------------------------------------


async def test_a_proof_is_a_decision() -> None:
    scene = Scene([])
    assert await decide(scene, Proof(ALICE, ORIGIN, Reason.OK, "people", "password")) == YES
    decision = await last(scene)
    assert (decision.result, decision.operation, decision.trail) == ("accept", "check-proof", "people:accept(password)")


async def test_a_failed_proof_is_a_refusal() -> None:
    scene = Scene([])
    assert await decide(scene, Proof(ALICE, ORIGIN, Reason.BAD_PASSWORD)) == NO
    assert (await last(scene)).trail == "-:bad-password"


# What goes wrong --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Give what is logged."""
    with log_kept() as text:
        yield text


def crash(request: Request) -> Reply:
    """Fail as a bug does, with the secret at hand."""
    assert isinstance(request, CheckPassword)
    revealed = request.password.reveal()
    return [NO][len(revealed)]


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("on_outage", ["stop", "next"])
async def test_a_bug_is_never_a_yes(log: io.StringIO, on_outage: str, later: bool) -> None:  # noqa: FBT001
    after = FakeBackend({CheckPassword: YES})
    scene = Scene([FakeBackend({CheckPassword: crash}, later=later), after], on_outage=on_outage)  # type: ignore[arg-type]
    assert await decide(scene, check(SECRET)) == BUG
    assert after.asked == []
    assert (await last(scene)).reason == "internal-error"
    assert scene.authority.busy == 0
    logged = log.getvalue()
    assert "IndexError" in logged
    assert "in crash" in logged
    assert "operation=check-password" in logged
    assert "user=alice@example.com" in logged
    assert SECRET not in logged


async def test_a_bug_in_a_change_is_unavailable(log: io.StringIO) -> None:
    scene = Scene([FakeBackend({UserExists: YES, RemoveUser: ZeroDivisionError()})])
    assert await decide(scene, RemoveUser(ALICE, ORIGIN)) == BUG
    assert "ZeroDivisionError" in log.getvalue()


async def test_a_bug_of_the_throttle_is_never_a_yes(log: io.StringIO) -> None:
    class Broken:
        def refuse(self, request: Request) -> Reject | None:
            raise RuntimeError(request.operation)

        def observe(self, request: Request, verdict: Verdict) -> None: ...

    scene = Scene([FakeBackend({CheckPassword: YES})], throttle=Broken())
    assert await decide(scene, check()) == BUG
    assert "RuntimeError: check-password" in log.getvalue()


@pytest.mark.parametrize("request_", [check(), UserExists(ALICE, ORIGIN)])
async def test_a_backend_that_hangs_is_given_up_before_the_peer_does(
    request_: Request, autojump_clock: trio.testing.MockClock
) -> None:
    scene = Scene([SlowBackend({type(request_): YES}, seconds=9.1)])
    assert await decide(scene, request_) == Unavailable(Reason.BACKEND_TIMEOUT)
    assert autojump_clock.current_time() == pytest.approx(9.0)
    decision = await last(scene)
    assert (decision.reason, decision.trail) == ("backend-timeout", "*:timeout")
    assert scene.authority.busy == 0


async def test_the_deadline_is_for_the_whole_chain(autojump_clock: trio.testing.MockClock) -> None:
    scene = Scene([SlowBackend({CheckPassword: None}, seconds=5), SlowBackend({CheckPassword: YES}, seconds=5)])
    assert await decide(scene, check()) == Unavailable(Reason.BACKEND_TIMEOUT)
    assert autojump_clock.current_time() == pytest.approx(9.0)
    assert (await last(scene)).trail == "a:unknown,*:timeout"


async def test_a_hanging_change_is_given_up_too(autojump_clock: trio.testing.MockClock) -> None:
    scene = Scene([SlowBackend({UserExists: YES, RemoveUser: YES}, seconds=5)])
    origin = Origin("front", patience=4.0)
    assert await decide(scene, RemoveUser(ALICE, origin)) == Unavailable(Reason.BACKEND_TIMEOUT)
    assert autojump_clock.current_time() == pytest.approx(3.6)


async def test_who_waits_is_counted(autojump_clock: trio.testing.MockClock) -> None:
    scene = Scene([SlowBackend({CheckPassword: YES}, seconds=5)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(decide, scene, check())
        await trio.sleep(1)
        assert scene.authority.busy == 1
    assert scene.authority.busy == 0
    assert autojump_clock.current_time() == pytest.approx(5)


async def test_a_caller_that_gives_up_leaves_nobody_waiting(autojump_clock: trio.testing.MockClock) -> None:
    scene = Scene([SlowBackend({CheckPassword: YES}, seconds=5)])
    with trio.move_on_after(1):
        await decide(scene, check())
    assert scene.authority.busy == 0
    assert autojump_clock.current_time() == pytest.approx(1)


# Changes ----------------------------------------------------------------------------------------------------------------------


def keeper(exists: Reply, *, later: bool = True) -> FakeBackend:
    """Return a backend that can do every change."""
    changes: tuple[type[Request], ...] = (SetPassword, CreateUser, RemoveUser, SetEnabled)
    return FakeBackend({UserExists: exists, **dict.fromkeys(changes, YES)}, later=later)


def asked(backend: FakeBackend) -> list[type[Request]]:
    return [type(request) for request in backend.asked]


CHANGES = [
    SetPassword(ALICE, ORIGIN, Secret("x")),
    RemoveUser(ALICE, ORIGIN),
    SetEnabled(ALICE, ORIGIN, enabled=False),
]


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_goes_to_who_knows_the_user(change: Request, later: bool) -> None:  # noqa: FBT001
    chain = [keeper(None, later=later), keeper(YES, later=later), keeper(YES, later=later)]
    scene = Scene(chain)
    assert await decide(scene, change) == YES
    assert [asked(backend) for backend in chain] == [[UserExists], [UserExists, type(change)], []]
    decision = await last(scene)
    assert (decision.operation, decision.trail) == (change.operation, "a:unknown,b:done")


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_for_nobody_is_refused(change: Request) -> None:
    chain = [keeper(None), keeper(OTHER)]
    assert await decide(Scene(chain), change) == NO_USER
    assert [asked(backend) for backend in chain] == [[UserExists], [UserExists]]


async def test_a_change_that_its_backend_cannot_do_is_refused() -> None:
    chain = [FakeBackend({UserExists: YES}), keeper(YES)]
    assert await decide(Scene(chain), SetPassword(ALICE, ORIGIN, Secret("x"))) == Reject(Reason.NOT_SUPPORTED)
    assert asked(chain[1]) == []


@pytest.mark.parametrize("change", [*CHANGES, CreateUser(ALICE, ORIGIN, Secret("x"))])
@pytest.mark.parametrize("on_outage", ["stop", "next"])
async def test_nothing_is_changed_while_somebody_cannot_tell(change: Request, on_outage: str) -> None:
    chain = [FakeBackend({UserExists: DOWN}), keeper(None)]
    scene = Scene(chain, on_outage=on_outage)  # type: ignore[arg-type]
    assert await decide(scene, change) == DOWN_AT_A
    assert asked(chain[1]) == []
    assert (await last(scene)).trail == "a:down"


@pytest.mark.parametrize(
    ("reply", "verdict", "word"),
    [
        (Reject(Reason.PASSWORD_TOO_SHORT), Reject(Reason.PASSWORD_TOO_SHORT), "password-too-short"),
        (None, NO_USER, "unknown"),
        (DOWN, DOWN_AT_A, "down"),
    ],
)
async def test_what_becomes_of_a_change_is_told(reply: Reply, verdict: Verdict, word: str) -> None:
    scene = Scene([FakeBackend({UserExists: YES, SetPassword: reply})])
    assert await decide(scene, SetPassword(ALICE, ORIGIN, Secret("x"))) == verdict
    assert (await last(scene)).trail == f"a:{word}"


async def test_a_new_user_goes_to_the_first_who_can() -> None:
    chain = [FakeBackend({UserExists: None}), keeper(None), keeper(None)]
    assert await decide(Scene(chain), CreateUser(ALICE, ORIGIN, Secret("x"))) == YES
    assert [asked(backend) for backend in chain] == [[UserExists], [UserExists, CreateUser], [UserExists]]


async def test_a_name_that_anybody_knows_is_taken() -> None:
    chain = [keeper(None), FakeBackend({UserExists: YES})]
    scene = Scene(chain)
    assert await decide(scene, CreateUser(ALICE, ORIGIN, Secret("x"))) == Reject(Reason.USER_EXISTS)
    assert asked(chain[0]) == [UserExists]
    assert (await last(scene)).trail == "a:unknown,b:exists"


async def test_an_imported_user_goes_to_the_first_who_can_and_takes_nobodys_name() -> None:
    given = ImportUser(ALICE, ORIGIN, 4096, ())
    over = replace(given, replace=True)
    fresh, taken = FakeBackend({UserExists: None, ImportUser: YES}), FakeBackend({UserExists: YES, ImportUser: YES})
    assert await decide(Scene([FakeBackend({UserExists: None}), fresh]), given) == YES
    assert await decide(Scene([fresh, taken]), given) == Reject(Reason.USER_EXISTS)
    assert asked(taken) == [UserExists]
    assert await decide(Scene([fresh, taken]), over) == YES
    assert asked(fresh).count(ImportUser) == 1
    assert asked(taken)[-1] is ImportUser
    # What another kind of backend knows is not replaced.
    assert await decide(Scene([FakeBackend({UserExists: YES}), fresh]), over) == Reject(Reason.NOT_SUPPORTED)


async def test_nobody_may_be_able_to_make_users() -> None:
    scene = Scene([FakeBackend({UserExists: None})])
    assert await decide(scene, CreateUser(ALICE, ORIGIN, Secret("x"))) == Reject(Reason.NOT_SUPPORTED)


# Strangers --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("anonymous", "verdict"), [(False, Reject(Reason.NOT_ALLOWED)), (True, YES)])
async def test_strangers_come_in_only_where_they_may(anonymous: bool, verdict: Verdict) -> None:  # noqa: FBT001
    backend = keeper(YES)
    scene = Scene([backend], anonymous=anonymous)
    assert await decide(scene, Anonymous(ALICE, ORIGIN, "my\ntrace")) == verdict
    assert backend.asked == []
    assert (await last(scene)).trail == "anonymous:my\\x0atrace"


# Lists ------------------------------------------------------------------------------------------------------------------------


def listing(*users: str, note: str = "") -> Listing:
    return Listing(tuple(Accept(Identity(user, "example.com"), {"note": note}) for user in users))


async def users(*replies: Reply, limit: int = 10) -> tuple[list[tuple[str, str]] | Verdict, str]:
    scene = Scene(backends(ListUsers, replies, "nln"))
    verdict = await decide(scene, ListUsers(Identity("", "example.com"), ORIGIN, limit))
    found = [(account.identity.user, account.attributes["note"]) for account in getattr(verdict, "accounts", ())]
    return found if isinstance(verdict, Listing) else verdict, (await last(scene)).trail


async def test_lists_are_merged_in_order_and_the_first_backend_describes() -> None:
    found, trail = await users(listing("bob", "dora", note="a"), listing("alice", "bob", note="b"), None)
    assert found == [("alice", "b"), ("bob", "a"), ("dora", "a")]
    assert trail == "a:listing,b:listing"


async def test_a_list_has_at_most_limit_users() -> None:
    found, _ = await users(listing("c", "d"), listing("a", "b"), limit=3)
    assert found == [("a", ""), ("b", ""), ("c", "")]


async def test_a_list_without_a_part_is_none() -> None:
    assert await users(listing("alice"), DOWN) == (DOWN_AT_B, "a:listing,b:down")


async def test_a_backend_without_a_list_has_no_users() -> None:
    scene = Scene([FakeBackend({UserExists: YES})])
    assert await decide(scene, ListUsers(Identity("", "example.com"), ORIGIN)) == Listing(())


# Throttle ---------------------------------------------------------------------------------------------------------------------


class Noting:
    """Refuses as told, and notes what it is told."""

    def __init__(self, refusal: Reject | None = None) -> None:
        self.refusal = refusal
        self.seen: list[tuple[str, Verdict]] = []

    def refuse(self, request: Request) -> Reject | None:
        """Refuse as told."""
        assert request.identity == ALICE
        return self.refusal

    def observe(self, request: Request, verdict: Verdict) -> None:
        """Note how it ended."""
        self.seen.append((request.operation, verdict))


@pytest.mark.parametrize(
    "request_", [check(), UserExists(ALICE, ORIGIN), RemoveUser(ALICE, ORIGIN), Proof(ALICE, ORIGIN, Reason.OK)]
)
async def test_what_is_throttled_reaches_no_backend(request_: Request) -> None:
    limited = Reject(Reason.RATE_LIMITED)
    backend = FakeBackend({CheckPassword: YES, UserExists: YES, RemoveUser: YES})
    scene = Scene([backend], throttle=Noting(limited))
    assert scene.authority.ask(request_) == limited
    scene.journal.flush()
    assert backend.asked == []
    assert (await last(scene)).reason == "rate-limited"


@pytest.mark.parametrize("later", [False, True])
async def test_the_throttle_hears_how_it_ended(later: bool) -> None:  # noqa: FBT001
    throttle = Noting()
    await decide(Scene([FakeBackend({CheckPassword: NO}, later=later)], throttle=throttle), check())
    assert throttle.seen == [("check-password", NO)]


# What is noted ----------------------------------------------------------------------------------------------------------------


async def test_a_decision_tells_where_it_came_from() -> None:
    scene = Scene([FakeBackend({CheckPassword: YES})])
    await decide(scene, check())
    d = await last(scene)
    assert (d.operation, d.user, d.result, d.reason, d.backend) == ("check-password", "alice@example.com", "accept", "ok", "a")
    assert (d.listener, d.peer, d.client, d.mechanism) == ("front", "uid:1/pid:2", "192.0.2.1", "PLAIN")
    assert 0 <= d.ms < 10_000


async def test_an_outage_is_described() -> None:
    scene = Scene([FakeBackend({CheckPassword: DOWN})])
    await decide(scene, check())
    decision = await last(scene)
    assert (decision.result, decision.reason, decision.detail) == ("unavailable", "backend-down", "a: no route")


async def test_another_name_cannot_forge_the_trail() -> None:
    forged = Accept(Identity("x) reason=ok\naudit", "example.com"))
    scene = Scene([FakeBackend({CheckPassword: forged})])
    await decide(scene, check())
    assert (await last(scene)).trail == "a:other-name(x)\\x20reason\\x3dok\\x0aaudit@example.com)"


async def test_the_secret_of_a_request_is_not_shown() -> None:
    request = check(SECRET)
    assert SECRET not in repr(request)
    assert SECRET not in f"{request.password} {request.password!r}"
    try:
        assert_never_equal(request.password)
    except TypeError:
        assert SECRET not in traceback.format_exc()


def assert_never_equal(secret: Secret) -> None:
    assert secret == secret.reveal()


# What changes of an account do to its sessions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "cause"),
    [
        (SetPassword(ALICE, ORIGIN, Secret("fake")), "password"),
        (SetEnabled(ALICE, ORIGIN, enabled=False), "disabled"),
        (ImportUser(ALICE, ORIGIN, 4096, (), replace=True), "password"),
        (RemoveUser(ALICE, ORIGIN), "removed"),
        (SetEnabled(ALICE, ORIGIN, enabled=True), None),
    ],
)
async def test_a_change_that_voids_credentials_ends_sessions_before_it_is_acknowledged(
    request_: Request, cause: str | None
) -> None:
    yes = Accept(ALICE)
    for done in (yes, Reject(Reason.PASSWORD_TOO_SHORT)):
        accounts = FakeBackend({UserExists: yes, SetPassword: done, SetEnabled: done, RemoveUser: done, ImportUser: done})
        keepers = [FakeBackend({EndSessions: yes}), FakeBackend({EndSessions: yes})]
        assert await decide(Scene([keepers[0], accounts, keepers[1]]), request_) == done
        expected = [EndSessions(ALICE, ORIGIN, cause)] if cause and done is yes else []
        assert [keeper.asked for keeper in keepers] == [expected, expected]
    down = FakeBackend({EndSessions: BackendDown("away")})
    accounts = FakeBackend({UserExists: yes, SetPassword: yes, SetEnabled: yes, RemoveUser: yes, ImportUser: yes})
    assert await decide(Scene([down, accounts]), request_) == (Unavailable(Reason.BACKEND_DOWN, "a: away") if cause else yes)


async def test_requests_about_tokens_go_to_who_keeps_them() -> None:
    accounts = FakeBackend({UserExists: Accept(ALICE)})
    tokens = Tokens(ALICE, {"access": Secret("fake")})
    keeper = FakeBackend({IssueTokens: tokens})
    request = IssueTokens(ALICE, ORIGIN, Login(0, "f", primary=True))
    scene = Scene([accounts, keeper])
    assert await decide(scene, request) is tokens
    assert scene.metrics.decisions["front", "issue-tokens", "accept", "ok"] == 1
    assert await decide(Scene([accounts]), request) == Reject(Reason.NOT_SUPPORTED)
