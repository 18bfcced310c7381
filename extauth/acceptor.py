"""Accepts connections of one listener, as many as it may have, from whom it may have them."""

import errno
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

from extauth.journal import Occasional
from extauth.sockets import Listening, SocketConfig, peer_credentials, user_ids, user_name

ACCEPT_AT_ONCE = 64
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Watches a listening socket in an epoll of somebody else's.

    Raises (when made):
        ValueError: `allow_users` names somebody who does not exist.
    """

    def __init__(self, config: SocketConfig, epoll: select.epoll, log: Occasional) -> None:
        self._config = config
        self._epoll = epoll
        self._log = log
        self._allowed = user_ids(config.allow_users)
        self._listening: Listening | None = None
        self.accepting = False

    def start(self, listening: Listening) -> None:
        """Begin to accept."""
        self._listening = listening
        self.resume()

    def stop(self) -> None:
        """Accept nothing more; the listening socket may then be closed."""
        self._pause()
        self._listening = None

    def resume(self) -> None:
        """Accept again after a pause."""
        if self._listening is not None and not self.accepting:
            self._epoll.register(self._listening.sock.fileno(), select.EPOLLIN)
            self.accepting = True

    def _pause(self) -> None:
        if self.accepting and self._listening is not None:
            with suppress(OSError, ValueError):
                self._epoll.unregister(self._listening.sock.fileno())
        self.accepting = False

    def accept(self, count: int) -> Iterator[tuple[socket.socket, str]]:
        """Yield new connections and how their peers are called, while there are fewer than may be; `count` are open already.

        Pauses where there may be no more, or where this machine has no more: to be resumed when a connection has closed, or
        at the next look at the clock. A socket that is left waiting would wake us without end.
        """
        assert self._listening is not None
        for _ in range(ACCEPT_AT_ONCE):
            if count >= self._config.max_connections:
                self._log.warning("too many connections: waiting for one to close", limit=self._config.max_connections)
                self._pause()
                return
            try:
                sock, _ = self._listening.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._log.warning("can't accept connections for now", error=str(error))
                if error.errno in FULL:
                    self._pause()
                return
            peer = self._peer(sock)
            if peer is None:
                sock.close()
            else:
                count += 1
                yield sock, peer

    def _peer(self, sock: socket.socket) -> str | None:
        """Return how the peer is called in the audit line; None if it may not connect, or has gone."""
        try:
            sock.setblocking(False)
            credentials = peer_credentials(sock)
            if credentials is None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                host, port = sock.getpeername()[:2]
                return f"{host}:{port}"
        except (OSError, struct.error):
            return None
        pid, uid = credentials
        if self._allowed and uid not in self._allowed:
            self._log.warning("connection refused: not among allow_users", user=user_name(uid), pid=pid)
            return None
        return f"uid:{uid}/pid:{pid}"
