"""Where attempts are limited: asked before any backend, told of every verdict."""

from typing import Protocol

from extauth.model import Reject, Request, Verdict


class Throttle(Protocol):
    """Refuses at once what comes too often; a refusal is never a delay."""

    def refuse(self, request: Request) -> Reject | None:
        """Return the refusal (`rate-limited`), or None if the request may go on."""
        ...

    def observe(self, request: Request, verdict: Verdict) -> None:
        """Learn how it ended."""
        ...
