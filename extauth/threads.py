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

GATHERED = 8  # results that are handed over at once: waking up for each costs more than all that is then done with it
LOOK = 0.05  # seconds between looks at who waits, and so the longest that a result is kept back


class Load(NamedTuple):
    """How many threads there are, how many are busy, and how many calls wait for one."""

    threads: int
    busy: int
    waiting: int


class _Job(Generic[T]):
    """One call on its way to a thread and back."""

    __slots__ = ("call", "task", "until")

    def __init__(self, call: Callable[[], T], until: float) -> None:
        self.call = call
        self.until = until  # when it must have begun (trio's clock)
        self.task = trio.lowlevel.current_task()


class Threads:
    """At most `size` calls run at once; a call that can't begin within `patience` seconds is refused as an outage.

    The line has its own deadline so that a hundred slow hashes delay no other kind of login and never add up to late answers.
    A context manager: at its end the threads end, each after the call it is at.

    While a line keeps all threads busy, results are handed over some at a time: that halves the time of the thread that
    answers everybody.

    `nice` is how much less of the processor they ask for than that thread (nice(2); on Linux, where each thread has a priority
    of its own).
    """

    def __init__(self, name: str, size: int, patience: float, nice: int = 0) -> None:
        self._name = name
        self._size = size
        self._patience = patience
        self._nice = nice
        self._line: deque[_Job[Any]] = deque()  # calls not begun: whoever takes one out has it, a thread or who gives it up
        self._orders: queue.SimpleQueue[bool] = queue.SimpleQueue()  # to the threads: take a call, or (False) end
        self._started = 0
        self._calls = 0  # asked for and not yet answered
        self._loop: trio.lowlevel.TrioToken | None = None  # where the callers are
        self._results: deque[tuple[trio.lowlevel.Task, outcome.Outcome[Any]]] = deque()  # of calls made, for their callers
        self._told = False  # the loop has been told that there are results
        self._watched = False  # somebody looks after the line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for _ in range(self._started):
            self._orders.put(False)

    @property
    def load(self) -> Load:
        """How much there is to do at present."""
        return Load(self._size, min(self._calls, self._size), max(self._calls - self._size, 0))

    async def run(self, call: Callable[[], T]) -> T:
        """Run `call` in a thread and return what it returns. Once it runs it can't be stopped: only before that cancelled.

        Raises:
            BackendDown: no thread came free in time.
        """
        if self._started < self._size:
            self._started += 1
            threading.Thread(target=self._work, name=f"extauth-{self._name}", daemon=True).start()
        await trio.lowlevel.checkpoint_if_cancelled()
        self._loop = trio.lowlevel.current_trio_token()
        job = _Job(call, trio.current_time() + self._patience)
        self._line.append(job)
        self._orders.put(True)
        if self._calls >= self._size and not self._watched:  # no thread is free
            self._watched = True
            trio.lowlevel.spawn_system_task(self._watch)

        def give_up(_: object) -> trio.lowlevel.Abort:
            return trio.lowlevel.Abort.SUCCEEDED if self._withdraw(job) else trio.lowlevel.Abort.FAILED

        self._calls += 1
        try:
            result: T = await trio.lowlevel.wait_task_rescheduled(give_up)
        finally:
            self._calls -= 1
        return result

    async def _watch(self) -> None:
        """As long as there is a line: refuse who waits in it for too long, and hand over what the threads keep back."""
        try:
            while self._watched:
                await trio.sleep(LOOK)
                now = trio.current_time()
                line = tuple(self._line)
                for job in line:
                    if now >= job.until and self._withdraw(job):
                        down = BackendDown(f"all {self._name} threads are busy")
                        trio.lowlevel.reschedule(job.task, outcome.Error(down))
                self._watched = bool(line)  # before the results are handed over: what comes later is not kept back
                self._hand_over()
        finally:
            self._watched = False

    def _withdraw(self, job: _Job[Any]) -> bool:
        """Take a call out of the line; False if a thread has it."""
        try:
            self._line.remove(job)
        except ValueError:
            return False
        return True

    def _hand_over(self) -> None:
        """Wake the callers whose results are there, but not too many before others get a turn."""
        self._told = False  # before the first look: a thread that comes later tells again
        for _ in range(min(GATHERED, len(self._results))):
            trio.lowlevel.reschedule(*self._results.popleft())
        if self._results and not self._told:
            self._tell()

    # In a thread ----------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        if self._nice and sys.platform == "linux":
            with suppress(OSError):  # forbidden by a filter of system calls: then it is only slower
                os.setpriority(os.PRIO_PROCESS, 0, min(os.getpriority(os.PRIO_PROCESS, 0) + self._nice, 19))  # 0: this thread
        while self._orders.get():
            try:
                job = self._line.popleft()
            except IndexError:
                continue  # given up
            self._results.append((job.task, outcome.capture(job.call)))
            kept_back = self._watched and len(self._results) < min(GATHERED, len(self._line))
            if not kept_back and not self._told:
                self._tell()

    def _tell(self) -> None:
        self._told = True
        assert self._loop is not None
        with suppress(trio.RunFinishedError):  # nobody is left to hear it
            self._loop.run_sync_soon(self._hand_over)
