"""The processes of a program: started, asked in frames of {packet, 2}, ended as soon as they don't keep to them."""

import os
import select
import signal
import subprocess
from contextlib import suppress
from typing import cast

import structlog
import trio

from extauth.errors import BackendDown
from extauth.model import Secret

YES, NO = b"\0\2\0\1", b"\0\2\0\0"
MAX_QUESTION = 65535  # bytes: what the frame's length can say
MAX_LINE = 500  # bytes of a line of the program's standard error that are logged
FIRST_PAUSE, LAST_PAUSE = 0.1, 10.0  # seconds before a program that failed is started again; doubled each time
LAST_WORDS = 0.5  # seconds to wait for what an ended program has still to say

_log = structlog.get_logger("program")


class _FailedError(Exception):
    """The process did not answer, or not as it must."""


class _Process:
    """One process, with one question at a time."""

    def __init__(self, backend: str, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._backend = backend
        self._process = process
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._unasked = select.poll()
        self._unasked.register(cast("trio.lowlevel.FdStream", process.stdout).fileno(), select.POLLIN)
        self._hidden = ("", "")  # the last two passwords it was told
        self.said = ""  # its last line on standard error
        self._silent = trio.Event()

    @property
    def usable(self) -> bool:
        """Whether it waits for a question. What it says unasked would answer the next one; it may also have ended."""
        return not self._unasked.poll(0)

    async def ask(self, question: str, password: Secret | None) -> bool:
        """Put a question.

        Raises:
            _FailedError: the process must be ended.
        """
        if password is not None:
            self._hidden = (self._hidden[1], password.reveal())
            question = f"{question}:{password.reveal()}"
        data = question.encode()
        answer = b""
        try:
            await self._stdin.send_all(len(data).to_bytes(2, "big") + data)
            while len(answer) < len(YES) and (more := await self._stdout.receive_some(64)):
                answer += more
        except trio.BrokenResourceError:
            answer = b""
        if answer in (YES, NO):
            return answer == YES
        if answer:
            raise _FailedError("an answer that is neither 0 nor 1")
        with trio.move_on_after(LAST_WORDS):
            await self._silent.wait()
            await self._process.wait()
        raise _FailedError(f"ended with status {self._process.returncode}")

    async def listen(self) -> None:
        """Log what it says on standard error, without the passwords it was told."""
        rest = b""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in self._stderr:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._log(line)
                rest = rest[:MAX_LINE]
        self._log(rest)
        self._silent.set()

    def _log(self, line: bytes) -> None:
        text = line.decode(errors="backslashreplace")
        for password in self._hidden:
            text = text.replace(password, "[password]") if password else text
        if text := text.strip()[:MAX_LINE]:
            self.said = text
            _log.warning("program says", backend=self._backend, pid=self._process.pid, line=text)

    def end(self) -> None:
        """Kill it and what it has started."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


class Pool:
    """At most `size` processes of one program, each started when all others are busy."""

    def __init__(self, backend: str, command: tuple[str, ...], size: int, nursery: trio.Nursery) -> None:
        self.program = command[0]
        self._backend = backend
        self._command = command
        self._places = trio.CapacityLimiter(size)
        self._nursery = nursery
        self._idle: list[_Process] = []
        self._pause = FIRST_PAUSE
        self._not_before = 0.0
        self._failure = ""

    async def ask(self, question: str, password: Secret | None = None) -> bool:
        """Put a question to a free process.

        Raises:
            BackendDown: it failed; its last words are told.
        """
        if password is not None and len(question.encode()) + 1 + len(password.reveal().encode()) > MAX_QUESTION:
            return False
        async with self._places:
            process = await self._take()
            try:
                answer = await process.ask(question, password)
            except _FailedError as error:
                process.end()
                raise BackendDown(self._failed(error, process.said)) from error
            except BaseException:  # cancelled: its answer, if it comes, would be taken for the next one's
                process.end()
                raise
            self._idle.append(process)
            self._pause = FIRST_PAUSE
            return answer

    async def _take(self) -> _Process:
        while self._idle:
            process = self._idle.pop()
            if process.usable:
                return process
            process.end()
            _log.warning("program ended, or spoke unasked; another is started", backend=self._backend)
        if trio.current_time() < self._not_before:
            raise BackendDown(self._failure)
        try:
            started = await trio.lowlevel.open_process(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise BackendDown(self._failed(error)) from error
        process = _Process(self._backend, started)
        self._nursery.start_soon(self._look_after, process, started)
        return process

    async def _look_after(self, process: _Process, started: trio.Process) -> None:
        """Hear what a process says, and take leave of it when it has ended."""
        await process.listen()
        await started.wait()

    def _failed(self, error: Exception, said: str = "") -> str:
        """Note a failure, so that a program that can't run is not started all the time; return it in words."""
        self._failure = f"{self.program}: {error}" + (f"; it said: {said}" if said else "")
        self._not_before = trio.current_time() + self._pause
        self._pause = min(2 * self._pause, LAST_PAUSE)
        return self._failure

    def close(self) -> None:
        """End the idle processes; those that are asked end with their question."""
        for process in self._idle:
            process.end()
        self._idle.clear()
