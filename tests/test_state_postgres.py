"""The daemon with its state on a real PostgreSQL; both are killed, stopped and paused while accounts change and log in."""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from tests import needs
from tests.crowd import connect
from tests.daemons import ERROR, NO, YES, Daemon, Wire, extauth, frame, with_local_accounts
from tests.servers.postgres import Postgres
from tests.servers.process import temporary_folder

pytestmark = needs.debian("postgresql")

USERS = 20
DEADLINE = 4.0
MARGIN = 3.0  # of a loaded machine, for what is not the daemon's


@pytest.fixture
def server() -> Iterator[Postgres]:
    """Give a server that may be killed."""
    with temporary_folder() as folder, Postgres(folder) as started:
        yield started


@pytest.fixture
def daemon(tmp: Path, server: Postgres) -> Daemon:
    """Give a daemon that keeps its state there; not started yet."""
    text = with_local_accounts(tmp, ejabberd=f"allow_changes = true\ndeadline = {DEADLINE}")
    return Daemon(tmp, text.replace(f"sqlite://{tmp}/state/state.db", server.url))


def test_accounts_are_kept_without_a_daemon_and_found_by_one(daemon: Daemon) -> None:
    added = extauth("user", "add", "-c", daemon.config, "--password-stdin", "alice@xmpp.test", stdin="fake password\n")
    assert added.returncode == 0, added.stderr
    assert extauth("user", "list", "-c", daemon.config).stdout == "alice@xmpp.test\n"
    with daemon:
        assert daemon.login("fake password") == YES
        assert daemon.login("another one") == NO


class Changes:
    """Sets the passwords of some users, one after the other, and keeps what was answered."""

    def __init__(self, daemon: Daemon, users: list[str]) -> None:
        self._daemon = daemon
        self.acknowledged = 0
        self.given_up = False
        self.possible: dict[str, list[str]] = {user: ["fake first one"] for user in users}

    def run(self, count: int) -> None:
        number = 0
        while self.acknowledged < count and not self.given_up:
            number += 1
            user = random.choice(list(self.possible))
            password = f"fake {user} {number}"
            reply = self._change(user, password)
            assert reply != NO
            if reply == YES:
                self.acknowledged += 1
                self.possible[user] = [password]  # nothing else can log in from now on
            else:
                self.possible[user].append(password)
                time.sleep(0.02)  # it is about changes that can be made

    def _change(self, user: str, password: str) -> bytes:
        try:
            with self._daemon.connect() as wire:
                return wire.ask(f"setpass:{user}:xmpp.test:{password}")
        except (OSError, AssertionError):
            return b""


def change_while_killing(daemon: Daemon, server: Postgres, count: int, lull: float, tell: Callable[[str], None]) -> None:
    """Make changes until `count` are acknowledged while daemon and database are killed; all that was acknowledged is there."""
    with daemon:
        users = [f"user{number}" for number in range(USERS)]
        for user in users:
            with daemon.connect() as wire:
                assert wire.ask(f"tryregister:{user}:xmpp.test:fake first one") == YES
        workers = [Changes(daemon, users[start::4]) for start in range(4)]
        threads = [threading.Thread(target=worker.run, args=(count // 4,)) for worker in workers]
        for thread in threads:
            thread.start()
        kills = 0
        try:
            while any(thread.is_alive() for thread in threads) or kills < 2:
                time.sleep(random.uniform(0.1, lull))
                victim = (daemon, server)[kills % 2]
                victim.kill()
                victim.start()
                kills += 1
        finally:
            for worker in workers:
                worker.given_up = True
            for thread in threads:
                thread.join()
        for worker in workers:
            for user, passwords in worker.possible.items():
                replies = [login(daemon, user, password) for password in passwords]
                assert YES in replies, (user, passwords, replies)
        tell(f"{count} changes acknowledged, {kills} kills: none of them lost")


def login(daemon: Daemon, user: str, password: str) -> bytes:
    def ask() -> bytes:
        try:
            with daemon.connect() as wire:
                return wire.ask(f"auth:{user}:xmpp.test:{password}")
        except OSError:
            return b""

    deadline = time.monotonic() + 20
    while (reply := ask()) not in (YES, NO) and time.monotonic() < deadline:
        time.sleep(0.05)
    return reply


def test_no_change_that_was_acknowledged_is_lost(daemon: Daemon, server: Postgres, tell: Callable[[str], None]) -> None:
    change_while_killing(daemon, server, 100, 1.5, tell)


@pytest.mark.proof
def test_of_2000_changes_none_that_was_acknowledged_is_lost(
    daemon: Daemon, server: Postgres, tell: Callable[[str], None]
) -> None:
    change_while_killing(daemon, server, 2000, 8, tell)


class Logins:
    """Logs in 50 times a second."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.replies: list[bytes] = []
        self.slowest = 0.0

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._login)
                await trio.sleep(1 / 50)

    async def _login(self) -> None:
        begun = trio.current_time()
        stream = await connect(str(self._daemon.folder / "ejabberd.sock"))
        with trio.CancelScope(shield=True):
            async with stream:
                await stream.send_all(frame(b"auth:alice:xmpp.test:fake password"))
                header = await stream.receive_some(2)
                self.replies.append(await stream.receive_some(2) if header else b"")
        self.slowest = max(self.slowest, trio.current_time() - begun)


async def survive(daemon: Daemon, server: Postgres, seconds: float, tell: Callable[[str], None]) -> None:
    """Log in all the time while the database is mistreated, with some seconds between each."""
    run = trio.to_thread.run_sync
    logins = Logins(daemon)

    async def mistreat() -> None:
        for _ in range(3):
            await trio.sleep(seconds / 3)
            await run(server.kill_connections)
        await trio.sleep(seconds)
        await run(server.stop)
        await run(server.start)
        await trio.sleep(seconds)
        server.signal(signal.SIGSTOP)
        await trio.sleep(seconds)
        server.signal(signal.SIGCONT)
        await trio.sleep(seconds)

    with daemon:
        with Wire(daemon.folder / "ejabberd.sock") as wire:
            assert wire.ask("tryregister:alice:xmpp.test:fake password") == YES
        async with trio.open_nursery() as nursery:
            nursery.start_soon(logins.run)
            await mistreat()
            nursery.cancel_scope.cancel()
        assert NO not in logins.replies
        assert set(logins.replies) <= {YES, ERROR, b""}
        assert logins.slowest < DEADLINE + MARGIN
        assert await run(login, daemon, "alice", "fake password") == YES
        done, all_ = logins.replies.count(YES), len(logins.replies)
        assert done > all_ / 3
        tell(f"{all_} logins, {done} done, {all_ - done} told as an outage, none refused; slowest {logins.slowest:.1f} s")


async def test_no_login_is_refused_because_of_the_database(
    daemon: Daemon, server: Postgres, tell: Callable[[str], None]
) -> None:
    await survive(daemon, server, 1.5, tell)


@pytest.mark.proof
async def test_no_login_is_refused_because_of_the_database_for_long(
    daemon: Daemon, server: Postgres, tell: Callable[[str], None]
) -> None:
    await survive(daemon, server, 6, tell)
