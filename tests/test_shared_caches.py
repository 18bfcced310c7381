"""Daemons that share a store: what is changed through one is not remembered by another."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from extauth.admin import Command, perform
from extauth.errors import BackendDown
from extauth.model import (
    Accept,
    CheckPassword,
    CreateUser,
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
from extauth.service import Service
from extauth.soon import settle
from extauth.store import SharedStore, announcing, sqlite
from tests.daemons import extauth, serve_here, with_local_accounts
from tests.fakes import FakeBackend, Scene

ALICE, BOB = Identity("alice", "xmpp.test"), Identity("bob", "xmpp.test")
ORIGIN = Origin("cli")
OLD, NEW = "fake and old", "fake and new"


@pytest.fixture(autouse=True)
def _attentive(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr(sqlite, "LOOK", 0.01)


def text(folder: Path, state: str) -> str:
    """Return the configuration of a daemon that asks nobody for an hour whether a password is still right."""
    plain = with_local_accounts(folder).replace(f"sqlite://{folder}/state/state.db", state)
    return f"{plain}[backend.local.cache]\nttl = 3600\ngrace = 3600\n"


class Node:
    """One of the daemons."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.remembered = service.layered["local"].remembered

    async def ask(self, request: Request) -> Verdict:
        return await settle(self.service.ask(request))

    async def login(self, password: str = OLD, identity: Identity = ALICE) -> Verdict:
        return await self.ask(CheckPassword(identity, ORIGIN, Secret(password)))

    async def remember(self) -> None:
        """Log alice and bob in until they are remembered: a late announcement may still take that away."""
        with trio.fail_after(20):
            for identity in (ALICE, BOB):
                while await self.login(identity=identity) != Accept(identity, via="cache"):
                    await trio.sleep(0.01)

    async def forgets(self) -> None:
        """Wait until nothing is remembered of alice."""
        with trio.fail_after(20):
            while self.remembered.accepted._users.get(ALICE):  # pyright: ignore[reportPrivateUsage]
                await trio.sleep(0.01)


@asynccontextmanager
async def nodes(folder: Path, state: str) -> AsyncGenerator[tuple[Node, Node], None]:
    """Serve two daemons; the second remembers the passwords of alice and bob."""
    places = folder / "one", folder / "two"
    for place in places:
        place.mkdir(mode=0o700)
    async with serve_here(places[0], text(places[0], state)) as one, serve_here(places[1], text(places[1], state)) as two:
        here, there = Node(one.service), Node(two.service)
        for identity in (ALICE, BOB):
            assert await here.ask(CreateUser(identity, ORIGIN, Secret(OLD))) == Accept(identity)
        await there.remember()
        yield here, there


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (SetPassword(ALICE, ORIGIN, Secret(NEW)), Reason.BAD_PASSWORD),
        (SetEnabled(ALICE, ORIGIN, enabled=False), None),
        (RemoveUser(ALICE, ORIGIN), Reason.NO_USER),
    ],
    ids=["password", "disable", "remove"],
)
async def test_a_change_on_one_node_is_in_force_on_the_other(
    tmp: Path, state: str, change: Request, reason: Reason | None
) -> None:
    async with nodes(tmp, state) as (here, there):
        assert isinstance(await here.ask(change), Accept)
        await there.forgets()
        assert await there.login() == Reject(reason or Reason.DISABLED)
        if reason is Reason.BAD_PASSWORD:
            assert await there.login(NEW) == Accept(ALICE)


async def test_a_flush_on_one_node_is_one_on_the_other(tmp: Path, state: str) -> None:
    async with nodes(tmp, state) as (here, there):
        await perform(here.service, Command("cache-flush", mask="ALICE@*"), ORIGIN)
        await there.forgets()
        if state.startswith("postgresql"):
            assert await there.login(identity=BOB) == Accept(BOB, via="cache")  # others are not concerned


@pytest.mark.parametrize("words", [("user", "passwd", "alice@xmpp.test", "--password-stdin"), ("cache", "flush")])
async def test_the_command_line_is_heard_though_its_own_daemon_does_not_run(
    tmp: Path, state: str, words: tuple[str, ...]
) -> None:
    async with nodes(tmp, state) as (_, there):
        config = tmp / "extauth.toml"
        config.write_text(text(tmp / "nobody", state))
        done = await trio.to_thread.run_sync(lambda: extauth(*words, "-c", config, stdin=NEW))
        assert done.returncode == 0, done.stderr
        await there.forgets()


async def test_an_announcement_that_is_not_understood_makes_everything_doubtful(tmp: Path, state: str) -> None:
    async with nodes(tmp, state) as (here, there):
        await here.service.store.write(announcing("something newer"))
        await there.forgets()
        assert len(there.remembered) == 0


async def test_other_writes_leave_what_is_remembered(tmp: Path, state: str) -> None:
    heard: list[str | None] = []
    async with nodes(tmp, state) as (here, there):
        store: SharedStore = there.service._surroundings.store  # pyright: ignore[reportPrivateUsage]
        store.subscribe(heard.append)
        await here.service.store.write(("INSERT INTO secret (name, value) VALUES ('x', $1)", (b"",)))
        await there.service.store.write()
        await there.service.store.write()
        assert heard == []
        assert await there.login() == Accept(ALICE, via="cache")


async def test_a_change_that_could_not_be_announced_is_not_acknowledged() -> None:
    scene = Scene(
        [FakeBackend({UserExists: Accept(ALICE), SetPassword: Accept(ALICE), RemoveUser: Reject(Reason.NOT_ALLOWED)})]
    )
    change = SetPassword(ALICE, ORIGIN, Secret(NEW))
    assert await settle(scene.authority.ask(change)) == Accept(ALICE)
    assert scene.changed == [ALICE]
    assert await settle(scene.authority.ask(RemoveUser(ALICE, ORIGIN))) == Reject(Reason.NOT_ALLOWED)
    assert scene.changed == [ALICE]
    scene.problem = BackendDown("away")
    verdict = await settle(scene.authority.ask(change))
    assert isinstance(verdict, Unavailable)
    assert "away" in verdict.detail
