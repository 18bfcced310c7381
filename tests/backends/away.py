"""A backend whose every answer is an outage."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from extauth.backend import Backend, Context
from extauth.errors import BackendDown
from extauth.model import Answer, CheckPassword, CheckToken, FindKeys, Request


@dataclass(frozen=True)
class Config:
    """It has no keys."""


class AwayBackend:
    """It might know passwords, keys and tokens."""

    handles: frozenset[type[Request]] = frozenset({CheckPassword, CheckToken, FindKeys})

    def answer(self, request: Request) -> Answer | None:
        """Fail to tell."""
        raise BackendDown(f"too far away for {request.operation}")


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001 - the name every backend has
    """Open it."""
    yield AwayBackend()
