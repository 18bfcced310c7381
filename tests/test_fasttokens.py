"""FAST tokens: two slots of each device, by the HT-* mechanisms."""

import hmac
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from extauth.issuing import EndSessions, IssueCredential
from extauth.keystore import Keystore
from extauth.model import (
    VIA,
    Accept,
    CreateUser,
    FindHashedTokens,
    HashedTokens,
    Identity,
    Origin,
    Proof,
    Reason,
    Reject,
    Request,
    Secret,
    SetPassword,
    Tokens,
    Verdict,
)
from extauth.sasl.exchange import Turn
from extauth.sasl.mechanism import Failure, Stream, Success
from extauth.soon import settle
from extauth.tokens.grant import login_of
from extauth.tokens.kinds import FAST_SECRET
from tests.daemons import Served, serve_here
from tests.fakes import log_kept
from tests.test_credentials import configured

ALICE, BOB = Identity("alice", "xmpp.test"), Identity("bob", "xmpp.test")
MECHANISM = "HT-SHA-256-NONE"
ORIGIN = Origin("test", mechanism=MECHANISM)


class Scene:
    """A service with alice and bob, and the clients' side of HT."""

    def __init__(self, served: Served) -> None:
        self.service = served.service

    async def ask(self, request: Request) -> Verdict:
        return await settle(self.service.ask(request))

    async def issue(self, device: str = "phone", mechanism: str = MECHANISM, identity: Identity = ALICE) -> str:
        answer = await self.ask(IssueCredential(identity, ORIGIN, "fast", device, mechanism=mechanism))
        assert isinstance(answer, Tokens), answer
        return answer.tokens["fast"].reveal()

    async def login(self, token: str, identity: Identity = ALICE, mechanism: str = MECHANISM) -> Turn:
        """Run the whole exchange."""
        stream = Stream(domain=identity.domain, origin=msgspec.structs.replace(ORIGIN, mechanism=mechanism), secure=True)
        exchange = self.service.negotiate(self.service.terms(mechanism, stream), time.monotonic())
        family = mechanism.removeprefix("HT-").rpartition("-")[0].replace("-", "").lower()
        proof = hmac.digest(token.encode(), b"Initiator", family)
        return await settle(exchange.begin(identity.user.encode() + b"\0" + proof))


@pytest.fixture
async def scene(tmp: Path, state: str) -> AsyncIterator[Scene]:
    """Give a service with alice and bob."""
    async with serve_here(tmp, configured(tmp, state=state)) as served:
        scene = Scene(served)
        for identity in (ALICE, BOB):
            assert isinstance(await scene.ask(CreateUser(identity, ORIGIN, Secret("fake password"))), Accept)
        yield scene


def accepted(step: Turn) -> bool:
    return isinstance(step, Success) and step.identity == ALICE


def reason(step: Turn) -> Reason | None:
    return step.reason if isinstance(step, Failure) else None


async def test_a_token_logs_in_again_and_again(scene: Scene) -> None:
    token = await scene.issue()
    for _ in range(3):
        step = await scene.login(token)
        assert accepted(step)
        assert isinstance(step, Success)
        assert step.data == hmac.digest(token.encode(), b"Responder", "sha256")
        assert step.attributes[VIA] == "fast"
        assert login_of(step.attributes, 0) is None


async def test_the_one_in_use_is_good_until_the_next_is_used(scene: Scene) -> None:
    first = await scene.issue()
    assert accepted(await scene.login(first))
    second = await scene.issue()
    lost = [await scene.issue() for _ in range(2)]  # their replies never arrived
    assert accepted(await scene.login(first))
    assert reason(await scene.login(second)) is Reason.BAD_PASSWORD
    assert accepted(await scene.login(lost[1]))
    assert reason(await scene.login(first)) is Reason.BAD_PASSWORD
    assert accepted(await scene.login(lost[1]))


async def test_before_the_first_use_either_of_the_last_two_is_good(scene: Scene) -> None:
    first, second = await scene.issue(), await scene.issue()
    assert accepted(await scene.login(first))
    assert accepted(await scene.login(second))
    assert reason(await scene.login(first)) is Reason.BAD_PASSWORD


async def test_devices_users_and_mechanisms_are_apart(scene: Scene) -> None:
    phone, tablet = await scene.issue("phone"), await scene.issue("tablet")
    assert len({phone, tablet, await scene.issue("phone", identity=BOB)}) == 3
    assert accepted(await scene.login(phone))
    assert accepted(await scene.login(tablet))
    assert reason(await scene.login(phone, BOB)) is Reason.BAD_PASSWORD
    assert reason(await scene.login(phone, mechanism="HT-SHA-512-NONE")) is Reason.NO_USER
    other = await scene.issue("phone", "HT-SHA-512-NONE")
    assert accepted(await scene.login(other, mechanism="HT-SHA-512-NONE"))
    assert reason(await scene.login(phone)) in (Reason.BAD_PASSWORD, Reason.NO_USER)
    assert reason(await scene.login(phone, mechanism="HT-SHA-512-NONE")) is Reason.BAD_PASSWORD


async def test_a_device_too_many_ends_the_oldest(tmp: Path, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    later = 0.0
    monkeypatch.setattr("extauth.daemon.time.time", lambda: 1_900_000_000 + later)
    async with serve_here(tmp, configured(tmp, "max_sessions = 2", state=state)) as served:
        scene = Scene(served)
        assert isinstance(await scene.ask(CreateUser(ALICE, ORIGIN, Secret("fake password"))), Accept)
        bobs = await scene.issue("phone", identity=BOB)
        tokens: dict[str, str] = {}
        with log_kept() as log:
            for device in ("tablet", "laptop", "tablet"):
                later += 1
                tokens[device] = await scene.issue(device)
            assert log.getvalue() == ""  # two devices
            later += 1
            tokens["phone"] = await scene.issue("phone")
            assert "a device too many ended the FAST tokens of the oldest" in log.getvalue()
            assert tokens["phone"] not in log.getvalue()
        found = {device: accepted(await scene.login(token)) for device, token in tokens.items()}
        assert found == {"tablet": True, "laptop": False, "phone": True}
        assert await scene.ask(FindHashedTokens(BOB, ORIGIN, MECHANISM)) != Reject(Reason.NO_USER)
        assert isinstance(await scene.login(bobs, BOB), Success)


@pytest.mark.parametrize(
    "end",
    [
        EndSessions(ALICE, ORIGIN, "test", device="phone"),
        EndSessions(ALICE, ORIGIN, "test"),
        EndSessions(Identity("", "xmpp.test"), ORIGIN, "test"),
        SetPassword(ALICE, ORIGIN, Secret("another fake one")),
    ],
    ids=["device", "user", "domain", "password"],
)
async def test_they_are_revoked(scene: Scene, end: Request) -> None:
    phone, tablet, bobs = await scene.issue("phone"), await scene.issue("tablet"), await scene.issue("phone", identity=BOB)
    found = await scene.ask(FindHashedTokens(ALICE, ORIGIN, MECHANISM))
    assert isinstance(found, HashedTokens)
    assert isinstance(await scene.ask(end), Accept)
    assert reason(await scene.login(phone)) in (Reason.BAD_PASSWORD, Reason.NO_USER)
    assert accepted(await scene.login(tablet)) is (isinstance(end, EndSessions) and end.device != "")
    assert isinstance(await scene.login(bobs, BOB), Success) is (end.identity == ALICE)
    late = Proof(ALICE, ORIGIN, Reason.OK, "tokens", "fast:1:phone")  # the exchange had begun before
    assert await scene.ask(late) == Reject(Reason.TOKEN_REVOKED)


async def test_they_expire(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = 0.0
    monkeypatch.setattr("time.time", lambda: 1_800_000_000 + later)
    async with serve_here(tmp, configured(tmp, "fast_lifetime = 100")) as served:
        scene = Scene(served)
        await scene.ask(CreateUser(ALICE, ORIGIN, Secret("fake password")))
        first = await scene.issue()
        assert accepted(await scene.login(first))
        later = 60
        second = await scene.issue()
        later = 99
        assert accepted(await scene.login(first))
        later = 100
        assert reason(await scene.login(first)) is Reason.BAD_PASSWORD
        assert accepted(await scene.login(second))
        later = 160
        assert reason(await scene.login(second)) in (Reason.BAD_PASSWORD, Reason.NO_USER)


async def test_a_rotated_key_ends_none(scene: Scene) -> None:
    before = await scene.issue("phone")
    keys = Keystore(scene.service.store, lambda: 1_800_000_000.0)
    await keys.add("xmpp.test", FAST_SECRET)
    after = await scene.issue("tablet")
    assert accepted(await scene.login(before))
    assert accepted(await scene.login(after))


@pytest.mark.parametrize(
    ("device", "mechanism"), [("", MECHANISM), ("phone", ""), ("phone", "PLAIN"), ("phone", "HT-MD5-NONE")]
)
async def test_what_can_not_be_issued(scene: Scene, device: str, mechanism: str) -> None:
    assert await scene.ask(IssueCredential(ALICE, ORIGIN, "fast", device, mechanism=mechanism)) == Reject(Reason.MALFORMED)
