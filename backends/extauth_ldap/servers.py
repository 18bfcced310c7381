"""Several servers of one directory: who is asked, and how one that is down costs no login twice."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TypeVar

import structlog

from extauth.errors import BackendDown
from extauth.model import Reason, Secret
from extauth_ldap import diagnosis
from extauth_ldap.messages import SERVER_DOWN, SERVER_UP
from extauth_ldap.wire import Address, Connection, ServerDown

T = TypeVar("T")
Call = Callable[[Connection, float], T]

_log = structlog.get_logger("ldap")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds until a server that was down is tried again
SHORTEST_TRY = 0.2  # seconds: with less left, no further server is tried


class Purpose(Enum):
    """What a connection is for. One that users' passwords are tried on never searches, and the other way round."""

    SEARCH = "search"
    BIND = "bind"


class Server:
    """One server with its idle connections, and the memory of whether it is down."""

    def __init__(self, address: Address, account: tuple[str, Secret] | None) -> None:
        self.url = address.url
        self._address = address
        self._account = account
        self._lock = threading.Lock()
        self._idle: dict[Purpose, list[Connection]] = {purpose: [] for purpose in Purpose}
        self._pause = 0.0
        self._retry_at = 0.0
        self.problem = ""  # why it is down; "" while it is not

    def use(self, purpose: Purpose, call: Call[T], deadline: float) -> T:
        """Make a call on an idle connection; if that turns out dead, or there is none, on a new one.

        Raises:
            ServerDown: and from then on it counts as down.
        """
        try:
            with self._lock:
                connection = self._idle[purpose].pop() if self._idle[purpose] else None
            if connection is not None:
                try:
                    return self._call(connection, purpose, call, deadline)
                except ServerDown:
                    self.close()  # it was restarted, or closes what is idle
            return self._call(self._connect(purpose, deadline), purpose, call, deadline)
        except ServerDown as down:
            self._failed(str(down))
            raise

    def _call(self, connection: Connection, purpose: Purpose, call: Call[T], deadline: float) -> T:
        try:
            result = call(connection, deadline)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._idle[purpose].append(connection)
            if self.problem:
                _log.info(SERVER_UP, server=self.url)
            self.problem, self._pause = "", 0.0
        return result

    def _connect(self, purpose: Purpose, deadline: float) -> Connection:
        connection = Connection(self._address, deadline)
        if purpose is Purpose.SEARCH and self._account is not None:
            name, password = self._account
            try:
                outcome = connection.bind(name, password, deadline)
                if diagnosis.of_bind(outcome) is not Reason.OK:
                    raise ServerDown(f"{self.url}: bind_dn: {outcome.name}")
            except BaseException:
                connection.close()
                raise
        return connection

    def _failed(self, problem: str) -> None:
        self.close()
        with self._lock:
            if not self.problem:
                _log.warning(SERVER_DOWN, server=self.url, problem=problem)
            self.problem = problem
            if time.monotonic() >= self._retry_at:
                self._postpone()

    def _postpone(self) -> None:
        self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)
        self._retry_at = time.monotonic() + self._pause * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load

    def claim(self) -> bool:
        """Tell whether a server that is down is to be tried again, by whoever asks first."""
        with self._lock:
            due = bool(self.problem) and time.monotonic() >= self._retry_at
            if due:
                self._postpone()
            return due

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            closing = [connection for idle in self._idle.values() for connection in idle]
            self._idle = {purpose: [] for purpose in Purpose}
        for connection in closing:
            connection.close()


class Servers:
    """The servers in the order of preference. `patience` is the time in seconds that one may take of a login."""

    def __init__(self, servers: Sequence[Server], patience: float) -> None:
        self._servers = servers
        self._patience = patience

    def run(self, purpose: Purpose, call: Call[T], deadline: float) -> T:
        """Make a call on the first server that works.

        Raises:
            BackendDown: none does, or the time is over; with what was tried.
        """
        problems: list[str] = []
        for server in self._candidates():
            left = deadline - time.monotonic()
            if left < SHORTEST_TRY:
                problems.append("no time left to try another server")
                break
            try:
                return server.use(purpose, call, time.monotonic() + min(left, self._patience))
            except ServerDown as down:
                problems.append(str(down))
        raise BackendDown("; ".join(problems or [server.problem for server in self._servers]))

    def _candidates(self) -> list[Server]:
        up = [server for server in self._servers if not server.problem]
        due = [server for server in self._servers if server.claim()]
        if not up:
            return due
        for server in due:  # in a thread of its own: no login waits for a server that may still be down
            threading.Thread(target=self._probe, args=(server,), name=f"probe {server.url}", daemon=True).start()
        return up

    def _probe(self, server: Server) -> None:
        try:
            server.use(Purpose.SEARCH, lambda _connection, _deadline: None, time.monotonic() + self._patience)
        except BackendDown as down:
            _log.debug("directory_server_still_down", server=server.url, problem=str(down))

    def close(self) -> None:
        """Close all idle connections."""
        for server in self._servers:
            server.close()
