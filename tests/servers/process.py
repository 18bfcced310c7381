"""What the real servers in the tests share: free ports, short folders, a process started and ended."""

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

# Below Linux's range for outgoing connections (32768 and up), so that no client of another test takes one.
_PORTS = range(20000, 32000)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on, and that no other process of tests is given while this one lives.

    The UDP port of the same number says that it is taken.
    """
    while True:
        address = ("127.0.0.1", random.choice(_PORTS))
        with socket.socket() as probe, socket.socket(type=socket.SOCK_DGRAM) as claim:
            try:
                claim.bind(address)
                probe.bind(address)
            except OSError:
                continue
            claim.detach()  # open until this process ends
            return address[1]


@contextmanager
def temporary_folder() -> Generator[Path]:
    """Yield a new folder with a path short enough for a Unix socket in it (108 bytes), removed afterwards.

    Other users may enter it, since some servers give up root.
    """
    folder = Path(tempfile.mkdtemp(prefix="x-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def poll(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until `condition` holds; AssertionError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            message = f"not within {seconds} s: {what}"
            raise AssertionError(message)
        time.sleep(0.01)


def listens(port: int) -> bool:
    """Tell whether something accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A server process: a context manager, or `start` and `stop` by hand (which block: under trio, a thread).

    A subclass gives `command` and `ready`, and may give `prepare` and `furnish`, and set `environment` and `log_file`.
    What the process prints is appended to `output_file`.
    """

    command: Sequence[str]
    environment: Mapping[str, str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output_file = folder / "output"
        self.log_file = self.output_file
        self.environment = {}
        self._process: subprocess.Popen[bytes] | None = None

    def ready(self) -> bool:
        """Tell whether the server serves; asked again and again while it starts."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Do what has to be done before the process starts."""

    def furnish(self) -> None:
        """Do what can be done only once it serves."""

    @property
    def pid(self) -> int:
        """The process id; AssertionError when it was not started."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until ready; AssertionError with the output when it ends or is not ready in time.

        Whatever goes wrong, nothing is left running.
        """
        self.prepare()
        with self.output_file.open("ab") as output:
            self._process = self._spawn(output)
        try:
            poll(self._ready_or_dead, f"{type(self).__name__} is up")
            self.furnish()
        except BaseException as error:
            self.stop()
            error.add_note(self.output())
            raise

    def _spawn(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **self.environment},
            cwd=self.folder,
        )

    def _ready_or_dead(self) -> bool:
        assert self._process is not None
        if (status := self._process.poll()) is not None:
            message = f"{type(self).__name__} ended with {status}"
            raise AssertionError(message)
        return self.ready()

    def stop(self, seconds: float = 15) -> None:
        """End the process by SIGTERM, after `seconds` by SIGKILL, and wait until it is gone."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it by SIGKILL, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def log(self) -> str:
        """Return the log so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def output(self) -> str:
        """Return what the process printed so far."""
        return self.output_file.read_text(errors="replace")

    def wait_for_log(self, text: str, seconds: float = 60) -> None:
        """Wait until the log contains `text`; AssertionError with the end of the log after `seconds`."""
        try:
            poll(lambda: text in self.log(), f"{text!r} in the log", seconds)
        except AssertionError as error:
            error.add_note(self.log()[-4000:])
            raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
