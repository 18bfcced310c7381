"""Backends that answer as a test tells them, and what surrounds an authority."""

import io
import logging
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Literal

import structlog
import trio

from extauth.authority import Authority
from extauth.backend import Backend
from extauth.changes import Member
from extauth.journal import Journal, set_up_logging
from extauth.metrics import Metrics
from extauth.model import Answer, CheckPassword, Identity, Origin, Request, Secret
from extauth.soon import Soon
from extauth.throttle import Throttle

ALICE = Identity("alice", "example.com")
ORIGIN = Origin("front", "uid:1/pid:2", "192.0.2.1", mechanism="PLAIN", patience=10.0)

Reply = Answer | None | Exception


class FakeBackend:
    """Answers with what it was given for each kind of request, and remembers what it was asked."""

    def __init__(self, replies: dict[type[Request], Reply | Callable[[Request], Reply]], *, later: bool = False) -> None:
        self.replies = replies
        self._later = later
        self.handles = frozenset(replies)
        self.asked: list[Request] = []

    def answer(self, request: Request) -> Soon[Answer | None]:
        """Answer, or raise what was given, at once or later."""
        self.asked.append(request)
        assert type(request) in self.handles
        return self._answer_later(request) if self._later else self._answer(request)

    async def _answer_later(self, request: Request) -> Answer | None:
        await trio.lowlevel.checkpoint()
        return self._answer(request)

    def _answer(self, request: Request) -> Answer | None:
        reply = self.replies[type(request)]
        if callable(reply):
            reply = reply(request)
        if isinstance(reply, Exception):
            raise reply
        return reply


class SlowBackend(FakeBackend):
    """Takes its time, in seconds."""

    def __init__(self, replies: dict[type[Request], Reply | Callable[[Request], Reply]], *, seconds: float) -> None:
        super().__init__(replies)
        self.seconds = seconds

    def answer(self, request: Request) -> Awaitable[Answer | None]:
        """Answer after a while."""
        return self._sleep(request)

    async def _sleep(self, request: Request) -> Answer | None:
        await trio.sleep(self.seconds)
        return self._answer(request)


class Scene:
    """An authority over fake backends named a, b, c ... and what it noted."""

    def __init__(
        self,
        backends: Iterable[Backend],
        *,
        on_reject: Literal["stop", "next"] = "stop",
        on_outage: Literal["stop", "next"] = "stop",
        anonymous: bool = False,
        throttle: Throttle | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.journal = journal or Journal(None)
        self.metrics = Metrics()
        self.changed: list[Identity] = []
        self.problem: Exception | None = None  # why a change can't be announced
        self.revoked: list[tuple[Identity, str]] = []
        self.authority = Authority(
            [Member(name, backend, on_reject) for name, backend in zip("abcdef", backends, strict=False)],
            on_outage=on_outage,
            anonymous=anonymous,
            journal=self.journal,
            metrics=self.metrics,
            throttle=throttle,
            changed=self._change,
            revoked=lambda identity, cause: self.revoked.append((identity, cause)),
        )

    async def _change(self, identity: Identity) -> None:
        if self.problem is not None:
            raise self.problem
        self.changed.append(identity)


def check(password: str = "wrong or right", identity: Identity = ALICE, origin: Origin = ORIGIN) -> CheckPassword:
    return CheckPassword(identity, origin, Secret(password))


@contextmanager
def log_kept() -> Generator[io.StringIO, None, None]:
    """Give the log of the daemon as a text, and set up logging as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    set_up_logging(stream)
    try:
        yield stream
    finally:
        structlog.reset_defaults()
        root.handlers, root.level = handlers, level
