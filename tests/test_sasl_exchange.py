"""The exchange itself: turns, ends, clean-up, other people's mechanisms."""

import gc
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from extauth.errors import ConfigError
from extauth.model import (
    Accept,
    CheckPassword,
    CheckToken,
    Identity,
    Listing,
    Reason,
    Reject,
    Request,
    Secret,
    Unavailable,
    UserExists,
    Verdict,
)
from extauth.sasl import registry
from extauth.sasl.exchange import MAX_MESSAGE, TURNS, Challenge, Condition, Exchange, Failure, Success, Turn
from extauth.sasl.mechanism import Mechanism, Session, Talk, outcome
from extauth.soon import Soon, settle
from tests.mechanisms import x_three_rounds
from tests.sasl import DOMAIN, MECHANISMS, STREAM, Client, People, is_malformed, is_refused

CUSTOM = registry.find(["tests.mechanisms.x_my_mechanism", "tests.mechanisms.x_three_rounds"])
USER = Identity("user", DOMAIN)
PLAIN = b"\0user\0pencil"

Run = Callable[[Session, bytes], Talk[Success | Failure]]


def of(run: Run) -> Mapping[str, Mechanism]:
    return {"X": Mechanism(name="X", run=run, needs=CheckPassword, priority=1, client_first=False)}


def always(verdict: Verdict) -> Callable[[Request], Verdict]:
    return lambda _: verdict


def slowly(verdict: Verdict) -> Callable[[Request], Awaitable[Verdict]]:
    async def decide(_: Request) -> Verdict:
        await trio.lowlevel.checkpoint()
        return verdict

    return decide


def test_a_challenge_is_answered_by_the_client_and_a_request_by_the_court() -> None:
    client = Client("PLAIN")
    assert client.begin(None) == Challenge(b"")
    assert client.people.asked == []
    assert client.respond(PLAIN) == Success(USER, None, {"role": "member"})
    assert client.exchange.over
    (request,) = client.people.asked
    assert isinstance(request, CheckPassword)
    assert (request.identity, request.password.reveal()) == (USER, "pencil")
    assert (request.origin.mechanism, request.origin.client) == ("PLAIN", "192.0.2.1")


async def test_a_verdict_may_take_its_time() -> None:
    client = Client("PLAIN", decide=slowly(Accept(USER)))
    turn = client.exchange.begin(PLAIN)
    assert not isinstance(turn, TURNS)
    assert await turn == Success(USER)
    client = Client("PLAIN", decide=slowly(Unavailable(Reason.BACKEND_DOWN)))
    turn = client.exchange.begin(PLAIN)
    assert isinstance(await settle(turn), Failure)
    assert [failure.reason for failure in client.court.failures] == [Reason.BACKEND_DOWN]


async def test_a_verdict_that_comes_after_the_end_changes_nothing() -> None:
    client = Client("PLAIN", decide=slowly(Accept(USER)))
    turn = client.exchange.begin(PLAIN)
    client.exchange.abort()
    assert is_refused(await settle(turn), "aborted", Reason.ABORTED)
    assert len(client.court.failures) == 1


async def test_a_message_while_the_court_decides_ends_the_exchange() -> None:
    client = Client("PLAIN", decide=slowly(Accept(USER)))
    turn = client.exchange.begin(PLAIN)
    assert is_malformed(client.respond(PLAIN))
    assert is_refused(await settle(turn), "aborted", Reason.ABORTED)


def test_an_outage_is_no_refusal() -> None:
    failure = Client("PLAIN", decide=always(Unavailable(Reason.BACKEND_TIMEOUT, "ldap: slow"))).begin(PLAIN)
    assert failure == Failure("temporary-auth-failure", Reason.BACKEND_TIMEOUT, temporary=True, text="ldap: slow")


@pytest.mark.parametrize(
    ("reason", "condition"),
    [
        (Reason.BAD_PASSWORD, "not-authorized"),
        (Reason.RATE_LIMITED, "not-authorized"),
        (Reason.UNKNOWN_DOMAIN, "not-authorized"),
        (Reason.DISABLED, "account-disabled"),
        (Reason.MALFORMED, "malformed-request"),
    ],
)
def test_a_refusal_has_the_condition_of_its_reason(reason: Reason, condition: Condition) -> None:
    client = Client("PLAIN", decide=always(Reject(reason)))
    assert is_refused(client.begin(PLAIN), condition, reason)
    assert [failure.reason for failure in client.court.failures] == [reason]


def test_what_is_not_there_or_not_offered_is_an_invalid_mechanism() -> None:
    assert is_refused(Client("X-NONE").begin(PLAIN), "invalid-mechanism", Reason.NOT_SUPPORTED)
    assert is_refused(Client("PLAIN", offered=("LOGIN",)).begin(PLAIN), "invalid-mechanism", Reason.NOT_SUPPORTED)
    assert isinstance(Client("PLAIN", offered=("PLAIN",)).begin(PLAIN), Success)
    assert is_refused(Client("SCRAM-SHA-256-PLUS").begin(b""), "invalid-mechanism", Reason.NOT_SUPPORTED)


@pytest.mark.parametrize("name", ["PLAIN", "LOGIN", "OAUTHBEARER", "X-OAUTH2", "XOAUTH2", "X-OAUTH"])
def test_what_shows_the_credential_needs_encryption(name: str) -> None:
    client = Client(name, stream=replace(STREAM, secure=False))
    assert is_refused(client.begin(PLAIN), "encryption-required", Reason.NOT_ENCRYPTED)
    assert client.people.asked == []


def test_too_long_a_message_is_malformed() -> None:
    long = PLAIN + b"x" * MAX_MESSAGE
    assert is_malformed(Client("PLAIN").begin(long))
    assert is_malformed(Client("PLAIN").play(None, long))


def test_a_message_out_of_turn_ends_the_exchange() -> None:
    client = Client("PLAIN")
    assert is_malformed(client.respond(PLAIN))
    client = Client("PLAIN")
    client.begin(None)
    assert is_malformed(client.begin(PLAIN))
    assert client.people.asked == []


def test_after_the_end_nothing_happens() -> None:
    client = Client("PLAIN")
    assert isinstance(client.begin(PLAIN), Success)
    for step in (client.begin(PLAIN), client.respond(PLAIN), client.exchange.refuse("incorrect-encoding")):
        assert is_refused(step, "aborted", Reason.ABORTED)
    assert client.court.failures == []


def test_bad_base64_is_told_by_the_caller() -> None:
    client = Client("PLAIN")
    client.begin(None)
    assert is_refused(client.exchange.refuse("incorrect-encoding"), "incorrect-encoding", Reason.MALFORMED)
    assert client.exchange.over


# Somebody else's mechanisms ---------------------------------------------------------------------------------------------------


def test_a_mechanism_of_one_file() -> None:
    people = People(tokens={"tok": "user"})
    client = Client("X-MY-MECHANISM", people, mechanisms=CUSTOM)
    assert client.begin(b"tok") == Success(USER)
    assert Client("X-MY-MECHANISM", people, mechanisms=CUSTOM).play(None, b"tok") == Success(USER)
    refused = Client("X-MY-MECHANISM", people, mechanisms=CUSTOM).begin(b"other")
    assert is_refused(refused, "not-authorized", Reason.BAD_PASSWORD)


def test_three_rounds_begun_by_the_server() -> None:
    client = Client("X-THREE-ROUNDS", mechanisms=CUSTOM)
    assert client.begin() == Challenge(b"who?")
    assert client.respond(b"user") == Challenge(b"password?")
    word = client.respond(b"pencil")
    assert isinstance(word, Challenge)
    assert {word.data.decode()} == x_three_rounds.waiting
    assert isinstance(client.respond(word.data), Success)
    assert not x_three_rounds.waiting


def test_three_rounds_with_wrong_answers() -> None:
    assert is_malformed(Client("X-THREE-ROUNDS", mechanisms=CUSTOM).begin(b"user"))
    client = Client("X-THREE-ROUNDS", mechanisms=CUSTOM)
    assert is_refused(client.play(None, b"user", b"pencil", b"something else"), "not-authorized", Reason.NOT_ALLOWED)


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_client_that_gives_up_ends_the_exchange_once(rounds: int) -> None:
    client = Client("X-THREE-ROUNDS", mechanisms=CUSTOM)
    client.play(*[None, b"user", b"pencil"][:rounds])
    assert len(x_three_rounds.waiting) == (rounds == 3)
    assert is_refused(client.exchange.abort(), "aborted", Reason.ABORTED)
    assert not x_three_rounds.waiting
    assert is_refused(client.exchange.abort(), "aborted", Reason.ABORTED)
    assert is_refused(client.respond(b"user"), "aborted", Reason.ABORTED)


ENDS: dict[str, Callable[[Exchange], Soon[Turn]]] = {
    "abort": Exchange.abort,
    "refuse": lambda exchange: exchange.refuse("incorrect-encoding"),
    "respond": lambda exchange: exchange.respond(b""),
    "too long": lambda exchange: exchange.respond(bytes(MAX_MESSAGE + 1)),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_the_clean_up_runs_once_whatever_ends_it(end: Callable[[Exchange], Soon[Turn]]) -> None:
    ended: list[bool] = []

    def run(_: Session, __: bytes) -> Talk[Success | Failure]:
        try:
            yield Challenge(b"")
            return Failure("not-authorized", Reason.BAD_PASSWORD)
        finally:
            ended.append(True)

    exchange = Client("X", mechanisms=of(run)).exchange
    exchange.begin(None)
    assert not ended
    end(exchange)
    exchange.abort()
    assert ended == [True]


def test_an_outage_cleans_up_too() -> None:
    ended: list[bool] = []

    def run(session: Session, _: bytes) -> Talk[Success | Failure]:
        try:
            yield UserExists(session.nobody, session.origin)
        finally:
            ended.append(True)
        raise AssertionError

    Client("X", mechanisms=of(run), decide=always(Unavailable(Reason.BACKEND_DOWN))).begin()
    assert ended == [True]


def test_aborted_exchanges_leave_nothing_behind() -> None:
    def count() -> int:
        gc.collect()
        return sum(1 for thing in gc.get_objects() if type(thing).__name__ in {"generator", "Exchange"})

    before = count()
    for _ in range(2000):
        client = Client("SCRAM-SHA-256")
        client.begin(b"n,,n=nobody,r=abc")
        client.exchange.abort()
    assert count() <= before + 2


# Mechanisms with faults -------------------------------------------------------------------------------------------------------


def is_bug(step: object, kind: type[Exception]) -> bool:
    return (
        isinstance(step, Failure)
        and (step.condition, step.reason, step.temporary) == ("temporary-auth-failure", Reason.BUG, True)
        and isinstance(step.bug, kind)
    )


def test_a_bug_stays_in_its_exchange() -> None:
    def run(session: Session, initial: bytes) -> Talk[Success | Failure]:
        yield Challenge(b"")
        raise ZeroDivisionError(session, initial)

    assert is_bug(Client("X", mechanisms=of(run)).play(None, b""), ZeroDivisionError)


def test_a_bug_at_the_start_stays_too() -> None:
    def run(session: Session, initial: bytes) -> Talk[Success | Failure]:
        raise ZeroDivisionError(session, initial)

    def nothing(_: Session, __: bytes) -> Talk[Success | Failure]:
        return None  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    assert is_bug(Client("X", mechanisms=of(run)).begin(), ZeroDivisionError)
    assert is_bug(Client("X", mechanisms=of(nothing)).begin(), Exception)


def test_nobody_gets_in_without_an_accept() -> None:
    def unasked(session: Session, _: bytes) -> Talk[Success | Failure]:
        yield Challenge(b"")
        return Success(session.account("user"))

    def somebody_else(session: Session, _: bytes) -> Talk[Success | Failure]:
        yield CheckPassword(session.account("user"), session.origin, Secret("pencil"))
        return Success(session.account("admin"))

    def refused(session: Session, _: bytes) -> Talk[Success | Failure]:
        yield CheckPassword(session.account("user"), session.origin, Secret("pencil"))
        yield CheckPassword(session.account("user"), session.origin, Secret("wrong"))
        return Success(session.account("user"))

    for run in (unasked, somebody_else, refused):
        assert is_bug(Client("X", mechanisms=of(run)).play(None, b""), TypeError)


def test_nonsense_is_a_bug() -> None:
    def text(_: Session, __: bytes) -> Talk[Success | Failure]:
        yield "a text"  # type: ignore[misc]  # pyright: ignore[reportReturnType]
        raise AssertionError

    def nothing(_: Session, __: bytes) -> Talk[Success | Failure]:
        yield Challenge(b"")
        return None  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    def stubborn(_: Session, __: bytes) -> Talk[Success | Failure]:
        try:
            yield Challenge(b"")
        except GeneratorExit:
            yield Challenge(b"")
        raise AssertionError

    assert is_bug(Client("X", mechanisms=of(text)).begin(), TypeError)
    assert is_bug(Client("X", mechanisms=of(nothing)).play(None, b""), TypeError)
    client = Client("X", mechanisms=of(stubborn))
    client.begin()
    assert isinstance(client.exchange.abort().bug, RuntimeError)


@pytest.mark.parametrize("name", ["SCRAM-SHA-1", "HT-SHA-256-NONE", "PLAIN"])
def test_an_answer_of_the_wrong_kind_is_never_a_yes(name: str) -> None:
    initial = {"SCRAM-SHA-1": b"n,,n=user,r=abc", "HT-SHA-256-NONE": b"user\0x", "PLAIN": PLAIN}[name]
    assert is_bug(Client(name, decide=always(Listing(()) if name == "PLAIN" else Accept(USER))).begin(initial), TypeError)


# The registry -----------------------------------------------------------------------------------------------------------------


def test_the_folder_is_the_registry() -> None:
    assert list(MECHANISMS) == sorted(MECHANISMS, key=lambda name: -MECHANISMS[name].priority)
    scram = {f"SCRAM-SHA-{bits}{suffix}" for bits in (1, 256, 384, 512) for suffix in ("", "-PLUS")}
    fast = {f"HT-SHA-{bits}-{kind}" for bits in (256, 384, 512) for kind in ("NONE", "UNIQ", "ENDP", "EXPR")}
    others = {"PLAIN", "LOGIN", "OAUTHBEARER", "X-OAUTH2", "XOAUTH2", "X-OAUTH", "EXTERNAL", "ANONYMOUS"}
    assert set(MECHANISMS) == scram | fast | others
    assert set(CUSTOM) - set(MECHANISMS) == {"X-MY-MECHANISM", "X-THREE-ROUNDS"}
    assert CUSTOM["X-MY-MECHANISM"].needs is CheckToken


def test_every_mechanism_module_that_fails_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        registry.find(["tests.mechanisms.none", "tests.sasl_none.x", "extauth.jid"])
    assert len(caught.value.problems) == 3
    assert "daemon.mechanism_modules: extauth.jid: has no MECHANISMS" in caught.value.problems[2]


def test_the_documented_mechanism_is_the_tested_one() -> None:
    here = Path(__file__).parent
    code = (here / "mechanisms/x_my_mechanism.py").read_text().partition('"""\n\n')[2]
    assert code.strip() in (here.parent / "docs/mechanisms.md").read_text()


@pytest.mark.parametrize(
    ("reason", "condition"),
    [
        (Reason.DISABLED, "account-disabled"),
        (Reason.CREDENTIALS_EXPIRED, "credentials-expired"),
        (Reason.MUST_CHANGE_PASSWORD, "credentials-expired"),
        (Reason.MALFORMED, "malformed-request"),
        (Reason.BAD_PASSWORD, "not-authorized"),
        (Reason.NO_USER, "not-authorized"),
        (Reason.ACCOUNT_LOCKED, "not-authorized"),
    ],
)
def test_a_refusal_has_the_condition_that_tells_a_client_no_more_than_it_may_know(reason: Reason, condition: Condition) -> None:
    assert outcome(Reject(reason)) == Failure(condition, reason)
