"""The engine, with a dialogue that does what the request says."""

import contextlib
import dataclasses
import errno
import os
import resource
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
import trio
from structlog.typing import EventDict

from extauth import engine as engines
from extauth.dialogue import Last
from extauth.engine import Engine
from extauth.errors import ProtocolError
from extauth.journal import Journal
from extauth.lines import Lines
from extauth.model import Origin
from extauth.sockets import Listening, SocketConfig, listen
from extauth.soon import Soon

DEADLINE = 10.0


class Script:
    """What all dialogues of a test share: gates that let answers pass, and what has happened."""

    def __init__(self) -> None:
        self.gates: dict[bytes, trio.Event] = {}
        self.begun: list[bytes] = []
        self.cancelled: list[bytes] = []
        self.closed = 0
        self.greeting = b""
        self.ordered = True
        self.handshake = False  # the peer must say something first
        self.origins: list[Origin] = []

    def gate(self, name: bytes) -> trio.Event:
        """Return the event that the request `wait NAME` waits for."""
        return self.gates.setdefault(name, trio.Event())


class Talk:
    """A line `now TEXT` is answered by TEXT at once, `wait TEXT` when the gate opens; the rest is in `answer`."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.ordered = script.ordered
        self._lines = Lines(1000)
        self.requests = self._lines.feed

    def greet(self) -> bytes:
        return self.script.greeting

    @property
    def half(self) -> bytearray | bool:
        return self._lines.half or (self.script.handshake and not self.script.begun)

    def answer(self, command: bytes) -> Soon[bytes]:
        self.script.begun.append(command)
        verb, _, rest = command.partition(b" ")
        match verb:
            case b"now":
                return rest + b"\n"
            case b"bye":
                return Last(rest + b"\n")
            case b"big":
                return b"x" * int(rest) + b"\n"
            case b"broken":
                raise ProtocolError("not understood")
            case b"bug":
                raise RuntimeError("a bug")
            case _:
                return self._later(verb, rest)

    async def _later(self, verb: bytes, rest: bytes) -> bytes:
        try:
            with trio.CancelScope(shield=verb == b"stuck"):
                await self.script.gate(rest).wait()
        except trio.Cancelled:
            self.script.cancelled.append(rest)
            raise
        if verb == b"late-broken":
            raise ProtocolError("not understood after all")
        if verb == b"late-bug":
            raise RuntimeError("a bug")
        return rest + b"\n"

    def closed(self) -> None:
        self.script.closed += 1


Connect = Callable[[], Awaitable[trio.SocketStream]]


class Running:
    """An engine that serves."""

    def __init__(self, engine: Engine, script: Script, path: str) -> None:
        self.engine = engine
        self.script = script
        self._path = path

    async def connect(self) -> trio.SocketStream:
        return await trio.open_unix_socket(self._path)

    async def alive(self) -> bool:
        """Tell whether a fresh connection is answered."""
        async with await self.connect() as stream:
            await stream.send_all(b"now alive\n")
            return await line(stream) == b"alive"


@asynccontextmanager
async def running(
    folder: Path,
    script: Script | None = None,
    wrap: Callable[[Listening], Listening] = lambda it: it,
    **keys: str | float | tuple[str, ...],
) -> AsyncGenerator[Running, None]:
    script = script or Script()
    path = f"{folder}/talk.sock"
    config = dataclasses.replace(SocketConfig(f"unix:{path}", deadline=DEADLINE), **cast("Any", keys))
    listening = wrap(listen("listener.talk", config))

    def converse(origin: Origin) -> Talk:
        script.origins.append(origin)
        return Talk(script)

    engine = Engine("talk", config, Journal(None), converse)
    try:
        # By a test's clock: what hangs fails at once.
        with trio.fail_after(5000):
            async with trio.open_nursery() as nursery:
                await nursery.start(engine.run, listening)
                yield Running(engine, script, path)
                nursery.cancel_scope.cancel()
    finally:
        listening.close()


async def line(stream: trio.SocketStream) -> bytes:
    """Read one line; b"" at the end of the stream."""
    data = b""
    while not data.endswith(b"\n"):
        piece = await stream.receive_some(1)
        if not piece:
            assert not data, data
            return b""
        data += piece
    return data[:-1]


async def rest_of(stream: trio.SocketStream) -> bytes:
    """Read all until the end of the stream."""
    data = b""
    async for piece in stream:
        data += piece
    return data


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds."""
    with trio.fail_after(1000):
        while not condition():
            await trio.sleep(0.01)


@pytest.fixture
def logged() -> contextlib.AbstractContextManager[list[EventDict]]:
    """Gather what is logged."""
    return cast("contextlib.AbstractContextManager[list[EventDict]]", structlog.testing.capture_logs())


# Order ------------------------------------------------------------------------------------------------------------------------


async def test_replies_keep_the_order_of_the_requests(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp) as it, await it.connect() as stream:
        await stream.send_all(b"wait one\nnow two\nwait three\nnow four\n")
        await until(lambda: len(it.script.begun) == 4)
        it.script.gate(b"three").set()
        with trio.move_on_after(1) as patience:
            await line(stream)
        assert patience.cancelled_caught  # nothing before the first is answered
        it.script.gate(b"one").set()
        assert [await line(stream) for _ in range(4)] == [b"one", b"two", b"three", b"four"]


async def test_replies_by_id_come_as_they_are_ready(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    script = Script()
    script.ordered = False
    async with running(tmp, script) as it, await it.connect() as stream:
        await stream.send_all(b"wait one\nnow two\nwait three\n")
        assert await line(stream) == b"two"
        script.gate(b"three").set()
        assert await line(stream) == b"three"
        script.gate(b"one").set()
        assert await line(stream) == b"one"


async def test_the_greeting_comes_first(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    script = Script()
    script.greeting = b"hello\n"
    async with running(tmp, script) as it, await it.connect() as stream:
        assert await line(stream) == b"hello"


async def test_many_requests_at_once_are_answered_once_each(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    count = engines.PASS_COMMANDS * 5 + 3
    async with running(tmp) as it, await it.connect() as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"".join(b"now %d\n" % i for i in range(count)))
            assert [await line(stream) for _ in range(count)] == [b"%d" % i for i in range(count)]
        await stream.send_eof()
        assert await rest_of(stream) == b""


async def test_a_flood_on_one_connection_leaves_others_their_turn(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp) as it, await it.connect() as flood, await it.connect() as other:
        await flood.send_all(b"now 1\n" * 5000)
        await other.send_all(b"now 2\n")
        assert await line(other) == b"2"
        assert len(it.script.begun) < 5000


# Endings ----------------------------------------------------------------------------------------------------------------------


async def test_last_closes_after_its_reply(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp) as it, await it.connect() as stream:
        await stream.send_all(b"now one\nbye two\nnow three\n")
        assert await rest_of(stream) == b"one\ntwo\n"
    assert it.script.begun == [b"now one", b"bye two"]
    assert it.script.closed == 1


@pytest.mark.parametrize(("verb", "event"), [(b"broken", "protocol error"), (b"bug", "bug")])
async def test_a_poisoned_request_closes_its_own_connection_only(
    tmp: Path,
    autojump_clock: trio.abc.Clock,
    verb: bytes,
    event: str,
    logged: contextlib.AbstractContextManager[list[EventDict]],
) -> None:
    with logged as events:
        async with running(tmp) as it, await it.connect() as other, await it.connect() as stream:
            await stream.send_all(verb + b" x\nnow never\n")
            assert await rest_of(stream) == b""
            await other.send_all(b"now fine\n")
            assert await line(other) == b"fine"
    assert [entry["event"] for entry in events] == [event]
    assert b"now never" not in it.script.begun


@pytest.mark.parametrize(("verb", "event"), [(b"late-broken", "protocol error"), (b"late-bug", "bug")])
async def test_a_request_that_turns_out_poisoned_closes_its_own_connection_only(
    tmp: Path,
    autojump_clock: trio.abc.Clock,
    verb: bytes,
    event: str,
    logged: contextlib.AbstractContextManager[list[EventDict]],
) -> None:
    with logged as events:
        async with running(tmp) as it, await it.connect() as other, await it.connect() as stream:
            await stream.send_all(verb + b" x\n")
            await other.send_all(b"wait y\n")
            await until(lambda: len(it.script.begun) == 2)
            it.script.gate(b"x").set()
            assert await rest_of(stream) == b""
            it.script.gate(b"y").set()
            assert await line(other) == b"y"
    assert [entry["event"] for entry in events] == [event]


async def test_what_was_asked_before_the_poison_is_answered(
    tmp: Path, autojump_clock: trio.abc.Clock, logged: contextlib.AbstractContextManager[list[EventDict]]
) -> None:
    with logged:
        async with running(tmp) as it, await it.connect() as stream:
            await stream.send_all(b"wait one\nnow two\nbroken\n")
            await until(lambda: len(it.script.begun) == 3)
            it.script.gate(b"one").set()
            assert await rest_of(stream) == b"one\ntwo\n"


async def test_a_peer_that_closed_its_half_gets_its_answers(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp) as it, await it.connect() as stream:
        await stream.send_all(b"wait one\nnow two\n")
        await stream.send_eof()
        await until(lambda: len(it.script.begun) == 2)
        it.script.gate(b"one").set()
        assert await rest_of(stream) == b"one\ntwo\n"
        await until(lambda: it.engine.connections == 0)
    assert it.script.closed == 1


@pytest.mark.parametrize("asked", [b"wait one\nwait two\n", b"now 1\nwait one\nwait two\nhal"])
async def test_a_peer_that_vanished_has_its_requests_cancelled(tmp: Path, asked: bytes, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp) as it:
        stream = await it.connect()
        await stream.send_all(asked)
        await until(lambda: b"wait two" in it.script.begun)
        await stream.aclose()
        await until(lambda: len(it.script.cancelled) == 2)
        assert trio.current_time() < DEADLINE
        assert it.engine.connections == 0
        assert it.script.closed == 1
        assert await it.alive()


async def test_each_connection_is_closed_once(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp) as it:
        streams = [await it.connect() for _ in range(5)]
        await until(lambda: it.engine.connections == 5)
        await streams[0].aclose()
        await streams[1].send_all(b"wait x\n")
        await until(lambda: it.engine.connections == 4 and len(it.script.begun) == 1)
    assert it.script.closed == 5
    assert it.script.cancelled == [b"x"]
    for stream in streams[1:]:
        await stream.aclose()


# Time -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [b"wait", b"stuck"])
async def test_past_the_deadline_the_connection_is_closed_and_nothing_is_said(
    tmp: Path, autojump_clock: trio.abc.Clock, verb: bytes
) -> None:
    async with running(tmp) as it, await it.connect() as stream, await it.connect() as other:
        await stream.send_all(verb + b" one\nnow two\n")
        began = trio.current_time()
        assert await rest_of(stream) == b""
        assert DEADLINE <= trio.current_time() - began <= DEADLINE + 2 * engines.TICK
        assert it.script.closed == 1
        it.script.gate(b"one").set()
        await trio.sleep(1)
        await other.send_all(b"now fine\n")
        assert await line(other) == b"fine"


async def test_an_answer_in_time_is_given(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp) as it, await it.connect() as stream:
        await stream.send_all(b"wait one\n")
        await trio.sleep(DEADLINE - engines.TICK)
        it.script.gate(b"one").set()
        assert await line(stream) == b"one"


async def test_the_deadline_of_each_request_is_its_own(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp) as it, await it.connect() as stream:
        for number in range(5):
            await stream.send_all(b"wait %d\n" % number)
            await trio.sleep(DEADLINE * 0.8)
            it.script.gate(b"%d" % number).set()
            assert await line(stream) == b"%d" % number


async def test_a_request_may_not_arrive_for_ever(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp, request_timeout=3.0) as it, await it.connect() as stream:
        began = trio.current_time()
        with contextlib.suppress(trio.BrokenResourceError):
            for _ in range(100):  # a byte now and then does not help
                await stream.send_all(b"n")
                await trio.sleep(0.1)
        assert await rest_of(stream) == b""
        assert 3.0 <= trio.current_time() - began <= 15
        assert it.script.closed == 1


async def test_an_idle_connection_stays(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp, request_timeout=3.0) as it, await it.connect() as stream:
        await stream.send_all(b"now one\n")
        assert await line(stream) == b"one"
        await trio.sleep(1000)
        await stream.send_all(b"now two\n")
        assert await line(stream) == b"two"


async def test_who_owes_a_handshake_may_not_be_silent(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    script = Script()
    script.handshake = True
    async with running(tmp, script, request_timeout=3.0) as it, await it.connect() as prompt:
        await prompt.send_all(b"now one\n")
        assert await line(prompt) == b"one"
        script.begun.clear()
        async with await it.connect() as silent:
            began = trio.current_time()
            assert await rest_of(silent) == b""
            assert 3.0 <= trio.current_time() - began <= 3.0 + 2 * engines.TICK
        await prompt.send_all(b"now two\n")
        assert await line(prompt) == b"two"


async def test_the_time_of_a_half_request_begins_with_itself(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp, request_timeout=3.0, max_pending=1) as it, await it.connect() as stream:
        await stream.send_all(b"wait")  # begins at 0 and is complete at 2, when the next one begins
        await trio.sleep(2)
        await stream.send_all(b" one\nnow ")
        await trio.sleep(2)
        it.script.gate(b"one").set()
        assert await line(stream) == b"one"
        await stream.send_all(b"two\n")
        assert await line(stream) == b"two"


# Limits -----------------------------------------------------------------------------------------------------------------------


async def test_further_connections_wait_until_one_closes(
    tmp: Path, autojump_clock: trio.abc.Clock, logged: contextlib.AbstractContextManager[list[EventDict]]
) -> None:
    with logged as events:
        async with running(tmp, max_connections=2) as it:
            streams = [await it.connect() for _ in range(4)]
            for number, stream in enumerate(streams):
                await stream.send_all(b"now %d\n" % number)
            assert await line(streams[0]) == b"0"
            assert await line(streams[1]) == b"1"
            await trio.sleep(5)
            assert it.engine.connections == 2
            await streams[0].aclose()
            assert await line(streams[2]) == b"2"
            assert it.engine.connections == 2
            await streams[1].aclose()
            assert await line(streams[3]) == b"3"
            for stream in streams[2:]:
                await stream.aclose()
    assert [entry["event"] for entry in events] == ["too many connections: waiting for one to close"]


async def test_no_more_than_max_pending_are_begun(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp, max_pending=2) as it, await it.connect() as stream, await it.connect() as other:
        await stream.send_all(b"wait 0\nwait 1\nwait 2\nnow 3\n")
        await until(lambda: len(it.script.begun) == 2)
        await trio.sleep(1)
        assert it.script.begun == [b"wait 0", b"wait 1"]
        await other.send_all(b"now fine\n")
        assert await line(other) == b"fine"
        for name in (b"0", b"1", b"2"):
            it.script.gate(name).set()
        assert [await line(stream) for _ in range(4)] == [b"0", b"1", b"2", b"3"]


async def test_who_does_not_read_is_not_read_and_at_last_dropped(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp) as it, await it.connect() as stream:
        await stream.send_all(b"big 10000\n" * 5000)
        await trio.sleep(1)
        begun = len(it.script.begun)
        assert 0 < begun * 10000 < 4 * engines.BACKLOG_BYTES  # what the kernel takes comes on top of ours
        assert it.engine.connections == 1
        await trio.sleep(engines.STALLED + 2 * engines.TICK)
        assert it.engine.connections == 0
        assert len(it.script.begun) == begun
        assert it.script.closed == 1
        assert await it.alive()


async def test_who_reads_slowly_gets_everything(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp) as it, await it.connect() as stream, trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, b"big 9999\n" * 100)
        got = 0
        while got < 100 * 10000:
            await trio.sleep(1)
            got += len(await stream.receive_some(20000))
        assert got == 100 * 10000


# Who may connect, and whom there is room for ----------------------------------------------------------------------------------


async def test_allow_users_is_kept_by_peer_credentials(
    tmp: Path, autojump_clock: trio.abc.Clock, logged: contextlib.AbstractContextManager[list[EventDict]]
) -> None:
    with logged as events:
        async with running(tmp, allow_users=("64999",)) as it, await it.connect() as stream:
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(b"now one\n")
            with contextlib.suppress(trio.BrokenResourceError):  # a reset, where the request was sent in time
                assert await rest_of(stream) == b""
    assert it.script.begun == []
    assert [entry["event"] for entry in events] == ["connection refused: not among allow_users"]
    assert events[0]["pid"] == os.getpid()


async def test_who_is_among_allow_users_gets_in(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp, allow_users=("64999", str(os.getuid()))) as it:
        assert await it.alive()
    assert [origin.peer for origin in it.script.origins] == [f"uid:{os.getuid()}/pid:{os.getpid()}"]


async def test_tcp_peers_are_told_by_address(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    listened: list[Listening] = []

    def remember(listening: Listening) -> Listening:
        listened.append(listening)
        return listening

    async with (
        running(tmp, wrap=remember, address="tcp:127.0.0.1:0") as it,
        await trio.open_tcp_stream(*listened[0].sock.getsockname()) as stream,
    ):
        await stream.send_all(b"now one\n")
        assert await line(stream) == b"one"
        host, port = stream.socket.getsockname()
    assert [origin.peer for origin in it.script.origins] == [f"{host}:{port}"]


class Reluctant:
    """A listening socket whose `accept` fails as long as `error` says so."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.error = 0
        self.tries = 0

    def fileno(self) -> int:
        return self._sock.fileno()

    def accept(self) -> tuple[socket.socket, Any]:
        self.tries += 1
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return self._sock.accept()

    def close(self) -> None:
        self._sock.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_without_room_accepting_pauses(
    tmp: Path,
    autojump_clock: trio.abc.Clock,
    logged: contextlib.AbstractContextManager[list[EventDict]],
    number: int,
) -> None:
    reluctant: list[Reluctant] = []

    def wrap(listening: Listening) -> Listening:
        reluctant.append(Reluctant(listening.sock))
        listening.sock = cast("socket.socket", reluctant[0])
        return listening

    with logged as events:
        async with running(tmp, wrap=wrap) as it, await it.connect() as present:
            await present.send_all(b"now one\n")
            assert await line(present) == b"one"
            reluctant[0].error, reluctant[0].tries = number, 0
            async with await it.connect() as waiting:
                await waiting.send_all(b"now two\n")
                await trio.sleep(10)
                assert 2 <= reluctant[0].tries <= 10 / engines.TICK + 1
                await present.send_all(b"now three\n")
                assert await line(present) == b"three"
                reluctant[0].error = 0
                assert await line(waiting) == b"two"
    assert [entry["event"] for entry in events] == ["can't accept connections for now"]


async def test_with_no_file_descriptor_left_logins_go_on(
    tmp: Path, logged: contextlib.AbstractContextManager[list[EventDict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = 0
    wait_readable = trio.lowlevel.wait_readable

    async def counted(descriptor: int) -> None:
        nonlocal waits
        waits += 1
        await wait_readable(descriptor)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with logged:
        async with running(tmp) as it, await it.connect() as present:
            await present.send_all(b"now one\n")
            assert await line(present) == b"one"
            waiting = socket.socket(socket.AF_UNIX)
            resource.setrlimit(resource.RLIMIT_NOFILE, (waiting.fileno() + 1, hard))
            try:
                waiting.connect(f"{tmp}/talk.sock")
                waiting.sendall(b"now two\n")
                with monkeypatch.context() as patch:
                    patch.setattr(trio.lowlevel, "wait_readable", counted)
                    await trio.sleep(3 * engines.TICK)
                assert 1 <= waits <= 5
                await present.send_all(b"now three\n")
                assert await line(present) == b"three"
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            async with trio.SocketStream(trio.socket.from_stdlib_socket(_nonblocking(waiting))) as stream:
                assert await line(stream) == b"two"


def _nonblocking(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock


# Draining ---------------------------------------------------------------------------------------------------------------------


async def test_drain_hangs_up_on_the_idle_and_answers_the_busy(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp) as it, await it.connect() as idle, await it.connect() as busy, trio.open_nursery() as nursery:
        await busy.send_all(b"wait one\nnow two\n")
        await until(lambda: it.engine.connections == 2 and len(it.script.begun) == 2)
        drained = trio.Event()

        async def drain() -> None:
            await it.engine.drain()
            drained.set()

        nursery.start_soon(drain)
        assert await rest_of(idle) == b""
        await trio.sleep(5)
        assert not drained.is_set()
        it.script.gate(b"one").set()
        assert await rest_of(busy) == b"one\ntwo\n"
        await drained.wait()
        assert it.engine.connections == 0
        assert it.script.closed == 2


async def test_drain_answers_all_that_was_sent(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp, max_pending=1) as it, await it.connect() as stream, trio.open_nursery() as nursery:
        await stream.send_all(b"wait 0\nwait 1\nnow 2\n")
        await until(lambda: it.script.begun == [b"wait 0"])
        nursery.start_soon(it.engine.drain)
        await trio.sleep(1)
        it.script.gate(b"0").set()
        it.script.gate(b"1").set()
        assert await rest_of(stream) == b"0\n1\n2\n"


async def test_a_draining_engine_accepts_nobody(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp) as it:
        await it.engine.drain()
        async with await it.connect() as stream:
            await stream.send_all(b"now one\n")
            with trio.move_on_after(5) as patience:
                await line(stream)
            assert patience.cancelled_caught


async def test_a_peer_that_does_not_close_is_not_waited_for(tmp: Path, autojump_clock: trio.abc.Clock) -> None:
    async with running(tmp) as it, await it.connect() as stream:
        await stream.send_all(b"bye\n")
        await until(lambda: len(it.script.begun) == 1)
        assert it.engine.connections == 1  # it might still have to read
        await trio.sleep(engines.LINGER + 2 * engines.TICK)
        assert it.engine.connections == 0
        assert await rest_of(stream) == b"\n"
