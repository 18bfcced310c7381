"""The layers around a real directory: SCRAM for its people through Prosody, its lock-out, its outage."""

import sqlite3
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from extauth import daemon as daemons
from extauth.layers.rules import DAY
from extauth.model import (
    Accept,
    CheckPassword,
    FindKeys,
    Identity,
    Keys,
    Reason,
    Reject,
    Secret,
    SetPassword,
    Unavailable,
    Verdict,
)
from extauth.passwords import scram
from extauth.soon import settle
from tests import needs
from tests.certificates import Certificates
from tests.daemons import Daemon, Served, head, serve_here
from tests.fakes import ORIGIN
from tests.servers.process import poll, temporary_folder
from tests.servers.prosody import Prosody
from tests.servers.slapd import POLICY, Slapd, asking, dn_of
from tests.xmppclient import Job, Outcome, XmppClient

pytestmark = needs.debian("slapd")

OLD, NEW = "fake \u00f6ld one", "fake new one"
STRONGEST = "SCRAM-SHA-512"
ALICE = Identity("alice", "xmpp.test")
CONFIGURATION = (
    head("{folder}", ejabberd="allow_changes = true", sasl=True)
    + """\
[backend.people]
{directory}learn_iterations = 4096
{layers}
[domain."xmpp.test"]
backends = ["people"]
"""
)


def configuration(folder: Path, slapd: Slapd, certificates: Certificates, layers: str) -> str:
    """Return a configuration with one directory, and `layers` around it."""
    return CONFIGURATION.format(folder=folder, layers=layers, directory=asking(folder, certificates, slapd))


@pytest.fixture
def slapd(certificates: Certificates) -> Iterator[Slapd]:
    """Give a directory."""
    with temporary_folder() as folder, Slapd(folder, certificates, {"alice": OLD, "bob": OLD}) as server:
        yield server


def change_password(slapd: Slapd, password: str, user: str = "alice") -> None:
    """Change a password in the directory itself."""
    slapd.modify(f"dn: {dn_of(user)}\nchangetype: modify\nreplace: userPassword\nuserPassword: {password}\n")


# Through Prosody --------------------------------------------------------------------------------------------------------------


@needs.debian("prosody")
def test_by_password_then_by_scram_through_prosody(
    slapd: Slapd, certificates: Certificates, xmpp: XmppClient, tmp: Path
) -> None:
    authentication = f"""\
        authentication = "extauth"
        extauth_socket = "{tmp}/sasl.sock"
        extauth_accounts_socket = "{tmp}/ejabberd.sock"
        """
    module = (Path(__file__).parent.parent / "contrib" / "prosody",)
    with (
        Daemon(tmp, configuration(tmp, slapd, certificates, 'learn_scram = "offer"')),
        temporary_folder() as folder,
        Prosody(folder, certificates, authentication, plugin_paths=module, virtual_hosts='VirtualHost "xmpp.test"') as prosody,
    ):

        def login(mechanism: str | None, password: str) -> Outcome:
            return xmpp.run(Job(port=prosody.port, jid="alice@xmpp.test", password=password, mechanism=mechanism))

        def learned() -> bool:
            with closing(sqlite3.connect(tmp / "state" / "state.db")) as state:
                return state.execute("SELECT 1 FROM scram_key WHERE credential = 'learned:people'").fetchone() is not None

        first = login(STRONGEST, OLD)
        assert {STRONGEST, "PLAIN"} <= set(first.offered)
        assert first.condition == "not-authorized"
        assert login("PLAIN", OLD).ok
        poll(learned, "the keys")
        assert login(STRONGEST, OLD).ok
        assert login(STRONGEST, "fake wrong").condition == "not-authorized"
        strongest = login(None, OLD)
        assert strongest.ok
        assert strongest.mechanism.startswith("SCRAM-SHA-")

        change_password(slapd, NEW)
        assert login("PLAIN", OLD).condition == "not-authorized"
        poll(lambda: not learned(), "the end of the keys")
        assert login(STRONGEST, OLD).condition == "not-authorized"
        assert login("PLAIN", NEW).ok
        poll(learned, "the new keys")
        assert login(STRONGEST, NEW).ok
        assert login(STRONGEST, OLD).condition == "not-authorized"


# In this process, whose clock can be moved ------------------------------------------------------------------------------------


class Site:
    """A service on a directory."""

    def __init__(self, served: Served) -> None:
        self._service = served.service
        self._served = served

    async def login(self, password: str = OLD, identity: Identity = ALICE) -> Verdict:
        verdict: Verdict = await settle(self._service.ask(CheckPassword(identity, ORIGIN, Secret(password))))
        return verdict

    async def set_password(self, password: str) -> Verdict:
        verdict: Verdict = await settle(self._service.ask(SetPassword(ALICE, ORIGIN, Secret(password))))
        return verdict

    async def proves(self, password: str) -> bool:
        """Tell whether alice can log in by SCRAM-SHA-512 with a password."""
        keys = await settle(self._service.ask(FindKeys(ALICE, ORIGIN, "SHA-512")))
        if not isinstance(keys, Keys):
            return False
        stored = tuple(candidate.stored_key for candidate in keys.candidates)
        return scram.verify(scram.Hash.SHA_512, (password,), keys.salt, keys.iterations, stored) is not None

    async def learned(self, password: str) -> None:
        with trio.fail_after(30):
            while not await self.proves(password):
                await trio.sleep(0.01)

    async def trail(self) -> str:
        await trio.testing.wait_all_tasks_blocked()
        return (await self._served.decisions())[-1].trail


@asynccontextmanager
async def serve(tmp: Path, slapd: Slapd, certificates: Certificates, layers: str) -> AsyncGenerator[Site, None]:
    async with serve_here(tmp, configuration(tmp, slapd, certificates, layers)) as served:
        yield Site(served)


async def test_an_old_password_works_no_longer_than_the_documented_bound(
    slapd: Slapd, certificates: Certificates, tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(ahead=0.0)
    monkeypatch.setattr(daemons, "time", SimpleNamespace(time=lambda: time.time() + clock.ahead))
    async with serve(tmp, slapd, certificates, 'learn_scram = "offer"\nlearn_days = 2.0') as site:
        assert isinstance(await site.login(), Accept)
        await site.learned(OLD)
        await trio.to_thread.run_sync(change_password, slapd, NEW)
        clock.ahead = 2 * DAY - 600
        assert await site.proves(OLD)  # nobody has told us
        clock.ahead = 2 * DAY
        assert not await site.proves(OLD)
        assert isinstance(await site.login(NEW), Accept)
        await site.learned(NEW)
        assert not await site.proves(OLD)


async def test_a_password_changed_through_us_takes_effect_at_once(slapd: Slapd, certificates: Certificates, tmp: Path) -> None:
    layers = 'learn_scram = "offer"\n[backend.people.cache]\nttl = 600\ngrace = 600\nrepeats = 600'
    async with serve(tmp, slapd, certificates, layers) as site:
        assert isinstance(await site.login(), Accept)
        assert await site.login(NEW) == Reject(Reason.BAD_PASSWORD)
        await site.learned(OLD)
        assert isinstance(await site.set_password(NEW), Accept)
        assert not await site.proves(OLD)
        assert await site.login(OLD) == Reject(Reason.BAD_PASSWORD)
        assert isinstance(await site.login(NEW), Accept)
        await site.learned(NEW)


async def test_a_client_that_repeats_a_stale_password_locks_nobody_out(
    slapd: Slapd, certificates: Certificates, tmp: Path
) -> None:
    policy = f"dn: {POLICY}\nchangetype: modify\nreplace: pwdMaxFailure\npwdMaxFailure: 3\n"
    await trio.to_thread.run_sync(slapd.modify, policy)
    async with serve(tmp, slapd, certificates, "[backend.people.cache]\nrepeats = 600") as site:
        for _ in range(10):
            verdict = await site.login("fake stale")
            assert isinstance(verdict, Reject)
            assert verdict.reason is Reason.BAD_PASSWORD
        assert await site.trail() == "people:bad-password(repeat)"
        assert isinstance(await site.login(), Accept)
        for number in range(3):
            await site.login(f"fake guess {number}")
        assert isinstance(await site.login(), Reject)  # so the directory does lock out


async def test_grace_while_the_directory_is_away(slapd: Slapd, certificates: Certificates, tmp: Path) -> None:
    bob = Identity("bob", "xmpp.test")
    async with serve(tmp, slapd, certificates, "[backend.people.cache]\ngrace = 600") as site:
        assert isinstance(await site.login(), Accept)
        assert await site.trail() == "people:accept"
        await trio.to_thread.run_sync(slapd.stop)
        assert isinstance(await site.login(), Accept)
        assert await site.trail() == "people:accept(grace)"
        assert isinstance(await site.login("fake wrong"), Unavailable)
        assert isinstance(await site.login(OLD, bob), Unavailable)
