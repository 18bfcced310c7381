"""The LDAP process as the daemon sees it: started, asked, and started anew when it has ended. See `extauth_ldap.child`."""

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from itertools import count

import structlog
import trio

from extauth.backend import Down, Insight
from extauth.errors import BackendDown
from extauth.threads import Load
from extauth_ldap.messages import (
    LARGEST,
    SERVER_DOWN,
    SERVER_UP,
    Asked,
    Bug,
    Change,
    Logged,
    MessageError,
    Outage,
    Question,
    Reply,
    Setup,
    Told,
    pack,
    read_ready,
    read_said,
)

COMMAND = (sys.executable, "-P", "-m", "extauth_ldap.child")
OURS_ALONE = ("NOTIFY_", "WATCHDOG_", "LISTEN_")  # of the environment: what systemd tells the daemon itself
MARGIN = 1.1  # of a question's time: what the process says of an outage is worth waiting for
START = 60.0  # seconds that it may take to be there
HUNG = 10.0  # seconds of silence beyond the time of a question, after which the process is ended
FAREWELL = 2.0  # seconds that it may take to end once the socket is closed
FIRST_PAUSE, LAST_PAUSE = 0.5, 15.0  # seconds before one that did not last is started again; doubled each time
STEADY = 30.0  # seconds after which one has lasted
MAX_LINE = 500  # bytes of a line that it prints that are logged

_log = structlog.get_logger("ldap")


class ProcessLost(BackendDown):
    """The process ended before it answered."""


class _Waiting:
    """A question that the process has, and its answer."""

    __slots__ = ("answer", "answered", "since")

    def __init__(self) -> None:
        self.since = trio.current_time()
        self.answered = trio.Event()
        self.answer: Told | Outage | Bug | None = None  # None, once answered: it was lost


class LdapProcess:
    """Keeps one process running, and asks it as many questions at a time as it has threads."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._free = trio.Semaphore(0)  # threads of the process that wait for a question
        self._numbers = count()
        self._asked: dict[int, _Waiting] = {}  # what it has not answered, also if nobody waits for that any more
        self._down: dict[str, Down] = {}  # by URL
        self._line: socket.socket | None = None  # to the process, while it takes questions
        self._problem = "the LDAP process could not be started"  # why nobody need wait for it; "" if it is, or will be there

    @property
    def insight(self) -> Insight:
        """Which servers are down, and how many threads are busy."""
        load = Load(self._setup.config.threads, len(self._asked), self._free.statistics().tasks_waiting)
        return Insight(dict(self._down), load)

    async def ask(self, question: Question, patience: float) -> Told:
        """Put a question, and wait for the answer. If the process ends, it is put once more; a change is not.

        Raises:
            BackendDown: it can't be told, or not within `patience` seconds.
        """
        deadline = time.monotonic() + patience
        with trio.move_on_after(MARGIN * patience):
            try:
                return await self._put(question, deadline)
            except ProcessLost:
                if isinstance(question, Change):
                    raise
            return await self._put(question, deadline)
        raise BackendDown("no answer from the LDAP process in time")

    async def _put(self, question: Question, deadline: float) -> Told:
        if self._problem:
            raise BackendDown(self._problem)
        with trio.move_on_after(self._setup.config.queue_patience) as queueing:
            await self._free.acquire()
        if queueing.cancelled_caught:
            raise BackendDown(self._problem or "all LDAP threads are busy")
        waiting = self._send(question, deadline)
        await waiting.answered.wait()
        match waiting.answer:
            case Told():
                return waiting.answer
            case Outage(problem):
                raise BackendDown(problem)
            case Bug(traceback):
                raise RuntimeError(f"in the LDAP process: {traceback}")
            case None:
                raise ProcessLost("the LDAP process ended before it answered")

    def _send(self, question: Question, deadline: float) -> _Waiting:
        """Give a question to a thread that waits for one."""
        number = next(self._numbers)
        packet = pack(Asked(number, deadline, question))
        if self._line is None:
            raise ProcessLost("the LDAP process ended before it was asked")
        try:
            if len(packet) > LARGEST:
                raise BlockingIOError
            self._line.send(packet)
        except BlockingIOError:
            self._free.release()
            raise BackendDown("the LDAP process does not take this question") from None
        except OSError:
            raise ProcessLost("the LDAP process ended before it was asked") from None
        waiting = self._asked[number] = _Waiting()
        return waiting

    # The process itself -------------------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[tuple[str, ...]]) -> None:
        """Keep a process running until cancelled. Reports, when the first is ready, what is wrong with the configuration.

        Raises:
            BackendDown: the first can't be started.
        """
        name, restarted, pause = self._setup.name, -STEADY, 0.0
        how = await self._run_once(task_status)
        if self._problem:
            raise BackendDown(f"backend.{name}: {self._problem}: {how}")
        while True:
            now = trio.current_time()
            pause = 0.0 if now >= restarted + STEADY else min(max(2 * pause, FIRST_PAUSE), LAST_PAUSE)
            _log.warning("the LDAP process ended; another is started", backend=name, how=how, pause=pause)
            if pause:
                self._problem = f"the LDAP process ended: {how}"
                await trio.sleep(pause)
            restarted = now + pause
            how = await self._run_once(trio.TASK_STATUS_IGNORED)

    async def _run_once(self, task_status: trio.TaskStatus[tuple[str, ...]]) -> str:
        """Run one process to its end, and return how it came to that."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with trio.socket.from_stdlib_socket(ours) as line:
            with theirs:
                environment = {key: value for key, value in os.environ.items() if not key.startswith(OURS_ALONE)}
                try:
                    process = await trio.lowlevel.open_process(
                        COMMAND,
                        stdin=theirs,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        env=environment,
                        process_group=0,  # a terminal's signals are for the daemon
                    )
                except OSError as error:
                    return str(error)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_output, process)
                how = ""
                try:
                    ours.send(pack(self._setup))
                    if data := await self._receive(line):
                        problems = read_ready(data).problems
                        how, self._problem = "; ".join(problems), ""
                        task_status.started(problems)
                        if not problems:
                            self._take_questions(ours)
                    while data and (data := await self._receive(line)):
                        self._hear(read_said(data))
                except ConnectionError:  # its end, with questions unread
                    pass
                except (OSError, MessageError) as error:
                    process.kill()
                    how = str(error)
                finally:
                    self._lose()
                    line.close()
                    await _part(process)
        return how or f"status {process.returncode}"

    async def _receive(self, line: trio.socket.SocketType) -> bytes:
        """Return what the process says next, b"" at its end.

        Raises:
            OSError: it is silent although it should speak.
        """
        patience = START if self._line is None else self._setup.config.timeout + HUNG
        while True:
            with trio.move_on_after(patience):
                return await line.recv(LARGEST)
            oldest = next(iter(self._asked.values()), None)
            if self._line is None or (oldest is not None and oldest.since + patience <= trio.current_time()):
                raise TimeoutError("it was silent for too long")

    def _take_questions(self, line: socket.socket) -> None:
        self._line = line
        for _ in range(self._setup.config.threads):
            self._free.release()

    def _lose(self) -> None:
        """Take no more questions. Those that the process had are lost, and what it knew of servers."""
        self._line = None
        self._down.clear()
        with suppress(trio.WouldBlock):
            while True:
                self._free.acquire_nowait()
        lost, self._asked = self._asked, {}
        for waiting in lost.values():
            waiting.answered.set()

    def _hear(self, said: Reply | Logged) -> None:
        """Give an answer to who waits for it, or a line to the log.

        Raises:
            MessageError: it answers what was not asked.
        """
        if isinstance(said, Logged):
            server = said.details.get("server", "")
            if said.event == SERVER_DOWN:
                self._down[server] = Down(said.details.get("problem", ""), time.time())
            elif said.event == SERVER_UP:
                self._down.pop(server, None)
            getattr(_log, said.level)(said.event, backend=self._setup.name, **said.details)
            return
        waiting = self._asked.pop(said.number, None)
        if waiting is None:
            raise MessageError("an answer to no question")
        waiting.answer = said.answer
        waiting.answered.set()
        self._free.release()

    async def _read_output(self, process: trio.Process) -> None:
        """Log what it prints: that should be nothing."""
        assert process.stdout is not None
        rest = b""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in process.stdout:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    text = line[:MAX_LINE].decode(errors="backslashreplace")
                    _log.warning("the LDAP process says", backend=self._setup.name, line=text)
                rest = rest[:MAX_LINE]


async def _part(process: trio.Process) -> None:
    """Wait until a process is gone, whose socket is closed."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(FAREWELL):
            await process.wait()
        process.kill()
        await process.wait()
