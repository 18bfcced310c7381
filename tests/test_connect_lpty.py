"""The connector on Debian's lpty, with the calls that Prosody's mod_auth_external makes."""

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from extauth import connect
from tests import needs
from tests.connector import CONNECT, Connection, Daemon

PLUGIN = CONNECT.parents[1] / "contrib/prosody/mod_extauth_lpty/mod_extauth_lpty.lua"
DRIVER = Path(__file__).parent / "lua/lpty_driver.lua"
PAUSE = 2  # seconds, after which the connector is in step again: 0.5 would do on a machine with nothing else to do

pytestmark = needs.debian("lpty")


@pytest.fixture
def lines(tmp: Path) -> Iterator[Daemon]:
    """Give a daemon that speaks Prosody's lines."""
    daemon = Daemon(tmp / "prosody.sock", lines=True)
    yield daemon
    daemon.stop()


class Lpty:
    """The Lua script that plays the module."""

    def __init__(self, folder: Path, daemon: Daemon, timeout: float = 5) -> None:
        link = folder / "extauth-prosody"
        if not link.exists():
            link.symlink_to(CONNECT)
        self.popen = subprocess.Popen(
            ["lua5.2", DRIVER, link, str(timeout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"EXTAUTH_PROSODY": str(daemon.path), "PATH": "/usr/bin:/bin"},
        )

    def tell(self, line: str) -> None:
        """Send a script line that prints nothing."""
        assert self.popen.stdin
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()

    def ask(self, line: str) -> str:
        """Send a script line and read what it prints."""
        self.tell(line)
        assert self.popen.stdout
        return self.popen.stdout.readline().decode().strip()

    def login(self, password: str) -> str:
        """Ask for a password: "accepted", "refused", "error" or "nothing" in time."""
        return self.ask(f"query auth:alice:xmpp.test:{password}")

    def answer(self, password: str) -> str:
        """Ask until the daemon answers: the first queries may be refused unasked.

        On a busy machine any may be: of an answer that is read late the connector can't know by which query. It is sure to
        be in step again only after a pause of half a second (docs/connector.md).
        """
        give_up = time.monotonic() + 60
        pause = 0.1
        while (verdict := self.login(password)) == "error":
            assert time.monotonic() < give_up
            self.tell(f"pause {pause}")
            pause = PAUSE
        return verdict

    def settle(self) -> None:
        """Get in step."""
        assert self.answer("wrong") == "refused"


@contextlib.contextmanager
def lpty(folder: Path, daemon: Daemon, *, plugin: bool = True, timeout: float = 5) -> Generator[Lpty]:
    """Start the script; the terminal is made raw by our Prosody plugin unless `plugin` is false."""
    module = Lpty(folder, daemon, timeout)
    if plugin:
        module.tell(f"plugin {PLUGIN}")
    try:
        yield module
    finally:
        module.popen.communicate()


def test_fifty_fresh_starts_answer_the_first_login_rightly(lines: Daemon, tmp: Path) -> None:
    """A new terminal each time, with the plugin of ours that makes it raw."""
    for start in range(50):
        with lpty(tmp, lines) as module:
            passwords = ("right", "wrong") if start % 2 else ("wrong", "right")
            verdicts = [module.login(passwords[0]), module.answer(passwords[1])]
            assert verdicts == ["accepted" if password == "right" else "refused" for password in passwords]


def test_fifty_restarts_on_one_terminal_answer_the_first_login_rightly(lines: Daemon, tmp: Path) -> None:
    """Without the plugin: only the first query of a terminal's life can be lost."""
    with lpty(tmp, lines, plugin=False) as module:
        module.settle()
        for start in range(50):
            password, verdict = ("right", "accepted") if start % 2 else ("wrong", "refused")
            assert module.login(password) == verdict
            assert module.ask("end") == "exit"


@pytest.mark.parametrize("pause", [0, 0.01, 0.03, 0.1, 0.4])
def test_an_echoed_query_never_shifts_the_answers(lines: Daemon, tmp: Path, pause: float) -> None:
    """Without the plugin the first login may fail, but no query ever gets another's answer."""
    for _ in range(4):
        with lpty(tmp, lines, plugin=False) as module:
            assert module.login("right") == "error"  # its own echo, or our refusal
            module.tell(f"pause {pause}")
            assert module.login("wrong") in ("error", "refused")
            assert module.login("right") in ("error", "accepted")
            module.settle()
            assert [module.answer(password) for password in ("wrong", "right", "wrong")] == [
                "refused",
                "accepted",
                "refused",
            ]


@pytest.mark.parametrize("plugin", [True, False])
@pytest.mark.parametrize(
    "password",
    ["\\x03", "\\x1c", "\\x1a", "\\x11", "\\x13", "\\x0d", "\\x04", "\\x7f", "\\x15", "\\x16", "\\xff"],
)
def test_no_byte_is_special_to_the_terminal(lines: Daemon, tmp: Path, plugin: bool, password: str) -> None:  # noqa: FBT001
    """Not even in the first query; a query that smuggles another is refused, and answers stay in step."""
    byte = bytes.fromhex(password[2:])
    smuggled = f"x{password}auth:mallory:xmpp.test:right"
    with lpty(tmp, lines, plugin=plugin) as module:
        lines.otherwise = lambda connection, request: connection.sendall(
            b"1\n" if request in (b"auth:alice:xmpp.test:right\n", b"auth:mallory:xmpp.test:right\n") else b"0\n"
        )
        assert module.login(smuggled) in ("refused", "error")
        if not plugin:
            module.settle()
        verdicts = [module.answer(password) for password in ("wrong", smuggled, "right", "wrong")]
        assert verdicts == ["refused", "refused", "accepted", "refused"]
    # The one that follows "wrong" arrives as it was sent.
    assert b"auth:alice:xmpp.test:x" + byte + b"auth:mallory:xmpp.test:right\n" in lines.requests


def test_a_line_break_in_a_query_gets_one_refusal(lines: Daemon, tmp: Path) -> None:
    with lpty(tmp, lines) as module:
        assert module.login("wrong\\x0aauth:mallory:xmpp.test:right") == "error"
        assert [module.answer(password) for password in ("wrong", "right")] == ["refused", "accepted"]
    assert len(lines.requests) == 2


def test_a_late_answer_shifts_nothing(lines: Daemon, tmp: Path) -> None:
    late = threading.Event()

    def answer_late(connection: Connection, _request: bytes) -> None:
        late.wait(20)
        connection.sendall(b"1\n")

    lines.behaviours = [answer_late]
    with lpty(tmp, lines) as module:
        assert module.login("right") == "error"  # in time for the module, before its 5 s
        late.set()
        assert [module.answer(password) for password in ("wrong", "right")] == ["refused", "accepted"]


def test_a_stopped_connector_shifts_nothing(lines: Daemon, tmp: Path) -> None:
    """Stopped past the limit while a query is in flight: that query is never answered."""
    stopped = threading.Event()

    def stop_it(connection: Connection, _request: bytes) -> None:
        child = Path(f"/proc/{module.popen.pid}/task/{module.popen.pid}/children").read_text().split()[0]
        os.kill(int(child), signal.SIGSTOP)
        stopped.set()
        connection.sendall(b"1\n")
        threading.Timer(connect.Prosody.silence + 0.2, os.kill, (int(child), signal.SIGCONT)).start()

    lines.behaviours = [stop_it]
    with lpty(tmp, lines) as module:
        assert module.login("right") == "nothing"
        assert stopped.is_set()
        for _ in range(2):  # SIGCHLD ends reads early, at the stop and at the end of it
            assert module.login("wrong") in ("nothing", "refused", "error")
        module.tell(f"pause {PAUSE}")  # what comes sooner may get the answer of the one that was given up
        module.settle()
        assert [module.answer(password) for password in ("right", "wrong")] == ["accepted", "refused"]


@pytest.mark.parametrize("pause", [0, 1.0])
def test_a_reader_that_left_early_shifts_nothing(lines: Daemon, tmp: Path, pause: float) -> None:
    """Any signal to Prosody ends the module's read; the answer that comes then is not the next query's."""

    def interrupt(connection: Connection, _request: bytes) -> None:
        status = Path(f"/proc/{module.popen.pid}/stat")
        while status.read_text().split()[2] != "S":  # until it waits for the answer
            time.sleep(0.001)
        os.kill(module.popen.pid, signal.SIGCHLD)  # for which lpty has a handler
        time.sleep(0.2)
        connection.sendall(b"1\n")

    with lpty(tmp, lines) as module:
        assert module.login("right") == "accepted"
        for _ in range(3):
            lines.behaviours = [interrupt]
            assert module.login("right") == "nothing"
            module.tell(f"pause {pause}")
            assert [module.answer(password) for password in ("wrong", "right")] == ["refused", "accepted"]


def test_a_daemon_restart_shifts_nothing(lines: Daemon, tmp: Path) -> None:
    def restart(_connection: Connection, _request: bytes) -> None:
        lines.stop()
        threading.Timer(0.2, lines.start).start()

    with lpty(tmp, lines) as module:
        for _ in range(3):
            lines.behaviours = [restart]
            assert [module.answer(password) for password in ("right", "wrong")] == ["accepted", "refused"]
        lines.stop()
        assert [module.login(password) for password in ("right", "wrong")] == ["error", "error"]
        lines.start()
        assert [module.answer(password) for password in ("wrong", "right")] == ["refused", "accepted"]


def test_the_connector_ends_with_the_module(lines: Daemon, tmp: Path) -> None:
    """Even when the server is killed: no copy of the terminal's other side is kept."""
    for plugin in (True, False):
        module = Lpty(tmp, lines)
        if plugin:
            module.tell(f"plugin {PLUGIN}")
        module.settle()
        assert module.login("right") == "accepted"
        child = Path(f"/proc/{module.popen.pid}/task/{module.popen.pid}/children").read_text().split()[0]
        watch = os.pidfd_open(int(child))
        module.popen.kill()
        module.popen.communicate()
        assert select.select([watch], [], [], 20)[0]
        os.close(watch)
