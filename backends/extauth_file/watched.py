"""A file that is read again when it has changed. No login waits for a disk that does not answer."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import trio

from extauth.errors import BackendDown

T = TypeVar("T")

INTERVAL = 1.0  # seconds that what was seen of the file may be believed
PATIENCE = 2.0  # seconds that a login waits for a look at it
SETTLED = 2 * 10**9  # nanoseconds after which a second change can't have the same time stamp
ATTEMPTS = 5  # to read it while nobody writes
LARGEST = 64 * 1024 * 1024  # bytes

Signature = tuple[int, ...]


class WatchedFile(Generic[T]):
    """What a file says, as `read` understands its bytes.

    Raises:
        OSError: it can't be read when this is made.
    """

    def __init__(self, path: str, read: Callable[[bytes], T]) -> None:
        self._path = path
        self._read = read
        self._lock = trio.Lock()
        self._thread = trio.CapacityLimiter(1)  # not one of our threads: this one may hang
        self._believed_until = -float("inf")
        seen = self._look(None)
        assert seen is not None, "it was not looked at before"
        self._signature, self.content = seen

    @property
    def fresh(self) -> bool:
        """Whether the file was looked at a moment ago."""
        return trio.current_time() < self._believed_until

    async def refresh(self) -> None:
        """Look at the file again, if nobody else just did.

        Raises:
            BackendDown: it can't be read, or that takes too long.
        """
        with trio.move_on_after(PATIENCE) as scope:
            async with self._lock:
                if not self.fresh:
                    await self._look_again()
        if scope.cancelled_caught:
            raise BackendDown(f"{self._path}: can't be read within {PATIENCE:g} s")

    async def _look_again(self) -> None:
        started = trio.current_time()
        look = partial(self._look, self._signature)
        try:
            seen = await trio.to_thread.run_sync(look, abandon_on_cancel=True, limiter=self._thread)
        except OSError as error:
            raise BackendDown(f"{self._path}: {error.strerror or error}") from None
        self._believed_until = started + INTERVAL
        if seen is not None:
            self._signature, self.content = seen

    def _look(self, known: Signature | None) -> tuple[Signature | None, T] | None:
        """Return what the file says and by what a change shows; None if that is `known`. Blocks.

        Raises:
            OSError: it can't be read.
        """
        with Path(self._path).open("rb") as file:
            for _ in range(ATTEMPTS):
                before = _signature(file.fileno())
                if before == known:
                    return None
                file.seek(0)
                data = file.read(LARGEST + 1)
                if len(data) > LARGEST:
                    raise OSError(f"larger than {LARGEST} bytes")
                if _signature(file.fileno()) == before:
                    # A change within the same tick of the clock would not show: it is read once more then.
                    return (before if _age(before) > SETTLED else None), self._read(data)
                time.sleep(0.01)
        raise OSError("changes while it is read")


def _signature(descriptor: int) -> Signature:
    status = os.fstat(descriptor)
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)


def _age(signature: Signature) -> int:
    """Return the nanoseconds since the last change; none if that lies in the future."""
    return time.time_ns() - max(signature[:2])
