"""The innermost layer: notes when a backend ceases to answer and when it answers again, for `extauth status`.

A good answer costs one look at whether that is news. Logins are all that is seen: nobody is asked just to find out.
"""

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Literal

import trio

from extauth.backend import Backend
from extauth.errors import BackendDown
from extauth.model import VERDICTS, Answer, Request
from extauth.soon import Soon

_KNOWN = frozenset({type(None), *VERDICTS})  # what isinstance() finds out takes ten times as long for what it is not
SILENCE = 0.5  # share of the peer's patience: whoever is given up after that did not answer


class Condition:
    """Whether a backend answers, as those found out who asked it. `now` returns Unix time in seconds.

    `since` is when `state` began; `failures` counts the requests it could not answer; `problem` and `failed` (when) are of the
    last of them.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.state: Literal["not-asked", "up", "down"] = "not-asked"
        self.since = now()
        self.failures = 0
        self.problem = ""
        self.failed = 0.0

    def rise(self) -> None:
        """Note the first answer, or the first one after an outage."""
        self.state, self.since = "up", self._now()

    def fall(self, problem: str) -> None:
        """Note that a request could not be answered."""
        self.failed, self.problem = self._now(), problem
        self.failures += 1
        if self.state != "down":
            self.state, self.since = "down", self.failed


class Watched:
    """A backend whose condition is noted."""

    def __init__(self, backend: Backend, condition: Condition) -> None:
        self.handles = backend.handles
        self._backend = backend
        self._condition = condition

    def answer(self, request: Request) -> Soon[Answer | None]:
        """Let the backend answer."""
        try:
            answer: Any = self._backend.answer(request)
        except BackendDown as down:
            self._condition.fall(str(down))
            raise
        if type(answer) not in _KNOWN:
            return self._wait(request, answer)
        if self._condition.state != "up":
            self._condition.rise()
        known: Answer | None = answer
        return known

    async def _wait(self, request: Request, waiting: Awaitable[Answer | None]) -> Answer | None:
        began = monotonic()
        try:
            answer = await waiting
        except BackendDown as down:
            self._condition.fall(str(down))
            raise
        except trio.Cancelled:
            waited = monotonic() - began
            if waited >= SILENCE * request.origin.patience:
                self._condition.fall(f"no answer in {waited:.1f} seconds")
            raise
        if self._condition.state != "up":
            self._condition.rise()
        return answer
