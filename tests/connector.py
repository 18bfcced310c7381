"""A daemon that does what a test says, and the connector run as servers run it."""

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from extauth import connect

CONNECT = Path(connect.__file__)

YES, NO, OUTAGE = b"\0\2\0\1", b"\0\2\0\0", b"\0\1\0"
OUTAGE_LINE = connect.Prosody.outage

Connection = socket.socket
Behaviour = Callable[[Connection, bytes], None]


def frame(payload: bytes) -> bytes:
    """Put ejabberd's length before the payload."""
    return len(payload).to_bytes(2) + payload


def answer_by_password(connection: Connection, request: bytes) -> None:
    """Say yes if the request ends in ":right", in the protocol of the request."""
    if request.endswith(b"\n"):
        connection.sendall(b"1\n" if request.endswith(b":right\n") else b"0\n")
    else:
        connection.sendall(YES if request.endswith(b":right") else NO)


class Daemon:
    """A daemon on a unix socket; `behaviours` are used up one per request, then `otherwise` answers."""

    def __init__(self, path: Path, *, lines: bool = False, greeting: bytes = b"") -> None:
        self.path = path
        self.behaviours: list[Behaviour] = []
        self.otherwise: Behaviour = answer_by_password
        self.requests: list[bytes] = []
        self.greeting = greeting
        self._lines = lines
        self._connections: list[Connection] = []
        self.start()

    def start(self) -> None:
        """Listen, as after a restart."""
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        threading.Thread(target=self.accept, args=(self._listener,), daemon=True).start()

    def stop(self, *, keep_file: bool = False) -> None:
        """Close everything, as a crash does."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if not keep_file:
            self.path.unlink(missing_ok=True)
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def accept(self, listener: Connection) -> None:
        """Serve a listening socket until it is closed."""
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        with connection, connection.makefile("rb") as requests, contextlib.suppress(OSError):
            connection.sendall(self.greeting)
            while request := self._next(requests):
                self.requests.append(request)
                behaviour = self.behaviours.pop(0) if self.behaviours else self.otherwise
                behaviour(connection, request)

    def _next(self, requests: Any) -> bytes:  # noqa: ANN401 - the type of makefile differs between checkers
        if self._lines:
            return bytes(requests.readline())
        header = bytes(requests.read(2))
        return header + bytes(requests.read(int.from_bytes(header)))


def hang_up(connection: Connection, _request: bytes) -> None:
    """Close without an answer."""
    connection.shutdown(socket.SHUT_RDWR)


def send(data: bytes) -> Behaviour:
    """Answer with these bytes."""
    return lambda connection, _request: connection.sendall(data)


class Process:
    """A running connector on pipes."""

    def __init__(self, protocol: str, address: str) -> None:
        self.popen = subprocess.Popen(
            ["/usr/bin/python3", "-SIE", str(CONNECT), protocol, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def write(self, data: bytes) -> None:
        """Write to the connector at once."""
        assert self.popen.stdin
        self.popen.stdin.write(data)
        self.popen.stdin.flush()

    def ask(self, request: bytes) -> bytes:
        """Write a request and read one reply, in ejabberd's framing or as a line."""
        self.write(request)
        return self.reply(line=request.endswith(b"\n"))

    def reply(self, *, line: bool = False) -> bytes:
        """Read one reply; empty at the end of file."""
        assert self.popen.stdout
        if line:
            return self.popen.stdout.readline()
        header = self.popen.stdout.read(2)
        return header + self.popen.stdout.read(int.from_bytes(header))

    def end(self) -> tuple[bytes, str]:
        """Close stdin, expect exit status 0; what was left on stdout, and stderr."""
        out, err = self.popen.communicate(timeout=20)
        assert self.popen.returncode == 0, err
        return out, err.decode()


@contextlib.contextmanager
def connector(protocol: str, address: str | Path) -> Generator[Process]:
    """Start a connector and end it, whatever happens."""
    process = Process(protocol, str(address))
    with process.popen:
        try:
            yield process
        finally:
            process.popen.kill()


RIGHT = frame(b"auth:alice:xmpp.test:right")
WRONG = frame(b"auth:alice:xmpp.test:wrong")
RIGHT_LINE = b"auth:alice:xmpp.test:right\n"
WRONG_LINE = b"auth:alice:xmpp.test:wrong\n"
