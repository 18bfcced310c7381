"""The contender "bare epoll": the least Python that answers the same questions right. No audit, no counters, no limits.

    python -m bench.bare_server DATABASE DOMAIN SOCKET

`isuser` is looked up by the statement of our own backend; `auth` in a dictionary of the accounts of DOMAIN.
"""

import select
import socket
import sqlite3
import sys
from collections.abc import Callable
from hmac import compare_digest

from bench.plain_backend import passwords

EXISTS = "SELECT name FROM account WHERE domain = $1 AND name = $2"
YES, NO = b"\x00\x02\x00\x01", b"\x00\x02\x00\x00"


def serve(database: str, domain: str, path: str) -> None:
    """Serve until ended."""
    execute = sqlite3.connect(database, isolation_level=None).execute
    accounts = {(user, domain): password for user, password in passwords(1000).items()}

    def answer(question: str) -> bytes:
        operation, user, rest = question.split(":", 2)
        if operation == "auth":
            host, _, password = rest.partition(":")
            known = accounts.get((user, host))
            return YES if known is not None and compare_digest(known, password) else NO
        return YES if execute(EXISTS, {"1": rest, "2": user}).fetchone() else NO

    loop(path, answer)


def loop(path: str, answer: Callable[[str], bytes]) -> None:
    """Answer the questions of all connections to a socket, one after the other, until ended."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(1024)
    epoll = select.epoll()
    epoll.register(listening.fileno(), select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for fd, _ in epoll.poll():
            if fd == listening.fileno():
                sock, _ = listening.accept()
                connections[sock.fileno()] = sock
                epoll.register(sock.fileno(), select.EPOLLIN)
                continue
            # The generator has one question in flight, so that what arrives is one frame.
            frame = connections[fd].recv(65536)
            if frame:
                connections[fd].send(answer(frame[2:].decode()))
            else:
                epoll.unregister(fd)
                connections.pop(fd).close()


if __name__ == "__main__":
    serve(*sys.argv[1:])
