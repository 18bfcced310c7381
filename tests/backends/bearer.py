"""A backend of bearer tokens that are written in its configuration."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from extauth.backend import Backend, Context
from extauth.model import Accept, Answer, CheckToken, Identity, Reason, Reject, Request


@dataclass(frozen=True)
class Config:
    """`tokens` are token:user."""

    tokens: tuple[str, ...] = ()


class BearerBackend:
    """The tokens are good in every domain."""

    handles: frozenset[type[Request]] = frozenset({CheckToken})

    def __init__(self, config: Config) -> None:
        self._users = dict(token.split(":", 1) for token in config.tokens)

    def answer(self, request: Request) -> Answer | None:
        """Tell whose token it is."""
        assert isinstance(request, CheckToken)
        user = self._users.get(request.token.reveal())
        if user is None or request.identity.user not in {"", user}:
            return Reject(Reason.BAD_PASSWORD)
        return Accept(Identity(user, request.identity.domain))


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001 - the name every backend has
    """Open it."""
    yield BearerBackend(config)
