"""Crashes, crowds, storms and a soak. `make test` runs them small; `make proof` at length, and prints the figures."""

import os
import random
import resource
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.daemons import ERROR, NO, YES, Daemon, Wire, frame, with_local_accounts
from tests.servers.process import poll

PASSWORD = "fake password"
WORKERS = 8


def proof(*values: object) -> object:
    """Return a parameter set that `make proof` alone runs."""
    return pytest.param(*values, marks=pytest.mark.proof)


@contextmanager
def serve(folder: Path, ejabberd: str = "") -> Generator[Daemon]:
    """Run a daemon that holds the account of alice."""
    with Daemon(folder, with_local_accounts(folder, ejabberd=f"allow_changes = true\n{ejabberd}")) as daemon:
        with daemon.connect() as wire:
            assert wire.ask(f"tryregister:alice:xmpp.test:{PASSWORD}") == YES
        yield daemon


def check_logins(wire: Wire, count: int) -> None:
    """Log in rightly and wrongly in turn."""
    for _ in range(count // 2):
        assert wire.ask(f"auth:alice:xmpp.test:{PASSWORD}") == YES
        assert wire.ask(f"auth:alice:xmpp.test:{PASSWORD}!") == NO


# Crashes --------------------------------------------------------------------------------------------------------------------


@dataclass
class Changer:
    """Changes accounts of its own one by one, until the daemon is gone, and remembers what was acknowledged."""

    wire: Wire
    name: str
    limit: int
    passwords: dict[str, str | None] = field(default_factory=dict[str, str | None])  # None: removed
    unsure: str = ""  # whose change was not acknowledged
    acknowledged: int = 0

    def run(self) -> None:
        """Register, set a second password, and remove every third account."""
        for number in range(self.limit):
            user = f"{self.name}-{number}"
            steps: list[tuple[str, str | None]] = [("tryregister", f"{PASSWORD} 1"), ("setpass", f"{PASSWORD} 2")]
            if number % 3 == 0:
                steps.append(("removeuser", None))
            for verb, password in steps:
                self.unsure = user
                if not self._change(verb, user, password):
                    return
                self.passwords[user] = password
                self.acknowledged += 1
                self.unsure = ""

    def _change(self, verb: str, user: str, password: str | None) -> bool:
        with suppress(ConnectionError):
            reply = self.wire.ask(f"{verb}:{user}:xmpp.test{'' if password is None else f':{password}'}")
            assert reply in (YES, b"")
            return reply == YES
        return False

    def check(self, daemon: Daemon) -> None:
        """Check that all of it is there."""
        self.passwords.pop(self.unsure, None)
        with daemon.connect() as wire:
            for user, password in self.passwords.items():
                assert wire.ask(f"isuser:{user}:xmpp.test") == (NO if password is None else YES), user
                assert password is None or wire.ask(f"auth:{user}:xmpp.test:{password}") == YES, user


@pytest.mark.parametrize(("changes", "rounds"), [(100, 2), proof(1000, 10)])
def test_what_was_acknowledged_survives_a_kill(tmp: Path, changes: int, rounds: int, tell: Callable[[str], None]) -> None:
    chance = random.Random(20)
    total = 0
    with serve(tmp) as daemon:
        for round_ in range(rounds):
            changers = [Changer(daemon.connect(), f"r{round_}w{worker}", changes) for worker in range(WORKERS)]
            with ThreadPoolExecutor(WORKERS) as pool:
                runs = [pool.submit(changer.run) for changer in changers]
                target = chance.randrange(changes // 10, changes)
                poll(lambda: sum(c.acknowledged for c in changers) >= target, f"{target} changes", 120)  # noqa: B023
                daemon.signal(signal.SIGKILL)
                for run in runs:
                    run.result()
                for changer in changers:
                    changer.wire.close()
                assert daemon.wait() == -signal.SIGKILL
                assert any(changer.unsure for changer in changers), "it was not killed amid changes"
                daemon.start()
                list(pool.map(Changer.check, changers, [daemon] * WORKERS))
            total += sum(changer.acknowledged for changer in changers)
    tell(f"{rounds} kills amid changes of 8 connections: all {total} acknowledged changes were there")


# Crowds ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process open as many files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory(daemon: Daemon) -> float:
    """Return its resident memory in MB."""
    pages = int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def share_of_processor(daemon: Daemon, seconds: float) -> float:
    """Return how much of one processor it uses in the next seconds."""
    before, begun = daemon.seconds_of_processor(), time.monotonic()
    time.sleep(seconds)
    return (daemon.seconds_of_processor() - before) / (time.monotonic() - begun)


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("count", [500, proof(10_000)])
def test_idle_connections_are_held_while_others_log_in(tmp: Path, count: int, tell: Callable[[str], None]) -> None:
    with serve(tmp, f"max_connections = {count + 100}") as daemon, ExitStack() as stack:
        empty = memory(daemon)
        idle = [stack.enter_context(daemon.connect()) for _ in range(count)]
        check_logins(stack.enter_context(daemon.connect()), 200)
        poll(lambda: daemon.open_files() > count, "all are accepted")
        used, share = memory(daemon) - empty, share_of_processor(daemon, 2)
        assert share < 0.25
        for wire in idle:
            wire.send("isuser:alice:xmpp.test")
        assert Counter(wire.receive() for wire in idle) == {YES: count}
        tell(f"{count} idle connections: {used:.0f} MB, {share:.1%} of one core; 200 logins meanwhile; all of them answer")


@pytest.mark.parametrize(("waiting", "seconds"), [(100, 1.0), proof(900, 10.0)])
def test_without_file_descriptors_accepting_pauses_and_logins_go_on(
    tmp: Path, waiting: int, seconds: float, tell: Callable[[str], None]
) -> None:
    with serve(tmp) as daemon, ExitStack() as stack:
        running = stack.enter_context(daemon.connect())
        check_logins(running, 2)
        limit = daemon.open_files() + 20
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (limit, limit))
        crowd = [stack.enter_context(daemon.connect()) for _ in range(waiting)]
        for wire in crowd:
            wire.send("isuser:alice:xmpp.test")
        daemon.wait_for_log("can't accept connections for now")
        assert daemon.open_files() == limit
        share = share_of_processor(daemon, seconds)
        assert share < 0.05, "a busy loop"
        check_logins(running, 100)
        assert daemon.log().count("can't accept connections for now") == 1
        for wire in crowd:
            assert wire.receive() == YES  # in the order they came; each makes room for the next
            wire.close()
        tell(f"{waiting} connections wait for {limit} descriptors: {share:.1%} of one core; logins go on; all got in later")


# Storms ---------------------------------------------------------------------------------------------------------------------


def log_in_at_once(daemon: Daemon, passwords: Sequence[str]) -> list[str]:
    """Log alice in, each time on a connection of its own; return the passwords that were answered by an outage."""
    with ExitStack() as stack:
        wires = [(password, stack.enter_context(daemon.connect())) for password in passwords]
        for password, wire in wires:
            wire.send(f"auth:alice:xmpp.test:{password}")
        replies = [(password, wire.receive()) for password, wire in wires]
    assert all(reply in (YES if password == PASSWORD else NO, ERROR) for password, reply in replies)
    return [password for password, reply in replies if reply == ERROR]


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("count", [300, proof(5000)])
def test_a_storm_of_logins_is_decided_rightly(tmp: Path, count: int, tell: Callable[[str], None]) -> None:
    """All come at once; whoever hears of an outage, since there is too much to hash, comes again, a hundred at a time."""
    with serve(tmp, f"max_connections = {count + 100}") as daemon:
        begun = time.monotonic()
        again = log_in_at_once(daemon, [PASSWORD if number % 10 else "wrong" for number in range(count)])
        seconds = time.monotonic() - begun
        tell(f"{count} logins at once: {count - len(again)} decided in {seconds:.1f} s, the others told of an outage")
        begun, rest = time.monotonic(), len(again)
        while again:
            again = again[100:] + log_in_at_once(daemon, again[:100])
        tell(f"the other {rest} come again, 100 at a time: decided in {time.monotonic() - begun:.1f} s")


def abuse(daemon: Daemon, until: float, number: int) -> Counter[str]:
    """Send all kinds of traffic, good and bad, on ever new connections."""
    chance = random.Random(number)
    count = Counter[str]()
    user = f"soak{number}"
    while time.monotonic() < until:
        with daemon.connect() as wire:
            for _ in range(chance.randrange(30)):
                right = chance.random() < 0.5
                password = PASSWORD if right else f"{PASSWORD} {chance.random()}"
                assert wire.ask(f"auth:alice:xmpp.test:{password}") == (YES if right else NO)
                assert wire.ask(f"isuser:{chance.random()}:xmpp.test") == NO
                assert wire.ask("isuser:alice:xmpp.test") == YES
                assert wire.ask(f"auth:{chance.random()}:xmpp.test:{password}") == NO
                count["questions"] += 4
            assert wire.ask(f"tryregister:{user}:xmpp.test:{password_of(chance)}") == YES
            assert wire.ask(f"removeuser:{user}:xmpp.test") == YES
            count["changes"] += 2
            assert wire.ask("nonsense:" + "x" * chance.randrange(60_000)) == NO
            wire.sock.sendall(frame(b"auth:alice:xmpp.test:cut off")[: chance.randrange(20)])
            if chance.random() < 0.5:
                wire.sock.shutdown(socket.SHUT_WR)
            count["connections"] += 1
    return count


def password_of(chance: random.Random) -> str:
    """Return a new password."""
    return f"{PASSWORD} {chance.random()}"


@pytest.mark.proof
def test_memory_stays_flat_under_mixed_traffic(tmp: Path, tell: Callable[[str], None]) -> None:
    with serve(tmp) as daemon, ThreadPoolExecutor(WORKERS) as pool:
        begun = time.monotonic()
        runs = [pool.submit(abuse, daemon, begun + 80, number) for number in range(WORKERS)]
        poll(lambda: time.monotonic() > begun + 20, "warm", 30)
        files, samples = daemon.open_files(), [memory(daemon)]
        while time.monotonic() < begun + 78:
            time.sleep(2)
            samples.append(memory(daemon))
        total = sum((run.result() for run in runs), Counter[str]())
        poll(lambda: daemon.open_files() <= files, "all connections are closed")
        early, late = sorted(samples[:10])[5], sorted(samples[-10:])[5]
        assert late < early + 2, samples
        assert "Traceback" not in daemon.log()
        tell(f"80 s of mixed traffic, {dict(total)}: {early:.1f} MB after 30 s, {late:.1f} MB at the end")
