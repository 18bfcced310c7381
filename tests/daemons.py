"""extauth for tests: served within the test's own trio loop, or as a process of its own, and its command line."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import trio

from extauth import configuration as configuration_file
from extauth import plugins
from extauth.daemon import open_without_listeners
from extauth.engine import Engine
from extauth.journal import Decision
from extauth.service import Service
from extauth.settings import Settings
from extauth.sockets import listen
from tests.servers.process import Server, listens

ROOT = Path(__file__).parent.parent
EXTAUTH = str(Path(sys.executable).with_name("extauth"))
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}  # for the backends of tests
ACCOUNTS = ("alice:fake right", "slow:fake slow")


def head(folder: Path | str, *, daemon: str = "", ejabberd: str = "", sasl: bool = False) -> str:
    """Return the head of a configuration: state and sockets in `folder`, of an `ejabberd` listener and if wanted `dovecot`'s.

    `daemon` and `ejabberd` are further lines of these tables. What else the machine does is not to be an outage.
    """
    dovecot = f'[listener.sasl]\nprotocol = "dovecot"\naddress = "unix:{folder}/sasl.sock"\n' if sasl else ""
    return f"""\
[daemon]
state = "sqlite://{folder}/state/state.db"
hash_patience = 20.0
{daemon}
[listener.admin]
protocol = "admin"
address = "unix:{folder}/admin.sock"
[listener.ejabberd]
protocol = "ejabberd"
address = "unix:{folder}/ejabberd.sock"
{ejabberd}
{dovecot}"""


def configuration(folder: Path, *, ejabberd: str = "", prosody: str = "", memory: str = "", daemon: str = "") -> str:
    """Return a configuration with a listener of each kind on sockets in `folder`, and ACCOUNTS in memory for xmpp.test.

    The arguments are further lines of the tables.
    """
    accounts = ", ".join(f'"{account}"' for account in ACCOUNTS)
    return f"""\
{head(folder, daemon=daemon, ejabberd=ejabberd)}[listener.prosody]
protocol = "prosody"
address = "unix:{folder}/prosody.sock"
{prosody}
[backend.people]
type = "tests.backends.memory"
accounts = [{accounts}]
{memory}
[domain."xmpp.test"]
backends = ["people"]
"""


def with_local_accounts(folder: Path, *, ejabberd: str = "", local: str = "") -> str:
    """Return a configuration whose accounts are kept by the `local` backend."""
    return f"""\
{head(folder, ejabberd=ejabberd)}[backend.local]
iterations = 4096
{local}
[domain."xmpp.test"]
backends = ["local"]
"""


def read(text: str) -> Settings:
    """Read a configuration with the plug-ins that are installed."""
    return configuration_file.read(text, plugins.InstalledKinds())


class Served:
    """A configuration served within this trio loop."""

    def __init__(self, folder: Path, service: Service, engines: Mapping[str, Engine]) -> None:
        self.folder = folder
        self.service = service
        self.engines = engines

    async def connect(self, listener: str) -> trio.SocketStream:
        """Connect to a listener on its unix socket."""
        return await trio.open_unix_socket(str(self.folder / f"{listener}.sock"))

    async def decisions(self) -> list[Decision]:
        """Return the decisions so far."""
        return (await self.service.journal.tail(0, 0))[1]


@asynccontextmanager
async def serve_here(folder: Path, text: str) -> AsyncGenerator[Served, None]:
    """Serve the configuration `text` within this trio loop."""
    parsed = read(text)
    async with open_without_listeners(parsed) as service, trio.open_nursery() as nursery:
        engines: dict[str, Engine] = {}
        opened = [listen(listener.name, listener.config) for listener in parsed.listeners]
        try:
            for listener, listening in zip(parsed.listeners, opened, strict=True):
                engine = plugins.listener(listener.protocol).server(listener.name, listener.config, service)
                await nursery.start(engine.run, listening)
                engines[listener.name] = engine
            yield Served(folder, service, engines)
        finally:
            nursery.cancel_scope.cancel()
            for listening in opened:
                listening.close()


class Daemon(Server):
    """`extauth serve` as a process. What it says is in `log()`."""

    def __init__(self, folder: Path, text: str) -> None:
        super().__init__(folder)
        self.config = folder / "extauth.toml"
        self.environment = ENVIRONMENT
        self.command = [EXTAUTH, "serve", "-c", str(self.config)]
        self.configure(text)

    def configure(self, text: str) -> None:
        """Write its configuration file."""
        self.config.write_text(text)

    def ready(self) -> bool:
        """Tell whether all of its sockets are there."""
        ports = re.findall(r'^address = "tcp:127\.0\.0\.1:(\d+)"', self.config.read_text(), re.MULTILINE)
        return all(is_up(path) for path in self._paths()) and all(listens(int(port)) for port in ports)

    def _paths(self) -> list[Path]:
        lines = self.config.read_text().splitlines()
        return [Path(line.split('"')[1].removeprefix("unix:")) for line in lines if line.startswith('address = "unix:')]

    def connect(self, listener: str = "ejabberd") -> "Wire":
        """Connect to a listener's unix socket."""
        return Wire(self.folder / f"{listener}.sock")

    def login(self, password: str = "fake right") -> bytes:  # a fake password
        """Log alice in through the ejabberd listener and return the reply."""
        with self.connect() as wire:
            return wire.ask(f"auth:alice:xmpp.test:{password}")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = 60) -> int:
        """Wait until it has ended by itself and return its status."""
        assert self._process is not None
        status = self._process.wait(seconds)
        self._process = None
        return status

    def open_files(self) -> int:
        """Return how many file descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def seconds_of_processor(self) -> float:
        """Return how much processor time it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Wire:
    """A connection of an ejabberd worker, or of whoever speaks in its frames."""

    def __init__(self, path: Path | tuple[str, int], seconds: float = 60) -> None:
        self.sock = socket.socket(socket.AF_UNIX if isinstance(path, Path) else socket.AF_INET)
        try:
            self.sock.connect(str(path) if isinstance(path, Path) else path)  # waits for a place in the queue
        except OSError:
            self.sock.close()
            raise
        self.sock.settimeout(seconds)

    def send(self, question: str) -> None:
        """Ask without waiting for the answer."""
        self.sock.sendall(frame(question.encode()))

    def receive(self) -> bytes:
        """Return the next frame's payload, b"" at the end."""
        header = self._exactly(2)
        return self._exactly(int.from_bytes(header)) if header else b""

    def ask(self, question: str) -> bytes:
        """Ask and return the answer's payload."""
        self.send(question)
        return self.receive()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            if not piece:
                assert not data, "half a frame"
                return b""
            data += piece
        return data

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


YES, NO, ERROR = b"\0\1", b"\0\0", b"\0"  # payloads of replies to ejabberd


def frame(payload: bytes) -> bytes:
    """Put ejabberd's length before the payload."""
    return len(payload).to_bytes(2) + payload


def is_up(path: Path) -> bool:
    """Tell whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def extauth(
    *arguments: str | Path, stdin: str = "", environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line and return what it printed and its status."""
    command: Sequence[str] = [EXTAUTH, *map(str, arguments)]
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder or "/",
        env={**os.environ, **ENVIRONMENT, **(environment or {})},
    )
