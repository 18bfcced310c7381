"""Serves line protocols: many connections, one trio task.

The connections sit in an epoll of their own, and one task waits for that. What a front end answers at once is answered within
the same pass, without a switch to another task; the rest runs in tasks. A pass is bounded, so that others get their turn.
That takes about half the processor time of a trio stream per connection (docs/performance.md).
"""

import select
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog
import trio

from extauth.acceptor import Acceptor
from extauth.dialogue import NEVER, Connection, Dialogue, Last, Slot
from extauth.errors import ProtocolError
from extauth.journal import Journal, Occasional
from extauth.model import Origin
from extauth.sockets import Listening, SocketConfig
from extauth.soon import Soon

_log = structlog.get_logger("engine")

PASS_EVENTS = 256  # connections served before other tasks get a turn
PASS_COMMANDS = 64  # requests of one connection served before the next connection's
READ = 65536
BACKLOG_BYTES = 262144  # unsent replies after which a connection is not read any more
STALLED = 30.0  # seconds that a peer may leave its replies unread
LINGER = 1.0  # seconds to wait for a peer to close after our last reply
TICK = 0.5  # seconds between looks for what took too long
EPOLLIN, EPOLLOUT = select.EPOLLIN, select.EPOLLOUT
SERVED = EPOLLIN | EPOLLOUT


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
        self._max_pending = config.max_pending
        self._journal = journal
        self._converse = converse
        self._epoll = select.epoll()
        self._log = Occasional("engine", listener=name)
        self._acceptor = Acceptor(config, self._epoll, self._log)
        self._connections: dict[int, Connection] = {}
        self._unserved: deque[Connection] = deque()  # with requests left from the last pass
        self._nursery: trio.Nursery | None = None
        self._empty = trio.Event()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def run(self, listening: Listening, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Ready when connections are accepted."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._acceptor.start(listening)
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
        self._acceptor.stop()

    async def drain(self) -> None:
        """Accept nothing more, hang up on idle connections and wait until the busy ones are answered."""
        self.stop_accepting()
        now = trio.current_time()
        for connection in list(self._connections.values()):
            self._receive(connection)  # what has arrived is still answered
            self._serve_commands(connection, now)
            connection.closing = True
            if not (connection.commands or connection.waiting or connection.out):
                self._drop(connection)  # idle: there is no last reply that a sudden close could take along
            elif connection.is_open:
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
        with self._journal:
            for _ in range(len(self._unserved)):
                connection = self._unserved.popleft()
                connection.unserved = False
                if connection.is_open:
                    self._serve_commands(connection, now)
                    if connection.is_open:
                        self._settle(connection)
            budget = PASS_EVENTS
            while budget > 0 and (events := self._epoll.poll(0, budget)):
                budget -= len(events)
                self._take(events, now)

    def _take(self, events: list[tuple[int, int]], now: float) -> None:
        ready: list[Connection] = []
        accept = False
        # Step by step for all: what the processor has in its caches of one step serves the next connection's, too.
        for fd, event in events:
            known = self._connections.get(fd)
            if known is None:
                accept = True  # last, so that no event of this round can hit a new connection of the same number
            elif event & SERVED:
                if event & EPOLLIN:
                    self._receive(known)
                ready.append(known)
            else:
                self._drop(known)
        for connection in ready:
            if connection.commands is not None:
                self._serve_commands(connection, now)
        # Last: a peer of many connections is woken once.
        for connection in ready:
            if connection.is_open:
                self._settle(connection)
        if accept and self._acceptor.accepting:
            self._welcome()

    def _receive(self, connection: Connection) -> None:
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
            if connection.linger_until < NEVER:
                self._drop(connection)
        elif connection.linger_until == NEVER:
            connection.commands = connection.dialogue.requests(data)

    def _serve_commands(self, connection: Connection, now: float) -> None:
        """Begin requests until none is left, too many wait for an answer, or it is others' turn."""
        commands, waiting, out = connection.commands, connection.waiting, connection.out
        if commands is None or len(waiting) >= self._max_pending or len(out) >= BACKLOG_BYTES:
            return
        dialogue = connection.dialogue
        begun = 0
        try:
            for command in commands:
                connection.half_until = NEVER
                reply = dialogue.answer(command)
                if isinstance(reply, bytes) and not (waiting and dialogue.ordered):
                    out += reply
                    if type(reply) is Last:
                        connection.commands, connection.closing = None, True
                        return
                else:
                    self._wait_for(connection, reply, now)
                begun += 1
                if begun == PASS_COMMANDS:
                    if not connection.unserved:
                        connection.unserved = True
                        self._unserved.append(connection)
                    return
                if len(waiting) >= self._max_pending or len(out) >= BACKLOG_BYTES:
                    return
            connection.commands = None
            if dialogue.half and connection.half_until == NEVER:
                connection.half_until = now + self._config.request_timeout
        except ProtocolError as error:
            self._log.warning("protocol error", error=str(error))
            connection.commands, connection.closing = None, True
        except Exception:
            _log.exception("bug", listener=self._name)
            self._drop(connection)

    def _wait_for(self, connection: Connection, reply: Soon[bytes], now: float) -> None:
        slot = Slot(now + self._config.deadline)
        connection.waiting.append(slot)
        if isinstance(reply, bytes):
            slot.reply = reply
        else:
            assert self._nursery is not None
            self._nursery.start_soon(self._finish, connection, slot, reply)

    async def _finish(self, connection: Connection, slot: Slot, reply: Awaitable[bytes]) -> None:
        """Wait for a reply and put it in its place. Past its deadline the connection is closed: a late answer is never sent."""
        try:
            with slot.scope:
                slot.reply = await reply
        except ProtocolError as error:
            self._log.warning("protocol error", error=str(error))
        except Exception:
            _log.exception("bug", listener=self._name)
        if not connection.is_open:
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
        if connection.is_open:
            self._settle(connection)

    def _put(self, connection: Connection, reply: bytes) -> None:
        connection.out += reply
        if type(reply) is Last:
            connection.commands, connection.closing = None, True

    # Sending and closing --------------------------------------------------------------------------------------------------

    def _settle(self, connection: Connection) -> None:
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
            if sent == len(out):
                out.clear()
                connection.stalled_until = NEVER
            elif sent or connection.stalled_until == NEVER:
                del out[:sent]
                connection.stalled_until = trio.current_time() + STALLED
        busy, closing = connection.commands is not None, connection.closing
        if closing and not (busy or out or connection.waiting):
            self._hang_up(connection)
            return
        mask = (0 if busy or closing else EPOLLIN) | (EPOLLOUT if out else 0)
        if mask != connection.mask:
            connection.mask = mask
            self._epoll.modify(connection.fd, mask)

    def _hang_up(self, connection: Connection) -> None:
        """Close once the peer has, so that our last reply is not lost: closing with unread input would reset the connection."""
        if connection.linger_until < NEVER:
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

    def _drop(self, connection: Connection) -> None:
        if not connection.is_open:
            return
        connection.is_open = False
        del self._connections[connection.fd]
        with suppress(OSError):
            self._epoll.unregister(connection.fd)
        connection.sock.close()
        connection.commands = None
        for slot in connection.waiting:
            slot.scope.cancel()
        connection.dialogue.closed()
        if not self._connections:
            self._empty.set()
        if len(self._connections) == self._config.max_connections - 1:
            self._acceptor.resume()

    def _welcome(self) -> None:
        for sock, peer in self._acceptor.accept(len(self._connections)):
            dialogue = self._converse(Origin(self._name, peer, patience=self._config.deadline))
            connection = Connection(sock, dialogue)
            try:
                self._epoll.register(connection.fd, EPOLLIN)
            except OSError as error:  # the limit of watched descriptors
                self._log.warning("can't watch a connection", error=str(error))
                sock.close()
                continue
            self._connections[connection.fd] = connection
            connection.out += dialogue.greet()
            if dialogue.half:
                connection.half_until = trio.current_time() + self._config.request_timeout
            self._settle(connection)

    async def _watch_times(self) -> None:
        while True:
            await trio.sleep(TICK)
            now = trio.current_time()
            for connection in list(self._connections.values()):
                if now > min(connection.half_until, connection.stalled_until, connection.linger_until) or (
                    connection.waiting and now > connection.waiting[0].scope.deadline
                ):
                    self._drop(connection)
            if len(self._connections) < self._config.max_connections:
                self._acceptor.resume()
