"""A bounded crew of threads for work that holds the processor: key derivation, and libraries that block.

Not `trio.to_thread`: its way there and back costs as much as a fifth of a key derivation.
"""

import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, NamedTuple, Self, TypeVar

import outcome
import trio

from extauth.errors import BackendDown

T = TypeVar("T")


class Load(NamedTuple):
    """How many threads there are, how many are busy, and how many calls wait for one."""

    threads: int
    busy: int
    waiting: int


class _Job(Generic[T]):
    """One call on its way to a thread and back. Whoever calls `claim` first has it: the thread, or the caller who gives up."""

    __slots__ = ("_claim", "call", "task")

    def __init__(self, call: Callable[[], T]) -> None:
        self.call = call
        self.task = trio.lowlevel.current_task()
        self._claim = threading.Lock()

    def claim(self) -> bool:
        """Take the job; False if it is taken."""
        return self._claim.acquire(blocking=False)

    async def result(self) -> T:
        """Wait for what the call returns. Once it runs it can't be stopped: only before that this can be cancelled."""

        def give_up(_: object) -> trio.lowlevel.Abort:
            return trio.lowlevel.Abort.SUCCEEDED if self.claim() else trio.lowlevel.Abort.FAILED

        result: T = await trio.lowlevel.wait_task_rescheduled(give_up)
        return result


class Threads:
    """At most `size` calls run at once; a call that can't begin within `patience` seconds is refused as an outage.

    The queue has its own deadline so that a hundred slow hashes delay no other kind of login and never add up to late answers.
    A context manager: at its end the threads end, each after the call it is at.

    `nice` is how much less of the processor they ask for than the thread that answers everybody (nice(2); on Linux, where each
    thread has a priority of its own).
    """

    def __init__(self, name: str, size: int, patience: float, nice: int = 0) -> None:
        self._name = name
        self._size = size
        self._patience = patience
        self._nice = nice
        self._queue: queue.SimpleQueue[tuple[_Job[Any], bool] | None] = queue.SimpleQueue()
        self._started = 0
        self._loop: trio.lowlevel.TrioToken | None = None  # where the callers are
        self._results: deque[tuple[trio.lowlevel.Task, outcome.Outcome[Any]]] = deque()  # of calls made, for their callers
        self._told = False  # the loop has been told that there are results
        self._calls = 0  # made and not yet answered

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for _ in range(self._started):
            self._queue.put(None)

    @property
    def load(self) -> Load:
        """How much there is to do at present."""
        return Load(self._size, min(self._calls, self._size), max(self._calls - self._size, 0))

    async def run(self, call: Callable[[], T]) -> T:
        """Run `call` in a thread and return what it returns.

        Raises:
            BackendDown: no thread came free in time.
        """
        if self._started < self._size:
            self._started += 1
            threading.Thread(target=self._work, name=f"extauth-{self._name}", daemon=True).start()
        await trio.lowlevel.checkpoint_if_cancelled()
        self._loop = trio.lowlevel.current_trio_token()
        job = _Job(call)
        begun = self._calls < self._size and job.claim()  # a thread is free
        self._calls += 1
        self._queue.put((job, begun))
        try:
            if begun:
                return await job.result()
            with trio.CancelScope(relative_deadline=self._patience):  # move_on_after() takes twice the time
                return await job.result()
            raise BackendDown(f"all {self._name} threads are busy")
        finally:
            self._calls -= 1

    def _hand_over(self) -> None:
        """Wake the callers whose results are there."""
        self._told = False  # before the first look: a thread that comes later tells again
        while self._results:
            trio.lowlevel.reschedule(*self._results.popleft())

    # In a thread ----------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        if self._nice and sys.platform == "linux":
            with suppress(OSError):  # forbidden by a filter of system calls: then it is only slower
                os.setpriority(os.PRIO_PROCESS, 0, min(os.getpriority(os.PRIO_PROCESS, 0) + self._nice, 19))  # 0: this thread
        while (work := self._queue.get()) is not None:
            job, begun = work
            if begun or job.claim():
                self._results.append((job.task, outcome.capture(job.call)))
                if not self._told:
                    self._tell()

    def _tell(self) -> None:
        self._told = True
        assert self._loop is not None
        with suppress(trio.RunFinishedError):  # nobody is left to hear it
            self._loop.run_sync_soon(self._hand_over)
