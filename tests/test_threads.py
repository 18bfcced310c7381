"""The crew of threads: bounded, with a queue that does not wait for ever."""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest
import trio
import trio.testing

from extauth.errors import BackendDown
from extauth.threads import GATHERED, LOOK, Threads


class Work:
    """Calls that take until they are told to end, and how many of them run."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.done = threading.Event()
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """Take a while."""
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.done.wait(10)
        with self._lock:
            self.running -= 1
        return "done"


@pytest.fixture
def work() -> Iterator[Work]:
    """Give work that ends with the test."""
    given = Work()
    yield given
    given.done.set()


async def until_running(work: Work, count: int) -> None:
    with trio.fail_after(10):
        while work.running < count:
            await trio.sleep(0.001)


async def test_a_call_returns_its_value() -> None:
    assert await Threads("test", 1, 10).run(lambda: 1 + 1) == 2


async def test_the_load_is_known(work: Work) -> None:
    threads = Threads("test", 2, 60)
    assert threads.load == (2, 0, 0)
    async with trio.open_nursery() as nursery:
        for calls, load in enumerate([(2, 1, 0), (2, 2, 0), (2, 2, 1)], 1):
            nursery.start_soon(threads.run, work)
            await until_running(work, min(calls, 2))
            await trio.testing.wait_all_tasks_blocked()
            assert threads.load == load
        work.done.set()
    assert threads.load == (2, 0, 0)


async def test_a_call_raises_its_error() -> None:
    with pytest.raises(ZeroDivisionError):
        await Threads("test", 1, 10).run(lambda: 1 // 0)


async def test_every_caller_gets_its_own_result_however_many_come_at_once() -> None:
    results: list[int] = []

    async def ask(first: int) -> None:
        for number in range(first, first + 50):
            assert await threads.run(partial(int, number)) == number
            results.append(number)

    with Threads("test", 8, 60) as threads, trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for first in range(0, 3200, 50):
                nursery.start_soon(ask, first)
    assert sorted(results) == list(range(3200))


async def test_the_loop_goes_on_meanwhile(work: Work) -> None:
    threads = Threads("test", 1, 10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(threads.run, work)
        await until_running(work, 1)
        work.done.set()


async def test_no_more_than_size_run_at_once(work: Work) -> None:
    threads = Threads("test", 2, 10)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(threads.run, work)
        await until_running(work, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert work.running == 2
        work.done.set()
    assert work.most == 2


async def test_what_waits_too_long_for_a_thread_is_an_outage(work: Work, autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = float("inf")
    threads = Threads("test", 1, 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(threads.run, work)
        while not work.running:
            await trio.lowlevel.checkpoint()
        autojump_clock.autojump_threshold = 0
        before = trio.current_time()
        with pytest.raises(BackendDown, match="all test threads are busy"):
            await threads.run(work)
        assert trio.current_time() == pytest.approx(before + 3, abs=2 * LOOK)
        work.done.set()
    assert work.most == 1


async def test_a_call_that_has_begun_is_not_refused(work: Work, autojump_clock: trio.testing.MockClock) -> None:
    results: list[str] = []
    threads = Threads("test", 1, 3)

    async def run() -> None:
        results.append(await threads.run(work))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(100)
        work.done.set()
    assert results == ["done"]
    assert autojump_clock.current_time() >= 100


async def test_a_thread_serves_again_after_a_refusal(work: Work) -> None:
    threads = Threads("test", 1, 0.01)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(threads.run, work)
        await until_running(work, 1)
        with pytest.raises(BackendDown):
            await threads.run(work)
        work.done.set()
    assert await threads.run(work) == "done"


async def test_the_threads_end_with_the_crew() -> None:
    before = set(threading.enumerate())
    with Threads("test", 2, 10) as threads:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(threads.run, lambda: None)
        ours = set(threading.enumerate()) - before
        assert len(ours) == 2
    for thread in ours:
        thread.join(10)
        assert not thread.is_alive()


async def test_who_gives_up_before_the_call_has_begun_leaves_at_once_and_the_call_is_never_made(work: Work) -> None:
    threads = Threads("test", 1, 10)
    called: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(threads.run, work)
        await until_running(work, 1)
        with trio.move_on_after(0) as scope:
            await threads.run(lambda: called.append(1))
        assert scope.cancelled_caught
        work.done.set()
    await threads.run(lambda: None)
    assert called == []


async def test_who_gives_up_a_call_that_has_begun_waits_for_its_end(work: Work) -> None:
    results: list[str] = []
    scope = trio.CancelScope()

    async def ask() -> None:
        with scope:
            results.append(await threads.run(work))

    with Threads("test", 1, 10) as threads, trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until_running(work, 1)
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            work.done.set()
        assert results == ["done"]


async def test_results_are_gathered_while_a_line_keeps_the_threads_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extauth.threads.LOOK", 3600)
    permits = threading.Semaphore(0)
    begun: list[int] = []
    results: list[int] = []

    def call(number: int) -> int:
        begun.append(number)
        assert permits.acquire(timeout=10)
        return number

    async def ask(number: int) -> None:
        results.append(await threads.run(partial(call, number)))

    with Threads("test", 1, 60) as threads, trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(3 * GATHERED):
                nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
            permits.release(GATHERED - 1)
            while len(begun) < GATHERED:
                await trio.sleep(0.001)
            await trio.testing.wait_all_tasks_blocked()
            assert not results
            permits.release()
            while len(results) < GATHERED:
                await trio.sleep(0.001)
            permits.release(2 * GATHERED)
    assert sorted(results) == list(range(3 * GATHERED))


async def test_a_result_that_was_kept_back_does_not_wait_for_calls_that_take_long(work: Work) -> None:
    results: list[bool] = []
    go = threading.Event()

    async def ask() -> None:
        results.append(await threads.run(partial(go.wait, 10)))

    with Threads("test", 1, 60) as threads, trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(2 * GATHERED):
                nursery.start_soon(threads.run, work)
            await trio.testing.wait_all_tasks_blocked()
            go.set()
            await until_running(work, 1)
            while not results:
                await trio.sleep(0.001)
            work.done.set()


class Passes(trio.abc.Instrument):
    """Counts the passes of the loop."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        """Count one."""
        self.count += 1


async def test_many_results_at_once_leave_others_their_turn() -> None:
    size = 3 * GATHERED
    ended = threading.Barrier(size + 1)
    passes = Passes()
    served: Counter[int] = Counter()

    def stand_still() -> None:
        """Let all calls end, and their results come, before the loop goes on."""
        ended.wait(10)
        time.sleep(0.05)

    async def ask() -> None:
        await threads.run(partial(ended.wait, 10))
        served[passes.count] += 1

    with Threads("test", size, 60) as threads, trio.fail_after(10):
        trio.lowlevel.add_instrument(passes)
        async with trio.open_nursery() as nursery:
            for _ in range(size):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            stand_still()
        trio.lowlevel.remove_instrument(passes)
    assert sum(served.values()) == size
    assert max(served.values()) <= GATHERED


@pytest.mark.skipif(sys.platform != "linux", reason="only there has each thread a priority of its own")
async def test_threads_that_are_nice_leave_the_others_as_they_are() -> None:
    def mine() -> int:
        return os.getpriority(os.PRIO_PROCESS, 0)

    before = mine()
    for nice, expected in ((0, before), (3, min(before + 3, 19)), (40, 19)):
        with Threads("nice", 1, 5, nice) as threads:
            assert await threads.run(mine) == expected
    assert mine() == before
