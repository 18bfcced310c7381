"""Serves line protocols: many connections, one trio task.

The connections sit in an epoll of their own, and one task waits for that. What a front end answers at once is answered within
the same pass, without a switch to another task; the rest runs in tasks. A pass is bounded, so that others get their turn.
That takes about half the processor time of a trio stream per connection (docs/performance.md).
"""

import errno
import math
import select
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import structlog
import trio

from extauth.errors import ProtocolError
from extauth.journal import Journal
from extauth.model import Origin
from extauth.sockets import Listening, SocketConfig, peer_credentials, user_ids, user_name
from extauth.soon import Soon

_log = structlog.get_logger("engine")

PASS_EVENTS = 256  # connections served before other tasks get a turn
PASS_COMMANDS = 64  # requests of one connection served before the next connection's
ACCEPT_AT_ONCE = 64
READ = 65536
BACKLOG_BYTES = 262144  # unsent replies after which a connection is not read any more
STALLED = 30.0  # seconds that a peer may leave its replies unread
LINGER = 1.0  # seconds to wait for a peer to close after our last reply
TICK = 0.5  # seconds between looks for what took too long
QUIET = 60.0  # seconds between two log lines of one kind
EPOLLIN, EPOLLOUT = select.EPOLLIN, select.EPOLLOUT
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Command = TypeVar("Command")


class Last(bytes):
    """A reply after which the connection is closed."""


class Dialogue(Protocol[Command]):
    """A protocol's side of one connection; it does no I/O."""

    ordered: bool  # replies go out in the order of the requests

    def greet(self) -> bytes:
        """Return what is sent before anything was received."""
        ...

    def requests(self, data: bytes) -> Iterator[Command]:
        """Take received bytes and yield the complete requests in them, lazily.

        Raises:
            ProtocolError: the rest can't be understood.
        """
        ...

    @property
    def half(self) -> bool:
        """Whether a part of a request has arrived and waits for the rest."""
        ...

    def answer(self, command: Command) -> Soon[bytes]:
        """Return the reply; `Last` to close the connection after it.

        Raises (at once or when awaited):
            ProtocolError: there is no answer; the connection is closed.
        """
        ...

    def closed(self) -> None:
        """The connection is gone: end what was going on. Called once."""
        ...


class _Slot:
    """The place of one reply that is being waited for."""

    __slots__ = ("reply", "scope")

    def __init__(self, deadline: float) -> None:
        self.reply: bytes | None = None
        self.scope = trio.CancelScope(deadline=deadline)


class _Connection:
    """One connection and everything about it."""

    __slots__ = (
        "closing", "commands", "dialogue", "fd", "half_until", "linger_until",
        "mask", "out", "sock", "stalled_until", "unserved", "waiting",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, dialogue: Dialogue[Any]) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.dialogue = dialogue
        self.commands: Iterator[Any] | None = None  # requests received and not yet begun
        self.waiting: deque[_Slot] = deque()  # requests begun and not yet answered
        self.out = bytearray()
        self.mask = select.EPOLLIN
        self.unserved = False  # among those with requests left from the last pass
        self.closing = False  # nothing more is read; closed when everything begun is answered
        self.half_until = math.inf  # for the rest of a request
        self.stalled_until = math.inf  # for replies to be read
        self.linger_until = math.inf  # for the peer to close, too


class Engine:
    """One listener of a line protocol."""

    def __init__(
        self,
        name: str,
        config: SocketConfig,
        journal: Journal,
        converse: Callable[[Origin], Dialogue[Any]],
    ) -> None:
        self._name = name
        self._config = config
        self._journal = journal
        self._converse = converse
        self._allowed = user_ids(config.allow_users)
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._unserved: deque[_Connection] = deque()  # with requests left from the last pass
        self._listening: Listening | None = None
        self._accepting = False
        self._quiet_until: dict[str, float] = {}
        self._nursery: trio.Nursery | None = None
        self._empty = trio.Event()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def run(self, listening: Listening, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Ready when connections are accepted."""
        self._listening = listening
        try:
            async with trio.open_nursery() as self._nursery:
                self._accept_again()
                self._nursery.start_soon(self._watch_times)
                task_status.started()
                await self._serve()
        finally:
            self.stop_accepting()
            for connection in list(self._connections.values()):
                self._drop(connection)
            self._epoll.close()

    def stop_accepting(self) -> None:
        """Accept nothing more; the listening socket may then be closed."""
        self._pause_accepting()
        self._listening = None

    async def drain(self) -> None:
        """Accept nothing more, hang up on idle connections and wait until the busy ones are answered."""
        self.stop_accepting()
        now = trio.current_time()
        for connection in list(self._connections.values()):
            self._receive(connection, now)  # what has arrived is still answered
            connection.closing = True
            if not (connection.commands or connection.waiting or connection.out):
                self._drop(connection)  # idle: there is no last reply that a sudden close could take along
            elif self._is_open(connection):
                self._settle(connection)
        while self._connections:
            self._empty = trio.Event()
            await self._empty.wait()

    # The loop -------------------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            if self._unserved:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
            self._pass(trio.current_time())

    def _pass(self, now: float) -> None:
        """Serve what is ready until nothing is, or it is others' turn: coming back through trio costs as much as answers."""
        with self._journal.gather():
            for _ in range(len(self._unserved)):
                connection = self._unserved.popleft()
                connection.unserved = False
                if self._is_open(connection):
                    self._serve_commands(connection, now)
                    if self._is_open(connection):
                        self._settle(connection)
        budget = PASS_EVENTS
        while budget > 0 and (events := self._epoll.poll(0, budget)):
            budget -= len(events)
            with self._journal.gather():
                self._take(events, now)

    def _take(self, events: list[tuple[int, int]], now: float) -> None:
        served: list[_Connection] = []
        accept = False
        for fd, event in events:
            known = self._connections.get(fd)
            if known is None:
                accept = True  # last, so that no event of this round can hit a new connection of the same number
            elif event & (EPOLLIN | EPOLLOUT):
                if event & EPOLLIN:
                    self._receive(known, now)
                else:
                    self._serve_commands(known, now)
                served.append(known)
            else:
                self._drop(known)
        # One after the other: a peer of many connections is woken once.
        for connection in served:
            if self._is_open(connection):
                self._settle(connection)
        if accept and self._accepting:
            self._accept()

    def _is_open(self, connection: _Connection) -> bool:
        return self._connections.get(connection.fd) is connection

    def _receive(self, connection: _Connection, now: float) -> None:
        try:
            data = connection.sock.recv(READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(connection)
            return
        if not data:
            # What has been asked is still answered: a peer may have closed its sending half only.
            connection.closing = True
            if connection.linger_until < math.inf:
                self._drop(connection)
        elif connection.linger_until == math.inf:
            connection.commands = connection.dialogue.requests(data)
            self._serve_commands(connection, now)

    def _serve_commands(self, connection: _Connection, now: float) -> None:
        """Begin requests until none is left, too many wait for an answer, or it is others' turn."""
        commands = connection.commands
        if commands is None:
            return
        dialogue, waiting, limit = connection.dialogue, connection.waiting, self._config.max_pending
        budget = PASS_COMMANDS
        try:
            while len(waiting) < limit and len(connection.out) < BACKLOG_BYTES:
                if not budget:
                    if not connection.unserved:
                        connection.unserved = True
                        self._unserved.append(connection)
                    break
                budget -= 1
                command = next(commands, None)
                if command is None:
                    connection.commands = None
                    if dialogue.half and connection.half_until == math.inf:
                        connection.half_until = now + self._config.request_timeout
                    break
                connection.half_until = math.inf
                reply = dialogue.answer(command)
                if isinstance(reply, bytes) and not (waiting and dialogue.ordered):
                    connection.out += reply
                    if type(reply) is Last:
                        connection.commands, connection.closing = None, True
                        break
                else:
                    self._wait_for(connection, reply, now)
        except ProtocolError as error:
            self._say("protocol error", error=str(error))
            connection.commands, connection.closing = None, True
        except Exception:
            _log.exception("bug", listener=self._name)
            self._drop(connection)

    def _wait_for(self, connection: _Connection, reply: Soon[bytes], now: float) -> None:
        slot = _Slot(now + self._config.deadline)
        connection.waiting.append(slot)
        if isinstance(reply, bytes):
            slot.reply = reply
        else:
            assert self._nursery is not None
            self._nursery.start_soon(self._finish, connection, slot, reply)

    async def _finish(self, connection: _Connection, slot: _Slot, reply: Awaitable[bytes]) -> None:
        """Wait for a reply and put it in its place. Past its deadline the connection is closed: a late answer is never sent."""
        try:
            with slot.scope:
                slot.reply = await reply
        except ProtocolError as error:
            self._say("protocol error", error=str(error))
        except Exception:
            _log.exception("bug", listener=self._name)
        if not self._is_open(connection):
            return
        now = trio.current_time()
        if slot.reply is None or now > slot.scope.deadline:
            self._drop(connection)
            return
        waiting = connection.waiting
        if connection.dialogue.ordered:
            while waiting and waiting[0].reply is not None:
                self._put(connection, waiting.popleft().reply or b"")
        else:
            waiting.remove(slot)
            self._put(connection, slot.reply)
        if not connection.unserved:
            self._serve_commands(connection, now)
        if self._is_open(connection):
            self._settle(connection)

    def _put(self, connection: _Connection, reply: bytes) -> None:
        connection.out += reply
        if type(reply) is Last:
            connection.commands, connection.closing = None, True

    # Sending and closing --------------------------------------------------------------------------------------------------

    def _settle(self, connection: _Connection) -> None:
        """Send what can be sent, and set what the connection waits for next."""
        out = connection.out
        if out:
            try:
                sent = connection.sock.send(out)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self._drop(connection)
                return
            del out[:sent]
            if not out:
                connection.stalled_until = math.inf
            elif sent or connection.stalled_until == math.inf:
                connection.stalled_until = trio.current_time() + STALLED
        if connection.closing and not out and not connection.waiting and connection.commands is None:
            self._hang_up(connection)
            return
        busy = connection.commands is not None or connection.closing
        mask = (0 if busy else EPOLLIN) | (EPOLLOUT if out else 0)
        if mask != connection.mask:
            connection.mask = mask
            self._epoll.modify(connection.fd, mask)

    def _hang_up(self, connection: _Connection) -> None:
        """Close once the peer has, so that our last reply is not lost: closing with unread input would reset the connection."""
        if connection.linger_until < math.inf:
            return
        connection.linger_until = trio.current_time() + LINGER
        try:
            connection.sock.shutdown(socket.SHUT_WR)
            if not connection.sock.recv(READ):
                self._drop(connection)
                return
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._drop(connection)
            return
        connection.mask = select.EPOLLIN
        self._epoll.modify(connection.fd, select.EPOLLIN)

    def _drop(self, connection: _Connection) -> None:
        if self._connections.pop(connection.fd, None) is None:
            return
        with suppress(OSError):
            self._epoll.unregister(connection.fd)
        connection.sock.close()
        connection.commands = None
        for slot in connection.waiting:
            slot.scope.cancel()
        connection.dialogue.closed()
        if not self._connections:
            self._empty.set()
        if not self._accepting and len(self._connections) == self._config.max_connections - 1:
            self._accept_again()

    async def _watch_times(self) -> None:
        while True:
            await trio.sleep(TICK)
            now = trio.current_time()
            for connection in list(self._connections.values()):
                if now > min(connection.half_until, connection.stalled_until, connection.linger_until) or (
                    connection.waiting and now > connection.waiting[0].scope.deadline
                ):
                    self._drop(connection)
            if not self._accepting:
                self._accept_again()

    # Accepting ------------------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self._listening is not None
        for _ in range(ACCEPT_AT_ONCE):
            if len(self._connections) >= self._config.max_connections:
                self._say("too many connections: waiting for one to close", limit=self._config.max_connections)
                self._pause_accepting()
                return
            try:
                sock, _ = self._listening.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._say("can't accept connections for now", error=str(error))
                if error.errno in FULL:
                    self._pause_accepting()  # until the next look at the clock
                return
            self._welcome(sock)

    def _welcome(self, sock: socket.socket) -> None:
        try:
            sock.setblocking(False)
            credentials = peer_credentials(sock)
            if credentials is None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                host, port = sock.getpeername()[:2]
                peer = f"{host}:{port}"
            else:
                pid, uid = credentials
                peer = f"uid:{uid}/pid:{pid}"
                if self._allowed and uid not in self._allowed:
                    self._say("connection refused: not among allow_users", user=user_name(uid), pid=pid)
                    sock.close()
                    return
            self._epoll.register(sock.fileno(), select.EPOLLIN)
        except (OSError, struct.error):
            sock.close()
            return
        dialogue = self._converse(Origin(self._name, peer, patience=self._config.deadline))
        connection = _Connection(sock, dialogue)
        self._connections[connection.fd] = connection
        connection.out += dialogue.greet()
        if dialogue.half:
            connection.half_until = trio.current_time() + self._config.request_timeout
        self._settle(connection)

    def _accept_again(self) -> None:
        if self._listening is not None and not self._accepting and len(self._connections) < self._config.max_connections:
            self._epoll.register(self._listening.sock.fileno(), select.EPOLLIN)
            self._accepting = True

    def _pause_accepting(self) -> None:
        if self._accepting and self._listening is not None:
            with suppress(OSError, ValueError):
                self._epoll.unregister(self._listening.sock.fileno())
        self._accepting = False

    def _say(self, event: str, **details: object) -> None:
        """Log it, but each kind of event at most once a minute."""
        now = trio.current_time()
        if now >= self._quiet_until.get(event, 0.0):
            self._quiet_until[event] = now + QUIET
            _log.warning(event, listener=self._name, **details)
