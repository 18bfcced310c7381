"""Debian's ejabberd with the connector, the daemon and its own accounts: logins of a real client, end to end."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from extauth import connect
from tests import needs
from tests.certificates import Certificates
from tests.connector import CONNECT
from tests.daemons import NO, YES, Daemon, extauth, with_local_accounts
from tests.servers.ejabberd import Ejabberd
from tests.servers.process import poll, temporary_folder
from tests.xmppclient import Job, Outcome, XmppClient

CANARY = "c4n4ry"  # in every password here, so that one search finds any that leaked
RIGHT = f"fake {CANARY} of alice"
WRONG = f"fake {CANARY} of nobody"
ALICE = "alice@xmpp.test"
CONNECTOR = "extauth-ejabberd"
POOL = 2
OVERSIZED = CANARY + "x" * 70_000

pytestmark = needs.debian("ejabberd")


@dataclass
class Site:
    """An ejabberd and its daemon, which holds alice's account."""

    ejabberd: Ejabberd
    daemon: Daemon
    client: XmppClient

    def login(self, user: str, password: str) -> Outcome:
        """Log in over STARTTLS."""
        return self.client.login(self.ejabberd.port, f"{user}@xmpp.test", password)

    def start_logins(self, passwords: Sequence[str]) -> list[Future[Outcome]]:
        """Let alice log in with each of these passwords, many at a time."""
        return [self.client.submit(Job(port=self.ejabberd.port, jid=ALICE, password=p)) for p in passwords]

    def outages(self) -> int:
        """Return how many questions ejabberd's log says went unanswered."""
        return self.ejabberd.log().count("unexpected_response")

    def connectors(self) -> set[int]:
        """Return the process ids of ejabberd's connectors."""
        name = str(self.ejabberd.folder / CONNECTOR).encode()
        return {pid for pid, arguments in command_lines() if name in arguments}


def command_lines() -> Iterator[tuple[int, list[bytes]]]:
    """Yield process id and arguments of every process."""
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            arguments = Path("/proc", name, "cmdline").read_bytes().split(b"\0")[:-1]
        except OSError:  # it has just ended
            continue
        yield int(name), arguments


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with temporary_folder() as folder:
        text = with_local_accounts(folder, ejabberd="allow_changes = true")
        with Daemon(folder, text) as server:
            with server.connect() as wire:
                assert wire.ask(f"tryregister:alice:xmpp.test:{RIGHT}") == YES
            yield server


@contextmanager
def serve(daemon: Daemon, certificates: Certificates, client: XmppClient, max_stanza_size: int) -> Generator[Site]:
    """Run an ejabberd that asks the daemon."""
    with temporary_folder() as folder:
        connector = folder / CONNECTOR
        connector.symlink_to(CONNECT)
        program = f"/usr/bin/python3 -SIE {connector} unix:{daemon.folder}/ejabberd.sock"
        with Ejabberd(
            folder, certificates, program, pool_size=POOL, register=True, max_stanza_size=max_stanza_size
        ) as ejabberd:
            yield Site(ejabberd, daemon, client)


@pytest.fixture(scope="module")
def site(daemon: Daemon, certificates: Certificates, xmpp: XmppClient) -> Iterator[Site]:
    with serve(daemon, certificates, xmpp, max_stanza_size=262144) as site:  # as Debian configures it
        yield site


def refused(outcome: Outcome) -> bool:
    """Tell whether the server refused the login in the regular way."""
    return (outcome.ok, outcome.condition) == (False, "not-authorized")


def test_a_client_logs_in(site: Site) -> None:
    outcome = site.login("alice", RIGHT)
    assert outcome.ok
    assert outcome.mechanism == "PLAIN"
    assert outcome.jid.startswith(f"{ALICE}/")


def test_who_must_not_log_in_is_refused(site: Site) -> None:
    with site.daemon.connect() as wire:
        assert wire.ask(f"tryregister:mallory:xmpp.test:{RIGHT}") == YES
    assert site.login("mallory", RIGHT).ok
    disabled = extauth("user", "disable", "mallory@xmpp.test", "-c", site.daemon.config)
    assert disabled.returncode == 0, disabled.stderr
    for user, password in (("alice", WRONG), ("alice", RIGHT + " "), ("alice", RIGHT.upper()), ("nobody", RIGHT)):
        assert refused(site.login(user, password)), user
    assert refused(site.login("mallory", RIGHT))


def test_accounts_changed_by_the_client_reach_the_store(site: Site) -> None:
    port, jid = site.ejabberd.port, "bob@xmpp.test"
    first, second = f"first {CANARY}", f"second {CANARY}"

    def stored(password: str) -> bool:
        with site.daemon.connect() as wire:
            return wire.ask(f"auth:bob:xmpp.test:{password}") == YES

    assert not stored(first)
    assert site.client.run(Job(port=port, jid=jid, password=first, action="register")).ok
    assert stored(first)
    again = site.client.run(Job(port=port, jid=jid, password=second, action="register"))
    assert (again.ok, again.condition) == (False, "conflict")
    change = Job(port=port, jid=jid, password=first, action="change-password", new_password=second)
    assert site.client.run(change).ok
    assert (stored(first), stored(second)) == (False, True)
    assert site.login("bob", second).ok
    too_short = Job(port=port, jid=jid, password=second, action="change-password", new_password="c4n4ry")
    assert not site.client.run(too_short).ok
    assert stored(second)
    assert site.client.run(Job(port=port, jid=jid, password=second, action="unregister")).ok
    with site.daemon.connect() as wire:
        assert wire.ask("isuser:bob:xmpp.test") == NO
    assert refused(site.login("bob", second))


@pytest.mark.parametrize(
    "password",
    [
        f":{CANARY}:with:colons:",
        f" {CANARY}  with spaces ",
        f"{CANARY} with \N{CLINKING BEER MUGS} and \N{GRINNING FACE}",
        f"{CANARY} with ÄÖÜ ﬀ и \N{COMBINING DIAERESIS}",
        f"{CANARY} with <xml> & \"quotes\" 'too'",
        CANARY + "x" * (200 - len(CANARY)),
    ],
    ids=["colons", "spaces", "emoji", "unicode", "markup", "long"],
)
def test_special_passwords_work(site: Site, password: str) -> None:
    with site.daemon.connect() as wire:
        assert wire.ask(f"tryregister:carol:xmpp.test:{password}") == YES
        try:
            assert site.login("carol", password).ok
            assert refused(site.login("carol", password[:-1]))
            assert refused(site.login("carol", password.replace(":", "", 1) + "!"))
        finally:
            assert wire.ask("removeuser:carol:xmpp.test") == YES


@pytest.mark.parametrize(("count", "restarts"), [(200, 2), pytest.param(1000, 5, marks=pytest.mark.proof)])
def test_restarts_of_the_daemon_lose_no_login_and_let_nobody_in(
    site: Site, count: int, restarts: int, tell: Callable[[str], None]
) -> None:
    passwords = [WRONG if number % 4 == 0 else RIGHT for number in range(count)]
    outages = site.outages()
    logins = site.start_logins(passwords)

    def decided() -> int:
        return sum(login.done() for login in logins)

    def wait_for(enough: int) -> None:
        poll(lambda: decided() >= enough, f"{enough} logins are decided", 120)

    away = 0.0
    for restart in range(restarts):
        wait_for(count * (restart + 1) // (restarts + 2))
        begun = time.monotonic()
        site.daemon.stop()
        assert decided() < count, "no login was left for this restart"
        site.daemon.start()
        away = max(away, time.monotonic() - begun)
    outcomes = [login.result() for login in logins]
    assert not [login for login in zip(outcomes, passwords, strict=True) if login[0].ok and login[1] == WRONG]
    assert all(refused(outcome) for outcome in outcomes if not outcome.ok)
    lost = [login for login in zip(outcomes, passwords, strict=True) if not login[0].ok and login[1] == RIGHT]
    if away < connect.Ejabberd.patience:
        assert not lost
    else:  # on a machine too busy to start the daemon in time; none is lost without a word about it
        assert len(lost) <= site.outages() - outages
    tell(f"{count} logins, {restarts} restarts, away for {away:.1f} s at most: {len(lost)} lost, nobody let in wrongly")


def test_without_the_daemon_nobody_logs_in_and_nothing_is_remembered(site: Site) -> None:
    assert site.login("alice", RIGHT).ok
    connectors = site.connectors()
    outages = site.outages()
    site.daemon.stop()
    try:
        assert refused(site.login("alice", RIGHT))  # though it was right a moment ago
        assert refused(site.login("alice", WRONG))
        poll(lambda: site.outages() >= outages + 2, "both outages are in ejabberd's log")
        assert "no socket at" in site.ejabberd.output()
    finally:
        site.daemon.start()
    assert site.login("alice", RIGHT).ok
    assert refused(site.login("alice", WRONG))
    assert site.connectors() == connectors
    assert len(connectors) == POOL


def test_an_oversized_password_disturbs_nobody_else(site: Site) -> None:
    """Too large for a frame, it makes ejabberd start every connector again; requests under way go to another one."""
    [oversized] = site.start_logins([OVERSIZED])
    others = site.start_logins([RIGHT, WRONG] * 15)
    assert [other.result().ok for other in others] == [True, False] * 15
    assert not oversized.result().ok


def test_a_limit_on_stanzas_keeps_oversized_passwords_away(
    daemon: Daemon, certificates: Certificates, xmpp: XmppClient
) -> None:
    with serve(daemon, certificates, xmpp, max_stanza_size=65000) as site:
        poll(lambda: len(site.connectors()) == POOL, "the connectors run")
        connectors = site.connectors()
        oversized = site.start_logins([OVERSIZED] * 5)
        others = site.start_logins([RIGHT, WRONG] * 15)
        assert [other.result().ok for other in others] == [True, False] * 15
        assert not any(login.result().ok for login in oversized)
        assert site.connectors() == connectors


def test_no_password_is_written_anywhere(site: Site) -> None:
    """The last test here: it looks at what the others left behind."""
    for folder in (site.daemon.folder, site.ejabberd.folder):
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if CANARY.encode() in path.read_bytes()]
    assert "audit op=check-password" in site.daemon.log()
    assert site.connectors()
    assert not [pid for pid, arguments in command_lines() if any(CANARY.encode() in argument for argument in arguments)]


def test_the_commands_of_the_revocation_script_exist(site: Site) -> None:
    assert site.ejabberd.api("kick_user", user="alice", host="xmpp.test") == {"num_resources": 0}
    for command, arguments in {"connected_users_vhost": {"host": "xmpp.test"}, "clear_cache": {}}.items():
        site.ejabberd.api(command, **arguments)  # raises where there is none
