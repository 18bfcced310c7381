"""Exchanges on the dovecot listener that are aborted: two thousand in `make test`, a hundred thousand in `make proof`."""

import base64
import gc
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from extauth.listeners import dovecot
from extauth.model import CreateUser, Identity, Origin, Secret
from extauth.soon import settle
from tests.daemons import YES, Daemon, serve_here, with_local_accounts

PASSWORD = "fake right"
SASL = """
[listener.sasl]
protocol = "dovecot"
address = "unix:{folder}/sasl.sock"
max_pending = 256
"""
AT_ONCE = 60  # exchanges in flight
ROUNDS = 10  # of as many, on one connection
FIRST = "n,,n=alice,r={nonce}"
PARTS = ("extauth.listeners", "extauth.court", "extauth.sasl")
PLAIN = base64.b64encode(f"\0alice\0{PASSWORD}".encode()).decode()


class Peer:
    """A server that speaks the protocol to us. Blocking."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb")
        while self._file.readline() != b"DONE\n":
            pass
        self.say("VERSION\t1\t1", "CPID\t5")

    def say(self, *lines: str) -> None:
        self._socket.sendall("".join(f"{line}\n" for line in lines).encode())

    def hear(self, count: int) -> list[list[str]]:
        """Return the fields of as many lines, in the order of their ids."""
        lines = [self._file.readline().decode().rstrip("\n").split("\t") for _ in range(count)]
        return sorted(lines, key=lambda fields: int(fields[1]))

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@contextmanager
def peer_of(folder: Path) -> Generator[Peer]:
    peer = Peer(folder / "sasl.sock")
    try:
        yield peer
    finally:
        peer.close()


def begun(peer: Peer, numbers: range) -> dict[int, str]:
    """Begin exchanges by SCRAM and return the nonces they got."""
    firsts = [base64.b64encode(FIRST.format(nonce=secrets.token_hex(8)).encode()).decode() for _ in numbers]
    peer.say(*(f"AUTH\t{n}\tSCRAM-SHA-256\tservice=xmpp\tresp={first}" for n, first in zip(numbers, firsts, strict=True)))
    nonces: dict[int, str] = {}
    for number, (verb, answered, data) in zip(numbers, peer.hear(len(numbers)), strict=True):
        assert (verb, answered) == ("CONT", str(number))
        nonces[number] = base64.b64decode(data).decode().removeprefix("r=").partition(",")[0]
    return nonces


def abandon(peer: Peer, numbers: range) -> None:
    """Never answer the challenge."""
    begun(peer, numbers)


def cancel(peer: Peer, numbers: range) -> None:
    """Cancel after the challenge."""
    peer.say(*(f"CANCEL\t{number}" for number in begun(peer, numbers)))


def babble(peer: Peer, numbers: range) -> None:
    """Answer the challenge by nonsense."""
    peer.say(*(f"CONT\t{number}\t{base64.b64encode(b'nonsense').decode()}" for number in begun(peer, numbers)))
    assert {line[0] for line in peer.hear(len(numbers))} == {"FAIL"}


def guess(peer: Peer, numbers: range) -> None:
    """Answer the challenge by a proof that is none."""
    proof = base64.b64encode(secrets.token_bytes(32)).decode()
    finals = {number: f"c=biws,r={nonce},p={proof}" for number, nonce in begun(peer, numbers).items()}
    peer.say(*(f"CONT\t{number}\t{base64.b64encode(final.encode()).decode()}" for number, final in finals.items()))
    assert {line[0] for line in peer.hear(len(numbers))} == {"FAIL"}


def hurry(peer: Peer, numbers: range) -> None:
    """Cancel while the password is being checked."""
    for number in numbers:
        peer.say(f"AUTH\t{number}\tPLAIN\tservice=xmpp\tresp={PLAIN}\nCANCEL\t{number}")


WAYS: tuple[Callable[[Peer, range], None], ...] = (abandon, cancel, babble, guess, hurry)


def abort(folder: Path, connections: int) -> Counter[str]:
    """Abort ROUNDS * AT_ONCE exchanges on each of these connections, one after another; the last ones by hanging up."""
    count = Counter[str]()
    for connection in range(connections):
        with peer_of(folder) as peer:
            for turn in range(ROUNDS):
                way = WAYS[(connection + turn) % len(WAYS)]
                numbers = range(1 + turn * AT_ONCE, 1 + (turn + 1) * AT_ONCE)
                way(peer, numbers)
                count[way.__name__] += len(numbers)
    return count


def living() -> Counter[str]:
    """Return how many objects of exchanges are in memory, by their type."""
    gc.collect()
    types: list[type[object]] = [type(thing) for thing in gc.get_objects()]
    found = Counter(cls.__qualname__ for cls in types if str(cls.__module__).startswith(PARTS))
    del found["Conversation"]  # the server's loop still holds the last, which must be empty
    return found


async def nothing_left(before: Counter[str]) -> None:
    """Wait until there is not more in memory than `before`."""
    with trio.fail_after(30):
        while living() > before:
            await trio.sleep(0.01)


async def test_aborted_exchanges_leave_nothing(tmp: Path) -> None:
    async with serve_here(tmp, with_local_accounts(tmp) + SASL.format(folder=tmp)) as served:
        await settle(served.service.ask(CreateUser(Identity("alice", "xmpp.test"), Origin("test"), Secret(PASSWORD))))
        before = living()
        count = await trio.to_thread.run_sync(abort, tmp, 4)
        assert count.total() == 2400
        await nothing_left(before)


async def test_abandoned_exchanges_on_one_connection_are_bounded(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dovecot, "MAX_EXCHANGES", 100)
    async with serve_here(tmp, with_local_accounts(tmp) + SASL.format(folder=tmp)):
        before = living()
        peer = await trio.to_thread.run_sync(Peer, tmp / "sasl.sock")
        for first in range(1, 6 * AT_ONCE, AT_ONCE):
            await trio.to_thread.run_sync(abandon, peer, range(first, first + AT_ONCE))
        assert living()["Exchange"] == 100
        peer.close()
        await nothing_left(before)


def memory(daemon: Daemon) -> float:
    """Return its resident memory in MB."""
    return int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1]) * 4096 / 1e6


@pytest.mark.proof
def test_memory_stays_flat_over_100_000_aborted_exchanges(tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = with_local_accounts(tmp, ejabberd="allow_changes = true") + SASL.format(folder=tmp)
    with Daemon(tmp, text) as daemon:
        with daemon.connect() as wire:
            assert wire.ask(f"tryregister:alice:xmpp.test:{PASSWORD}") == YES
        start = time.monotonic()
        count = abort(tmp, 34)
        warm = memory(daemon)
        count += abort(tmp, 134)
        grown = memory(daemon) - warm
        seconds = time.monotonic() - start
        with daemon.connect() as wire:
            assert wire.ask(f"auth:alice:xmpp.test:{PASSWORD}") == YES
        assert "Traceback" not in daemon.log()
        assert grown < 2, f"{grown} MB more than {warm}"
        with capsys.disabled():
            print(  # noqa: T201
                f"\n  {count.total()} aborted exchanges in {seconds:.0f} s, {dict(count)}: "
                f"{warm:.1f} MB after a fifth, {grown:+.1f} MB at the end",
                end="",
            )
