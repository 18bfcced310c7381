"""What a site does when somebody's logins have been revoked: a command of its own, which ends live XMPP sessions.

A revocation is durable and acknowledged before it is told here. Who is told too late, or not at all since the command failed,
keeps an open session and nothing else: no new login gets in.
"""

import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog
import trio
from msgspec import Struct

from extauth.background import background
from extauth.model import Identity

WAITING = 1000  # commands that wait for their turn
AT_ONCE = 4
PATIENCE = 10.0  # seconds that one command may take
MAX_SAID = 500  # bytes of its standard error that are logged

_log = structlog.get_logger("revocation")


class _Task(Struct, frozen=True):
    command: tuple[str, ...]
    identity: Identity
    cause: str


class Revocations:
    """Runs commands, a few at a time and in the background."""

    def __init__(self, tasks: trio.MemorySendChannel[_Task]) -> None:
        self._tasks = tasks

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncGenerator["Revocations", None]:
        """Be ready to run commands; at the end those that wait are still run, within `PATIENCE`."""
        send, receive = trio.open_memory_channel[_Task](WAITING)
        async with background(PATIENCE) as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(_work, receive.clone())
            receive.close()
            try:
                yield cls(send)
            finally:
                send.close()

    def tell(self, command: tuple[str, ...], identity: Identity, cause: str) -> None:
        """Have `command USER DOMAIN CAUSE` run; USER is empty if the whole domain is meant."""
        if not command:
            return
        try:
            self._tasks.send_nowait(_Task(command, identity, cause))
        except trio.WouldBlock:
            _log.error("too many revocations; live sessions of this one go on", user=str(identity), cause=cause)


async def _work(tasks: trio.MemoryReceiveChannel[_Task]) -> None:
    async for task in tasks:
        words = [*task.command, task.identity.user, task.identity.domain, task.cause]
        try:
            with trio.fail_after(PATIENCE):
                done = await trio.run_process(words, capture_stderr=True, stdin=subprocess.DEVNULL, check=False)
        except (OSError, trio.TooSlowError) as error:
            problem = f"not within {PATIENCE:g} s" if isinstance(error, trio.TooSlowError) else str(error.strerror)
        else:
            if done.returncode == 0:
                continue
            said = (done.stderr or b"").decode(errors="backslashreplace").strip()[:MAX_SAID]
            problem = f"status {done.returncode}: {said}"
        _log.error("the revocation command failed", user=str(task.identity), cause=task.cause, problem=problem)
