"""The bridge to asyncio: values, errors and cancellation cross it, and nothing is left behind."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
import uvloop

from extauth import bridge as module
from extauth.bridge import Bridge, open_bridge
from extauth.errors import BackendDown


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    async with open_bridge("bridged") as opened:
        yield opened


class Call:
    """A call that lasts until it is told to end; on both sides of the bridge."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.begun = threading.Event()
        self.cancelled = threading.Event()
        self.end = asyncio.Event()
        self._stubborn = stubborn

    async def __call__(self) -> str:
        """Wait for the end."""
        self.begun.set()
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            if not self._stubborn:
                raise
            await self.end.wait()
        return "done"


async def until(event: threading.Event) -> None:
    assert await trio.to_thread.run_sync(event.wait, 10)


async def give_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def test_a_call_runs_in_uvloop_in_another_thread_and_returns_its_value(bridge: Bridge) -> None:
    async def run(number: int, text: str) -> tuple[asyncio.AbstractEventLoop, int, str, str]:
        return asyncio.get_running_loop(), number, text, threading.current_thread().name

    loop, *others = await bridge.call(run, 1, "two")
    assert isinstance(loop, uvloop.Loop)
    assert others == [1, "two", "extauth-bridged"]
    assert await bridge.call(give_loop) is loop


async def test_a_call_raises_its_error(bridge: Bridge) -> None:
    async def fail() -> None:
        raise LookupError("this one")

    with pytest.raises(LookupError, match="this one"):
        await bridge.call(fail)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_not_even_an_exit_ends_the_loop(bridge: Bridge, kind: type[BaseException]) -> None:
    async def leave() -> None:
        raise kind

    with pytest.raises(kind):
        await bridge.call(leave)
    assert await bridge.call(give_loop)


async def test_many_calls_are_in_flight_at_once_and_wake_ups_are_shared(bridge: Bridge) -> None:
    reached = 0
    everybody = asyncio.Event()

    async def meet(number: int) -> int:
        nonlocal reached
        reached += 1
        if reached == 100:
            everybody.set()
        await everybody.wait()
        return number

    numbers: list[int] = []

    async def take(number: int) -> None:
        numbers.append(await bridge.call(meet, number))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(take, number)
    assert sorted(numbers) == list(range(100))


async def give_up_on(call: Call, bridge: Bridge) -> None:
    """Make a call, and be cancelled once it runs."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bridge.call, call)
        await until(call.begun)
        nursery.cancel_scope.cancel()
    await until(call.cancelled)


async def test_who_is_cancelled_leaves_and_the_task_is_cancelled(bridge: Bridge) -> None:
    await give_up_on(Call(), bridge)


async def test_a_deadline_holds_even_if_the_task_takes_its_time_to_give_up(bridge: Bridge) -> None:
    call = Call(stubborn=True)
    with pytest.raises(trio.TooSlowError):
        with trio.fail_after(0.01):
            await bridge.call(call)
    assert not call.end.is_set()
    loop = await bridge.call(give_loop)
    loop.call_soon_threadsafe(call.end.set)


async def test_a_call_that_ends_while_its_caller_is_cancelled_is_dropped(bridge: Bridge) -> None:
    call = Call(stubborn=True)
    loop = await bridge.call(give_loop)
    await give_up_on(call, bridge)
    loop.call_soon_threadsafe(call.end.set)
    assert await bridge.call(give_loop) is loop
    await trio.testing.wait_all_tasks_blocked()


async def test_a_caller_that_is_cancelled_already_begins_nothing(bridge: Bridge) -> None:
    call = Call()
    with trio.move_on_after(0) as scope:
        await bridge.call(call)
    assert scope.cancelled_caught
    await bridge.call(give_loop)
    assert not call.begun.is_set()


async def test_closing_cancels_what_still_runs_and_tells_who_waits() -> None:
    calls = [Call() for _ in range(3)]

    async def fails(bridge: Bridge, call: Call) -> None:
        with pytest.raises(BackendDown, match="event loop closes"):
            await bridge.call(call)

    async with trio.open_nursery() as nursery:
        async with open_bridge("bridged") as bridge:
            loop = await bridge.call(give_loop)
            for call in calls:
                nursery.start_soon(fails, bridge, call)
            for call in calls:
                await until(call.begun)
    assert all(call.cancelled.is_set() for call in calls)
    assert loop.is_closed()
    assert not any(thread.name == "extauth-bridged" for thread in threading.enumerate())


async def test_after_closing_a_call_is_refused() -> None:
    async with open_bridge("bridged") as bridge:
        pass
    with pytest.raises(BackendDown, match="closed"):
        await bridge.call(give_loop)


async def test_closing_waits_for_a_task_that_puts_its_things_away() -> None:
    class Slow(Call):
        put_away = False

        async def __call__(self) -> str:
            try:
                return await super().__call__()
            finally:
                await asyncio.sleep(0.01)
                self.put_away = True

    call = Slow()
    async with open_bridge("bridged") as bridge:
        await give_up_on(call, bridge)
    assert call.put_away


async def test_closing_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    call = Call(stubborn=True)
    async with open_bridge("bridged") as bridge:
        loop = await bridge.call(give_loop)
        await give_up_on(call, bridge)
    assert not loop.is_closed()
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "extauth-bridged")
    loop.call_soon_threadsafe(call.end.set)
    await trio.to_thread.run_sync(thread.join, 10)
    assert loop.is_closed()
