"""Backend `program`: an existing ejabberd-style script or binary as a backend (ejabberd `extauth_program`, src/extauth.erl).

Its questions are `auth:USER:HOST:PASSWORD`, `isuser:USER:HOST`, `setpass:...`, `tryregister:...` and `removeuser:USER:HOST`. So
a site keeps its script and gains everything around it: other servers and mechanisms, limits, the audit line.
"""

import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from extauth.backend import Backend, Context
from extauth.background import background
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
    Secret,
    SetPassword,
    UserExists,
)
from extauth.values import Checked
from extauth_program.pool import Pool

FAREWELL = 1.0  # seconds that killed processes may take to be gone


@dataclass(frozen=True)
class Config(Checked):
    """[backend.NAME] of `type = "program"`."""

    command: tuple[str, ...]  # the program and its arguments; no shell is involved
    processes: int = 2  # that run at a time; each answers one question after the other
    timeout: float = 8.0  # seconds that an answer may take, the wait for a free process included
    allow_changes: bool = False  # whether it may be told to set passwords, register and remove accounts

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        if not self.command or not self.command[0].startswith("/"):
            yield "command: must begin with the absolute path of a program"
        yield from self.not_positive("processes", "timeout")


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001 - the name every backend has
    """Prepare the processes; each is started when it is needed.

    Raises:
        ConfigError: there is no such program, or it may not be run.
    """
    _check(config.command[0], context.name)
    async with background(FAREWELL) as nursery:
        pool = Pool(context.name, config.command, config.processes, nursery)
        try:
            yield ProgramBackend(pool, config)
        finally:
            pool.close()


def _check(program: str, name: str) -> None:
    if not (os.path.isfile(program) and os.access(program, os.X_OK)):
        raise ConfigError([f"backend.{name}.command: {program}: no program that may be run"])


class ProgramBackend:
    """Asks a pool of processes."""

    def __init__(self, pool: Pool, config: Config) -> None:
        self._pool = pool
        self._timeout = config.timeout
        changes = {SetPassword, CreateUser, RemoveUser} if config.allow_changes else set[type[Request]]()
        self.handles: frozenset[type[Request]] = frozenset({CheckPassword, UserExists, *changes})

    async def answer(self, request: Request) -> Answer | None:
        """Ask in the program's words.

        Raises:
            BackendDown: it gave no answer, or none that is one.
        """
        if ":" in request.identity.user:  # would end the name there
            return None
        try:
            with trio.fail_after(self._timeout):
                return await self._answer(request)
        except trio.TooSlowError as error:
            raise BackendDown(f"{self._pool.program}: no answer within {self._timeout:g} s") from error

    async def _answer(self, request: Request) -> Answer | None:
        accept = Accept(request.identity)
        if isinstance(request, CheckPassword):
            if await self._ask("auth", request, request.password):
                return accept
            return Reject(Reason.BAD_PASSWORD) if await self._knows(request) else None
        if isinstance(request, CreateUser):
            if await self._ask("tryregister", request, request.password):
                return accept
            return Reject(Reason.USER_EXISTS if await self._knows(request) else Reason.PASSWORD_REFUSED)
        if not await self._knows(request):
            return None
        if isinstance(request, SetPassword):
            done = await self._ask("setpass", request, request.password)
            return accept if done else Reject(Reason.PASSWORD_REFUSED)
        if isinstance(request, RemoveUser):
            return accept if await self._ask("removeuser", request) else Reject(Reason.NOT_ALLOWED)
        return accept

    async def _knows(self, request: Request) -> bool:
        return await self._ask("isuser", request)

    async def _ask(self, verb: str, request: Request, password: Secret | None = None) -> bool:
        fields = [verb, request.identity.user, request.identity.domain]
        return await self._pool.ask(":".join(fields), password)
