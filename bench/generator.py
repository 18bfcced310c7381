"""Builds and runs loadgen.c, which makes the requests and compares every answer with the right one."""

import json
import os
import subprocess
from collections.abc import Generator as Generating
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import Server

TICKS = os.sysconf("SC_CLK_TCK")
SOURCE = Path(__file__).with_name("loadgen.c")


@dataclass(frozen=True)
class Measured:
    """What one run gave: answers a second; microseconds until the answer came, and of the server's processor time for it.

    None: not measured.
    """

    rate: float
    p50: float | None = None
    p99: float | None = None
    cpu: float | None = None


@dataclass(frozen=True)
class Load:
    """What is asked. `wrong` is the percentage of questions that must be refused."""

    protocol: str
    connections: int
    requests: int
    host: str
    in_flight: int = 1
    users: int = 1000
    wrong: int = 10
    operation: str = "auth"
    accounts: Path | None = None  # a file of user:password, instead of the usual ones


class Generator:
    """The compiled generator. `scale` multiplies the number of requests."""

    def __init__(self, folder: Path, scale: float) -> None:
        self._program = folder / "loadgen"
        self._scale = scale
        subprocess.run(["cc", "-O2", "-o", self._program, SOURCE, "-lcrypto"], check=True)

    def run(self, load: Load, server: Server, path: Path) -> Measured:
        """Ask the server on its socket `path`.

        Raises:
            RuntimeError: an answer was wrong, missing or late.
        """
        arguments = self._arguments(load, path, max(int(load.requests * self._scale), 10 * load.connections))
        before = _processor_time(server.pid)
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{load} on {path}: {done.stdout}{done.stderr}")
        result = json.loads(done.stdout)
        cpu = (_processor_time(server.pid) - before) / (result["yes"] + result["no"])
        return Measured(result["rps"], result["p50_us"], result["p99_us"], cpu * 1e6)

    @contextmanager
    def background(self, load: Load, path: Path) -> Generating[None]:
        """Ask all the time, whatever `load.requests` says; nobody looks at the answers."""
        with subprocess.Popen(self._arguments(load, path, 10_000_000), stdout=subprocess.DEVNULL) as process:
            try:
                yield
                assert process.poll() is None, f"{load} on {path} has come to an end"
            finally:
                process.kill()

    def _arguments(self, load: Load, path: Path, requests: int) -> list[str]:
        options: dict[str, object] = {
            "-P": load.protocol,
            "-o": load.operation,
            "-u": path,
            "-c": load.connections,
            "-d": load.in_flight,
            "-n": requests,
            "-w": load.wrong,
            "-U": load.users,
            "-h": load.host,
            **({"-f": load.accounts} if load.accounts else {}),
            "-T": 600,
        }
        return [str(self._program), *(str(word) for option in options.items() for word in option)]


def _processor_time(pid: int) -> float:
    """Return the seconds that a process and its descendants have computed (proc(5))."""
    process = Path("/proc", str(pid))
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    children = (process / "task" / str(pid) / "children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / TICKS + sum(_processor_time(int(child)) for child in children)
