"""A backend for measurements: passwords as they are, in memory, so that checking one costs next to nothing."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hmac import compare_digest

from extauth.backend import Backend, Context
from extauth.model import Accept, Answer, CheckPassword, Reason, Reject, Request, UserExists


def passwords(users: int) -> dict[str, str]:
    """Return the accounts that loadgen asks for (its option -U)."""
    return {f"u{number:05d}": f"secret-{number:05d}" for number in range(users)}


@dataclass(frozen=True)
class Config:
    """[backend.NAME] with type = "bench.plain_backend"."""

    users: int = 1000


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001, ARG001 - as every backend
    """Open it: nothing needs to be opened."""
    yield PlainBackend(passwords(config.users))


class PlainBackend:
    """Accounts in a dictionary."""

    handles: frozenset[type[Request]] = frozenset((CheckPassword, UserExists))

    def __init__(self, accounts: dict[str, str]) -> None:
        self._accounts = accounts

    def answer(self, request: Request) -> Answer | None:
        """Answer at once."""
        known = self._accounts.get(request.identity.user)
        if known is None:
            return None
        if isinstance(request, CheckPassword) and not compare_digest(known, request.password.reveal()):
            return Reject(Reason.BAD_PASSWORD)
        return Accept(request.identity)
