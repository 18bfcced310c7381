"""A database that is away for a moment costs no login; one that stays away is told at once."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
import trio

from extauth.errors import BackendDown
from extauth.sql.database import Database, Lost, Row
from extauth.sql.statement import Statement

T = TypeVar("T")

_log = structlog.get_logger("sql")

RESTART = 3.0  # seconds that a restart may take: as long, logins wait for it, if their deadlines let them
PAUSE = 0.05  # seconds between two tries of a login that waits
PROBE = 0.5  # seconds between two tries afterwards


class PatientDatabase:
    """Tries again what found no connection. One for each backend, of the `name`."""

    def __init__(self, name: str, database: Database) -> None:
        self._name = name
        self._database = database
        self._problem = ""  # why it is away; "" while it is not
        self._waited_for_until = 0.0
        self._next_probe = 0.0

    async def read(self, statement: Statement, values: Sequence[str], deadline: float) -> list[Row]:
        """Run a SELECT; see `Database`."""
        return await self._try(deadline, lambda: self._database.read(statement, values, deadline))

    async def change(self, statement: Statement, values: Sequence[str], deadline: float) -> int:
        """Run a statement in a transaction; see `Database`."""
        return await self._try(deadline, lambda: self._database.change(statement, values, deadline))

    async def _try(self, deadline: float, call: Callable[[], Awaitable[T]]) -> T:
        problems: dict[str, None] = {}  # in their order, none twice
        pause = 0.0  # the first loss is of an idle connection that broke long ago: a new one may do
        while True:
            self._stop_if_away()
            try:
                result = await call()
            except Lost as lost:
                self._failed(str(lost))
                problems[str(lost)] = None
                if time.monotonic() + pause + PAUSE >= deadline:
                    raise BackendDown("; ".join(problems)) from None
            else:
                if self._problem:
                    _log.info("database_back", backend=self._name)
                    self._problem = ""
                return result
            await trio.sleep(pause)
            pause = PAUSE

    def _failed(self, problem: str) -> None:
        now = time.monotonic()
        if not self._problem:
            _log.warning("database_lost", backend=self._name, problem=problem)
            self._waited_for_until = now + RESTART
        self._problem = problem
        self._next_probe = now + PROBE

    def _stop_if_away(self) -> None:
        """Refuse what needn't even be tried; of many who ask, one tries."""
        now = time.monotonic()
        if self._problem and now > self._waited_for_until:
            if now < self._next_probe:
                raise BackendDown(self._problem)
            self._next_probe = now + PROBE
