"""A bounded crew of threads for work that holds the processor: key derivation, and libraries that block."""

from collections.abc import Callable
from typing import TypeVar

import trio

from extauth.errors import BackendDown

T = TypeVar("T")


class Threads:
    """At most `size` calls run at once; a call that can't begin within `patience` seconds is refused as an outage.

    The queue has its own deadline so that a hundred slow hashes delay no other kind of login and never add up to late answers.
    """

    def __init__(self, name: str, size: int, patience: float) -> None:
        self._name = name
        self._limiter = trio.CapacityLimiter(size)
        self._patience = patience

    async def run(self, call: Callable[[], T]) -> T:
        """Run `call` in a thread and return what it returns.

        Raises:
            BackendDown: no thread came free in time.
        """
        with trio.move_on_after(self._patience):
            # Once it runs it can't be stopped, and trio then waits for it: only the wait for a thread is limited here.
            return await trio.to_thread.run_sync(call, limiter=self._limiter)
        raise BackendDown(f"all {self._name} threads are busy")
