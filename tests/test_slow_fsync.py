"""A disk that takes 50 ms for each fsync: who only asks does not notice, and changes that come together share one."""

import select
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import needs
from tests.daemons import NO, YES, Daemon, Wire, with_local_accounts
from tests.servers.process import poll, temporary_folder

PASSWORD = "fake password"

pytestmark = needs.program("cc")


class SlowDisk:
    """What the preloaded library is told, and what it has done."""

    def __init__(self, folder: Path) -> None:
        self.library = folder / "slow_fsync.so"
        self._log = folder / "fsyncs"
        self._hold = folder / "fsyncs.hold"
        source = Path(__file__).with_name("slow_fsync.c")
        subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", self.library, source], check=True)
        self.environment = {"LD_PRELOAD": str(self.library), "SLOW_FSYNC": str(self._log)}

    def begun(self) -> int:
        """Return how many fsyncs have begun."""
        return self._log.read_bytes().count(b"(")

    def ended(self) -> int:
        """Return how many fsyncs have ended."""
        return self._log.read_bytes().count(b")")

    def hold(self) -> None:
        """Let no further fsync end."""
        poll(lambda: self.begun() == self.ended(), "the disk is at rest")
        self._hold.touch()

    def release(self) -> None:
        """Let them end again."""
        self._hold.unlink()


@pytest.fixture(scope="module")
def disk() -> Iterator[SlowDisk]:
    with temporary_folder() as folder:
        yield SlowDisk(folder)


@pytest.fixture(scope="module")
def daemon(disk: SlowDisk) -> Iterator[Daemon]:
    with temporary_folder() as folder:
        server = Daemon(folder, with_local_accounts(folder, ejabberd="allow_changes = true"))
        server.environment = {**server.environment, **disk.environment}
        with server:
            with server.connect() as wire:
                assert wire.ask(f"tryregister:alice:xmpp.test:{PASSWORD}") == YES
            yield server


def answered(wire: Wire) -> bool:
    """Tell whether a reply is there."""
    return bool(select.select([wire.sock], [], [], 0)[0])


def test_questions_do_not_wait_for_the_disk_and_no_change_is_acknowledged_before_it(daemon: Daemon, disk: SlowDisk) -> None:
    with daemon.connect() as changing, daemon.connect() as asking:
        disk.hold()
        begun, ended = disk.begun(), disk.ended()
        changing.send(f"tryregister:bob:xmpp.test:{PASSWORD}")
        poll(lambda: disk.begun() > begun, "the change is being written")
        for _ in range(100):
            assert asking.ask("isuser:alice:xmpp.test") == YES
            assert asking.ask("isuser:bob:xmpp.test") == NO
        assert asking.ask(f"auth:alice:xmpp.test:{PASSWORD}") == YES
        assert asking.ask(f"auth:alice:xmpp.test:{PASSWORD}!") == NO
        assert disk.ended() == ended
        assert not answered(changing)
        disk.release()
        assert changing.receive() == YES
        assert disk.ended() > ended
        assert asking.ask("isuser:bob:xmpp.test") == YES


def test_changes_that_come_together_share_an_fsync(daemon: Daemon, disk: SlowDisk) -> None:
    count = 30
    with daemon.connect() as asking, ExitStack() as stack:
        wires = [stack.enter_context(daemon.connect()) for _ in range(count)]
        for number, wire in enumerate(wires):
            wire.send(f"tryregister:user{number}:xmpp.test:{PASSWORD}")
        assert [wire.receive() for wire in wires] == [YES] * count
        disk.hold()
        begun = disk.begun()
        wires[0].send("removeuser:user0:xmpp.test")
        poll(lambda: disk.begun() > begun, "the first is being written")
        for number, wire in enumerate(wires[1:], 1):
            wire.send(f"removeuser:user{number}:xmpp.test")
        for _ in range(20):  # gives all others the time to queue up
            assert asking.ask("isuser:alice:xmpp.test") == YES
        disk.release()
        assert [wire.receive() for wire in wires] == [YES] * count
        assert 2 <= disk.begun() - begun <= count // 5


def test_many_questions_are_answered_during_a_series_of_changes(daemon: Daemon, disk: SlowDisk) -> None:
    questions, begun = 0, disk.begun()
    with daemon.connect() as changing, daemon.connect() as asking:
        for number in range(20):
            changing.send(f"setpass:alice:xmpp.test:{PASSWORD} {number}")
            while not answered(changing):
                assert asking.ask("isuser:alice:xmpp.test") == YES
                questions += 1
            assert changing.receive() == YES
    assert disk.begun() - begun >= 20
    assert questions >= 10 * (disk.begun() - begun)
