"""Of all threads that speak LDAP, one computes at a time; the others wait for their servers.

ldap3 encodes and decodes in Python, half a millisecond at a time, and only one thread of a process runs Python at a time
anyhow. If a dozen threads compete for that, each of them may come before the thread that answers everybody else. Like this it
has one competitor.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

turn = threading.Lock()  # held by who computes


class PoliteSocket:
    """A socket that gives the turn away while it waits. To be used by who has the turn."""

    def __init__(self, sock: Any) -> None:  # noqa: ANN401 - a plain one or one with TLS
        self._sock = sock

    def recv(self, size: int) -> bytes:
        """Receive."""
        with _given_away():
            received: bytes = self._sock.recv(size)
        return received

    def sendall(self, data: bytes) -> None:
        """Send."""
        with _given_away():
            self._sock.sendall(data)

    def settimeout(self, seconds: float) -> None:
        """Limit how long each of them may take."""
        self._sock.settimeout(seconds)

    def shutdown(self, how: int) -> None:
        """End the connection."""
        self._sock.shutdown(how)

    def close(self) -> None:
        """Close it."""
        self._sock.close()


@contextmanager
def _given_away() -> Generator[None]:
    turn.release()
    try:
        yield
    finally:
        turn.acquire()
