"""App passwords and temporary tokens: each way of logging in by them, once or many times, and how they end."""

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from extauth.daemon import open_without_listeners
from extauth.issuing import EndCredential, EndSessions, IssueCredential, ListCredentials
from extauth.model import (
    VIA,
    Accept,
    CheckPassword,
    CheckToken,
    CreateUser,
    FindKeys,
    Identity,
    Keys,
    Listing,
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
    Verdict,
)
from extauth.passwords import scram
from extauth.service import Service
from extauth.soon import settle
from extauth.tokens import credential
from extauth.tokens.grant import login_of
from tests.daemons import YES, Daemon, extauth, read, serve_here, with_local_accounts
from tests.servers.process import temporary_folder

ALICE = Identity("alice", "xmpp.test")
BOB = Identity("bob", "xmpp.test")
NOBODY = Identity("", "xmpp.test")
PASSWORD = "fake correct horse"


def configured(folder: Path, tokens: str = "", state: str = "") -> str:
    text = with_local_accounts(folder)
    text = text.replace(f"sqlite://{folder}/state/state.db", state) if state else text
    text = text.replace('backends = ["local"]', 'backends = ["tokens", "local"]')
    return f'{text}\n[listener.sasl]\nprotocol = "dovecot"\naddress = "unix:{folder}/sasl.sock"\n[backend.tokens]\n{tokens}\n'


class Scene:
    """A service with alice and bob."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def ask(self, request: Request) -> Verdict:
        return await settle(self.service.ask(request))

    async def issue(self, kind: str = "temporary", identity: Identity = ALICE, **terms: Any) -> str:  # noqa: ANN401
        answer = await self.ask(IssueCredential(identity, Origin("test"), kind, **terms))
        assert isinstance(answer, Tokens), answer
        return answer.tokens[kind].reveal()

    async def plain(self, text: str, identity: Identity = ALICE, mechanism: str = "PLAIN") -> Verdict:
        return await self.ask(CheckPassword(identity, Origin("test", mechanism=mechanism), Secret(text)))

    async def bearer(self, text: str, identity: Identity = NOBODY, mechanism: str = "OAUTHBEARER") -> Verdict:
        return await self.ask(CheckToken(identity, Origin("test", mechanism=mechanism), Secret(text)))

    async def scram(self, text: str, identity: Identity = ALICE, mechanism: str = "SCRAM-SHA-256") -> Verdict:
        """Log in as SCRAM does: find the keys, prove one of them."""
        origin = Origin("test", mechanism=mechanism)
        keys = await self.ask(FindKeys(identity, origin, "SHA-256"))
        assert isinstance(keys, Keys)
        stored = tuple(candidate.stored_key for candidate in keys.candidates)
        found = scram.verify(scram.Hash.SHA_256, (text,), keys.salt, keys.iterations, stored)
        if found is None:
            return Reject(Reason.BAD_PASSWORD)
        reason = keys.refusal or Reason.OK
        return await self.ask(Proof(identity, origin, reason, keys.backend, keys.candidates[found].credential))

    async def everyway(self, text: str) -> list[Verdict]:
        return [await self.plain(text), await self.bearer(text), await self.scram(text)]


@asynccontextmanager
async def scene_of(folder: Path, tokens: str = "", state: str = "") -> AsyncGenerator[Scene]:
    async with serve_here(folder, configured(folder, tokens, state)) as served:
        scene = Scene(served.service)
        for identity in (ALICE, BOB):
            assert isinstance(await scene.ask(CreateUser(identity, Origin("test"), Secret(PASSWORD))), Accept)
        yield scene


@pytest.fixture
async def scene(tmp: Path, state: str) -> AsyncIterator[Scene]:
    """Give a service with alice and bob."""
    async with scene_of(tmp, state=state) as scene:
        yield scene


def accepted(verdict: Verdict) -> bool:
    return isinstance(verdict, Accept) and verdict.identity == ALICE


@pytest.mark.parametrize("kind", ["app", "temporary"])
async def test_it_logs_in_by_every_mechanism_as_often_as_it_likes(scene: Scene, kind: str) -> None:
    text = await scene.issue(kind)
    for _ in range(2):
        assert all(accepted(verdict) for verdict in await scene.everyway(text))
        assert accepted(await scene.plain(PASSWORD))
        assert accepted(await scene.scram(PASSWORD))


async def test_it_gets_no_tokens(scene: Scene) -> None:
    for verdict in await scene.everyway(await scene.issue("app", label="phone")):
        assert isinstance(verdict, Accept)
        assert verdict.attributes == {VIA: "app", "credential": "phone"}
        assert login_of(verdict.attributes, 0) is None


async def test_a_one_time_token_logs_in_once(scene: Scene) -> None:
    for first in (scene.plain, scene.bearer, scene.scram):
        text = await scene.issue(one_time=True)
        assert accepted(await first(text))
        assert await scene.everyway(text) == [Reject(Reason.TOKEN_REUSED)] * 3


async def test_of_many_uses_at_once_one_wins(scene: Scene) -> None:
    text = await scene.issue(one_time=True)
    verdicts: list[Verdict] = []

    async def use(way: int) -> None:
        verdicts.append(await (scene.plain, scene.bearer, scene.scram)[way % 3](text))

    async with trio.open_nursery() as nursery:
        for way in range(12):
            nursery.start_soon(use, way)
    assert sum(accepted(verdict) for verdict in verdicts) == 1
    assert verdicts.count(Reject(Reason.TOKEN_REUSED)) == 11


async def test_it_is_bound_to_a_mechanism(scene: Scene) -> None:
    text = await scene.issue(mechanism="SCRAM-SHA-256", one_time=True)
    assert await scene.plain(text) == Reject(Reason.WRONG_TOKEN)
    assert await scene.plain(text, mechanism="") == Reject(Reason.WRONG_TOKEN)
    assert await scene.bearer(text) == Reject(Reason.WRONG_TOKEN)
    assert accepted(await scene.scram(text))


async def test_it_is_its_users_alone(scene: Scene) -> None:
    text = await scene.issue()
    assert await scene.plain(text, BOB) == Reject(Reason.WRONG_TOKEN)
    assert await scene.bearer(text, BOB) == Reject(Reason.WRONG_TOKEN)
    assert await scene.scram(text, BOB) == Reject(Reason.BAD_PASSWORD)
    assert accepted(await scene.bearer(text, ALICE))


async def test_another_secret_under_its_id_is_refused(scene: Scene) -> None:
    text = await scene.issue()
    forged = text[:-1] + ("a" if text[-1] != "a" else "b")
    assert await scene.plain(forged) == Reject(Reason.BAD_TOKEN)
    assert await scene.plain(credential.make("app").text.reveal()) == Reject(Reason.BAD_TOKEN)


async def test_it_expires(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, later = time.time, 0.0
    monkeypatch.setattr("time.time", lambda: real() + later)
    async with scene_of(tmp, "temporary_lifetime = 5") as scene:
        short, longer, app = await scene.issue(), await scene.issue(lifetime=100), await scene.issue("app")
        later = 50.0
        assert await scene.plain(short) == Reject(Reason.EXPIRED_TOKEN)
        assert await scene.scram(short) == Reject(Reason.BAD_PASSWORD)
        for text in (longer, app):
            assert all(accepted(verdict) for verdict in await scene.everyway(text))


async def listed(scene: Scene, identity: Identity = ALICE) -> list[dict[str, str]]:
    answer = await scene.ask(ListCredentials(identity, Origin("test")))
    assert isinstance(answer, Listing)
    return sorted((dict(one.attributes) for one in answer.accounts), key=lambda one: one["label"])


async def test_they_are_listed_and_revoked_one_by_one(scene: Scene) -> None:
    phone, tablet = await scene.issue("app", label="phone"), await scene.issue("app", label="tablet")
    assert [one["label"] for one in await listed(scene)] == ["phone", "tablet"]
    assert [one["used"] for one in await listed(scene)] == ["0", "0"]
    assert accepted(await scene.scram(tablet))
    assert [one["used"] != "0" for one in await listed(scene)] == [False, True]
    assert phone not in str(await listed(scene))
    ended = await scene.ask(EndCredential(ALICE, Origin("test"), "phone"))
    assert isinstance(ended, Accept)
    assert ended.attributes["ended"] == "1"
    assert await scene.plain(phone) == Reject(Reason.BAD_TOKEN)
    assert await scene.scram(phone) == Reject(Reason.BAD_PASSWORD)
    assert all(accepted(verdict) for verdict in await scene.everyway(tablet))
    assert await scene.ask(EndCredential(ALICE, Origin("test"), "phone")) == Reject(Reason.BAD_NAME)
    assert await scene.ask(EndCredential(BOB, Origin("test"), "tablet")) == Reject(Reason.BAD_NAME)
    assert await scene.ask(EndCredential(ALICE, Origin("test"), "")) == Reject(Reason.MALFORMED)


async def test_one_revoked_within_an_exchange_is_refused(scene: Scene) -> None:
    text = await scene.issue("app", label="phone")
    origin = Origin("test", mechanism="SCRAM-SHA-256")
    keys = await scene.ask(FindKeys(ALICE, origin, "SHA-256"))
    assert isinstance(keys, Keys)
    (name,) = (c.credential for c in keys.candidates if c.credential.startswith("app:"))
    await scene.ask(EndCredential(ALICE, Origin("test"), "phone"))
    assert await scene.ask(Proof(ALICE, origin, Reason.OK, "local", name)) == Reject(Reason.TOKEN_REVOKED)
    assert await scene.plain(text) == Reject(Reason.BAD_TOKEN)


@pytest.mark.parametrize(
    "change",
    [
        SetPassword(ALICE, Origin("test"), Secret("another fake one")),
        SetEnabled(ALICE, Origin("test"), enabled=False),
        RemoveUser(ALICE, Origin("test")),
        EndSessions(ALICE, Origin("test"), "test"),
        EndSessions(NOBODY, Origin("test"), "test"),
    ],
    ids=lambda change: change.operation,
)
async def test_a_change_of_the_account_ends_them(scene: Scene, change: Request) -> None:
    app, temporary = await scene.issue("app"), await scene.issue()
    bobs = await scene.issue("app", BOB)
    assert isinstance(await scene.ask(change), Accept)
    if isinstance(change, SetEnabled):
        await scene.ask(SetEnabled(ALICE, Origin("test"), enabled=True))
    for text in (app, temporary):
        assert await scene.plain(text) == Reject(Reason.BAD_TOKEN)
        assert await scene.bearer(text) == Reject(Reason.BAD_TOKEN)
        if not isinstance(change, RemoveUser):
            assert await scene.scram(text) == Reject(Reason.BAD_PASSWORD)
    assert isinstance(await scene.plain(bobs, BOB), Accept) is (change.identity == ALICE)


async def test_a_disabled_account_has_none_by_scram(scene: Scene) -> None:
    await scene.ask(SetEnabled(ALICE, Origin("test"), enabled=False))
    text = await scene.issue()
    assert await scene.scram(text) == Reject(Reason.DISABLED)


async def test_app_passwords_are_so_many(tmp: Path) -> None:
    async with scene_of(tmp, "max_app_passwords = 2") as scene:
        await scene.issue("app", label="a")
        await scene.issue("app", label="b")
        refused = await scene.ask(IssueCredential(ALICE, Origin("test"), "app", "c"))
        assert refused == Reject(Reason.NOT_ALLOWED)
        assert isinstance(await scene.ask(IssueCredential(BOB, Origin("test"), "app", "c")), Tokens)
        await scene.ask(EndCredential(ALICE, Origin("test"), "a"))
        assert await scene.issue("app", label="c")


async def test_without_scram_the_other_ways_are_open(tmp: Path) -> None:
    async with scene_of(tmp, "scram_credentials = false") as scene:
        text = await scene.issue()
        assert accepted(await scene.plain(text))
        assert accepted(await scene.bearer(text))
        assert await scene.scram(text) == Reject(Reason.BAD_PASSWORD)
        assert accepted(await scene.scram(PASSWORD))


async def test_without_their_backend_they_are_good_for_nothing(tmp: Path) -> None:
    async with scene_of(tmp) as scene:
        text = await scene.issue()
    alone = configured(tmp).replace('["tokens", "local"]', '["local"]')
    async with serve_here(tmp, alone) as served:
        scene = Scene(served.service)
        assert await scene.plain(text) == Reject(Reason.BAD_PASSWORD)
        assert await scene.scram(text) == Reject(Reason.NOT_ALLOWED)
        assert accepted(await scene.scram(PASSWORD))


async def test_only_a_digest_is_kept(tmp: Path) -> None:
    async with scene_of(tmp) as scene:
        texts = [await scene.issue("app"), await scene.issue()]
    data = b"".join(path.read_bytes() for path in (tmp / "state").iterdir())
    for text in texts:
        assert text.encode() not in data
        assert text.rpartition("-")[2].encode() not in data


def test_what_is_made_is_recognised_and_safe_in_every_protocol() -> None:
    for kind in ("app", "temporary"):
        made = credential.make(kind)
        found = credential.recognise(made.text.reveal())
        assert found is not None
        assert (found.kind, found.id) == (kind, made.id)
        assert len(made.text.reveal()) <= 200
        assert made.text.reveal().replace("-", "").isalnum()
        assert made.text.reveal() not in repr(made)


@given(st.text() | st.from_regex(r"(eap|etp)-[a-z2-7]{11,13}-[a-z2-7]{25,27}\n?"))
def test_only_the_whole_form_is_recognised(text: str) -> None:
    found = credential.recognise(text)
    if found is not None:
        assert len(text) == 43
        assert text.isascii()


# By the command line and on the wire ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """Give a daemon with alice."""
    with temporary_folder() as folder, Daemon(folder, configured(folder)) as daemon:
        run(daemon, "user", "add", "alice@xmpp.test", "--password-stdin", stdin=PASSWORD)
        yield daemon


def run(daemon: Daemon, *words: str, stdin: str = "") -> str:
    done = extauth(*words, "-c", daemon.config, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_one_time_token_on_the_wire(daemon: Daemon, mechanism: str) -> None:
    made = run(daemon, "token", "issue", "alice@xmpp.test", "--kind", "temporary", "--one-time", "--mechanism", mechanism)
    text = next(line.removeprefix("temporary: ") for line in made.splitlines() if line.startswith("temporary: "))
    login = ("login", "alice@xmpp.test", "--mechanism", mechanism, "--password-stdin", "-c", daemon.config)
    assert extauth(*login, stdin=text).stdout.startswith("alice@xmpp.test: accept (ok)")
    again = extauth(*login, stdin=text)
    assert again.returncode == os.EX_NOPERM
    assert again.stdout.startswith("alice@xmpp.test: reject (token-reused)")
    assert text not in daemon.log()


def test_an_app_password_from_its_making_to_its_end(daemon: Daemon) -> None:
    text = run(daemon, "user", "app-password", "add", "alice@xmpp.test", "my phone").strip()
    assert "my phone since" in run(daemon, "user", "app-password", "list", "alice@xmpp.test")
    assert "never used" in run(daemon, "user", "app-password", "list", "alice@xmpp.test")
    assert daemon.login(text) == YES
    assert "never used" not in run(daemon, "user", "app-password", "list", "alice@xmpp.test")
    assert run(daemon, "user", "app-password", "revoke", "alice@xmpp.test", "my phone") == "alice@xmpp.test: 1 revoked\n"
    assert daemon.login(text) != YES
    assert daemon.login(PASSWORD) == YES
    assert text not in daemon.log()


@pytest.mark.parametrize(
    ("tokens", "local", "warned"),
    [
        ("", "", False),  # what the manual recommends: app passwords log in by SCRAM, as above
        ("scram_credentials = false", "", True),
        ("", 'names.strip_prefix = "x-"', True),  # their keys are kept under the names that users have here
    ],
)
async def test_it_is_told_if_app_passwords_would_be_tried_in_vain(tmp: Path, tokens: str, local: str, *, warned: bool) -> None:
    text = configured(tmp, tokens).replace("[backend.local]\n", f"[backend.local]\n{local}\n")
    async with open_without_listeners(read(text)) as service:
        told = service.advice()
    assert [("what backend 'tokens' takes in a password's place is refused" in line) for line in told] == [True] * warned


def test_nobody_gets_one_who_is_not_there(daemon: Daemon) -> None:
    done = extauth("user", "app-password", "add", "carol@xmpp.test", "phone", "-c", daemon.config)
    assert done.returncode != 0
    assert "no-user" in done.stderr
