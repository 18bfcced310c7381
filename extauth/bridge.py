"""Libraries of asyncio, called from trio: one uvloop in one thread.

Wake-ups are shared: however many calls begin or end while the other side is busy, it is woken once for all of them. That, and
uvloop, make it several times as fast as an asyncio loop run by trio (docs/performance.md).
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar, TypeVarTuple
from weakref import WeakSet

import outcome
import trio
import uvloop

from extauth.errors import BackendDown

PATIENCE = 5.0  # seconds that what still runs has to end in when the bridge closes

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Call(Generic[T]):
    """One call, on both sides. `awaited` belongs to trio's thread, all else to the loop's."""

    __slots__ = ("_begin", "_task", "awaited", "result", "waiter")

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._begin = begin
        self._task: asyncio.Task[None]
        self.awaited = True
        self.waiter = trio.lowlevel.current_task()
        self.result: outcome.Outcome[T]

    def start(self, loop: asyncio.AbstractEventLoop, finish: "Callable[[_Call[T]], None]") -> asyncio.Task[None]:
        self._task = loop.create_task(self._run(finish))
        return self._task

    def cancel(self) -> None:
        self._task.cancel()

    async def _run(self, finish: "Callable[[_Call[T]], None]") -> None:
        self.result = await outcome.acapture(self._begin)
        finish(self)

    def deliver(self) -> None:
        """Wake the caller, in trio's thread."""
        if not self.awaited:
            return
        if isinstance(self.result, outcome.Error) and isinstance(self.result.error, asyncio.CancelledError):
            self.result = outcome.Error(BackendDown("the call was given up: its event loop closes"))
        trio.lowlevel.reschedule(self.waiter, self.result)


class _Loop(uvloop.Loop):
    """A loop that remembers what TLS runs on: nobody waits for its farewell, which may not be over when the loop is closed."""

    def __init__(self) -> None:
        super().__init__()
        self._below_tls = WeakSet[asyncio.Transport]()

    async def start_tls(self, transport: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as uvloop has it
        self._below_tls.add(transport)
        return await super().start_tls(transport, *arguments, **options)

    async def hang_up(self) -> None:
        """Cut farewells short."""
        for transport in self._below_tls:
            transport.abort()
        await asyncio.sleep(0)  # they are closed in the loop's next round


class Bridge:
    """The way to a loop of asyncio's; made by `open_bridge`."""

    def __init__(self) -> None:
        self._loop = _Loop()
        self._token = trio.lowlevel.current_trio_token()
        self._closing = False
        self._stop = asyncio.Event()
        self._orders: deque[Callable[[], object]] = deque()  # to the loop
        self._orders_told = False
        self._finished: deque[_Call[Any]] = deque()  # back to trio
        self._finished_told = False
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps them only weakly

    async def call(self, function: Callable[[*Ts], Coroutine[Any, Any, T]], *arguments: *Ts) -> T:
        """Run `function(*arguments)` in the loop, and return or raise what it does.

        When the caller is cancelled it leaves at once, also if the library takes its time to give up (a database that hangs
        must not hold anybody beyond the deadline): the task is cancelled, and the bridge sees it end.

        Raises:
            BackendDown: the bridge is closing.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closing:
            raise BackendDown("the event loop is closed")
        call = _Call(lambda: function(*arguments))
        self._order(lambda: self._start(call))

        def give_up(_: object) -> trio.lowlevel.Abort:
            call.awaited = False
            self._order(call.cancel)
            return trio.lowlevel.Abort.SUCCEEDED

        result: T = await trio.lowlevel.wait_task_rescheduled(give_up)
        return result

    def close(self) -> None:
        """Let the loop cancel what still runs, and end. Doesn't wait for it."""
        self._order(self._stop.set)
        self._closing = True

    # In trio's thread -----------------------------------------------------------------------------------------------------

    def _order(self, order: Callable[[], object]) -> None:
        if self._closing:
            return  # everything is being cancelled anyway
        self._orders.append(order)
        if not self._orders_told:
            self._orders_told = True
            self._loop.call_soon_threadsafe(self._obey)

    def _deliver(self) -> None:
        self._finished_told = False  # before the queue is emptied: what comes after that is told anew
        while self._finished:
            self._finished.popleft().deliver()

    # In the loop's thread -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run the loop until `close`."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_closed())

    async def _until_closed(self) -> None:
        await self._stop.wait()
        while self._tasks:
            for task in self._tasks:
                if not task.cancelling():  # twice would break off its tidying up
                    task.cancel()
            await asyncio.wait(self._tasks)
        await self._loop.hang_up()

    def _obey(self) -> None:
        self._orders_told = False
        while self._orders:
            self._orders.popleft()()

    def _start(self, call: _Call[Any]) -> None:
        task = call.start(self._loop, self._finish)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _finish(self, call: _Call[Any]) -> None:
        self._finished.append(call)
        if not self._finished_told:
            self._finished_told = True
            with suppress(trio.RunFinishedError):  # nobody is left to hear it
                self._token.run_sync_soon(self._deliver)


@asynccontextmanager
async def open_bridge(name: str) -> AsyncGenerator[Bridge, None]:
    """Start a loop in a thread called `name`; at the end every call that still runs is cancelled and seen off."""
    bridge = Bridge()
    thread = threading.Thread(target=bridge.run, name=f"extauth-{name}", daemon=True)
    thread.start()
    try:
        yield bridge
    finally:
        bridge.close()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(thread.join, PATIENCE)
