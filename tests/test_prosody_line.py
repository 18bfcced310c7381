"""Prosody's lines over TCP as the `@host:port` variant of mod_auth_external speaks them: a new connection for each query."""

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.daemons import Daemon, configuration
from tests.servers.process import free_port, listens, poll, temporary_folder

DELAY = 0.5  # s that the daemon takes for "slow"


class Variant:
    """What that variant does: it hangs up before each query, connects, sends a line and reads one, by `timeout` seconds."""

    def __init__(self, port: int, timeout: float = 5) -> None:
        self._port = port
        self._timeout = timeout
        self._sock: socket.socket | None = None

    def query(self, text: str) -> str | None:
        """Return the reply without its end; None if there is none in time or at all."""
        self.hang_up()
        with suppress(OSError):
            self._sock = socket.create_connection(("127.0.0.1", self._port), self._timeout)
            self._sock.sendall(f"{text}\n".encode())
            with self._sock.makefile() as replies:
                return replies.readline().removesuffix("\n") or None
        return None

    def hang_up(self) -> None:
        """Close the connection."""
        if self._sock is not None:
            self._sock.close()


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def daemon(port: int) -> Iterator[Daemon]:
    with temporary_folder() as folder:
        over_tcp = f'[listener.tcp]\nprotocol = "prosody"\naddress = "tcp:127.0.0.1:{port}"\n'
        text = configuration(folder, memory=f"delay = {DELAY}") + over_tcp
        with Daemon(folder, text) as server:
            yield server


@pytest.fixture
def variant(daemon: Daemon, port: int) -> Iterator[Variant]:
    poll(lambda: listens(port), f"{daemon.pid} listens")
    variant = Variant(port)
    yield variant
    variant.hang_up()


@pytest.mark.parametrize(
    ("query", "reply"),
    [
        ("auth:alice:xmpp.test:fake right", "1"),
        ("auth:alice:xmpp.test:fake wrong", "0"),
        ("auth:alice:xmpp.test:", "0"),
        ("auth:nobody:xmpp.test:fake right", "0"),
        ("auth:alice:other.test:fake right", "0"),
        ("isuser:alice:xmpp.test", "1"),
        ("isuser:nobody:xmpp.test", "0"),
        ("setpass:alice:xmpp.test:fake other", "0"),
        ("nonsense", "0"),
        ("auth:down:xmpp.test:fake right", "error: temporarily unavailable"),
    ],
)
def test_each_query_has_its_reply(variant: Variant, query: str, reply: str) -> None:
    assert variant.query(query) == reply


def test_no_reply_is_shifted_and_no_connection_left_behind(daemon: Daemon, variant: Variant) -> None:
    files = daemon.open_files()
    passwords = ["right", "wrong", "wrong", "right", "wrong"] * 60
    replies = [variant.query(f"auth:alice:xmpp.test:fake {password}") for password in passwords]
    assert replies == ["1" if password == "right" else "0" for password in passwords]
    variant.hang_up()
    poll(lambda: daemon.open_files() <= files, "all connections are closed")


def test_a_query_that_was_given_up_answers_no_other(variant: Variant, port: int) -> None:
    hasty = Variant(port, timeout=DELAY / 5)
    for _ in range(3):
        assert hasty.query("auth:slow:xmpp.test:fake slow") is None  # the daemon says yes later
        assert hasty.query("auth:alice:xmpp.test:fake wrong") == "0"
    hasty.hang_up()
    assert variant.query("auth:slow:xmpp.test:fake slow") == "1"


def test_a_restart_is_noticed_only_meanwhile(daemon: Daemon, variant: Variant) -> None:
    assert variant.query("auth:alice:xmpp.test:fake right") == "1"
    daemon.stop()
    try:
        assert variant.query("auth:alice:xmpp.test:fake right") is None
    finally:
        daemon.start()
    poll(lambda: variant.query("auth:alice:xmpp.test:fake right") == "1", "the daemon answers again")
    assert variant.query("auth:alice:xmpp.test:fake wrong") == "0"
