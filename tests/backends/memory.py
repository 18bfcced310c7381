"""A backend of accounts in memory that misbehaves for users of certain names.

`slow` is answered after `delay` seconds, `down` never can be, `bug` makes it raise, and `stuck` keeps it busy for `STUCK`
seconds, deaf to cancellation. Everybody else is answered at once.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from extauth.backend import Backend, Context
from extauth.errors import BackendDown, ConfigError
from extauth.model import (
    Accept,
    Answer,
    CheckPassword,
    CreateUser,
    Reason,
    Reject,
    RemoveUser,
    Request,
    SetPassword,
    UserExists,
)
from extauth.soon import Soon

STUCK = 100.0


@dataclass(frozen=True)
class Config:
    """`accounts` are user:password; `unusable` is what `open` complains of."""

    accounts: tuple[str, ...] = ()
    delay: float = 1.0
    unusable: str = ""
    away: str = ""
    broken: bool = False


class MemoryBackend:
    """Accounts in memory, the same names in every domain."""

    handles: frozenset[type[Request]] = frozenset({CheckPassword, UserExists, SetPassword, CreateUser, RemoveUser})

    def __init__(self, config: Config) -> None:
        self._passwords = dict(account.split(":", 1) for account in config.accounts)
        self._delay = config.delay

    def answer(self, request: Request) -> Soon[Answer | None]:
        """Answer at once, except for the users that the module tells of."""
        match request.identity.user:
            case "slow":
                return self._slow(request)
            case "down":
                raise BackendDown("out to lunch")
            case "bug":
                raise RuntimeError("a bug in a backend")
            case "stuck":
                return self._stuck(request)
            case _:
                return self._answer(request)

    def _answer(self, request: Request) -> Answer | None:
        user = request.identity.user
        if isinstance(request, CreateUser):
            self._passwords[user] = request.password.reveal()
        elif user not in self._passwords:
            return None
        elif isinstance(request, SetPassword):
            if not request.password.reveal():
                return Reject(Reason.PASSWORD_TOO_SHORT)
            self._passwords[user] = request.password.reveal()
        elif isinstance(request, RemoveUser):
            del self._passwords[user]
        elif isinstance(request, CheckPassword) and request.password.reveal() != self._passwords[user]:
            return Reject(Reason.BAD_PASSWORD)
        return Accept(request.identity)

    async def _slow(self, request: Request) -> Answer | None:
        await trio.sleep(self._delay)
        return self._answer(request)

    async def _stuck(self, request: Request) -> Answer | None:
        with trio.CancelScope(shield=True):
            await trio.sleep(STUCK)
        return self._answer(request)


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001 - the name every backend has
    """Open it, or say what `config` says is wrong."""
    if config.unusable:
        raise ConfigError([f"backend.{context.name}: {config.unusable}"])
    if config.away:
        raise BackendDown(config.away)
    if config.broken:
        raise RuntimeError("a bug in a backend's open")
    yield MemoryBackend(config)
