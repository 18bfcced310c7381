"""The servers that are measured, each a process of its own. Their standard error goes to a file in their folder."""

import socket
import sys
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

import trio

from bench.plain_backend import passwords
from extauth.configuration import load
from extauth.daemon import open_without_listeners
from extauth.jid import identity
from extauth.model import Accept, CreateUser, Origin, Secret
from extauth.passwords import scram
from extauth.plugins import InstalledKinds
from extauth.soon import settle
from tests.servers.dovecot import Dovecot
from tests.servers.process import Server

ROOT = Path(__file__).resolve().parent.parent
PLAIN = "plain.example.org"  # of accounts in memory
DIRECTORY = "directory.example.org"  # of accounts in a directory
LOCAL = {4096: "local.example.org", 10000: "slow.example.org"}  # of accounts in the state store, by iterations


class Process(Server):
    """A server that is ready when its socket takes connections."""

    def __init__(self, folder: Path, socket: Path, command: Sequence[str]) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder)
        self.socket = socket
        self.command = command
        self.environment = {"PYTHONPATH": str(ROOT)}

    def ready(self) -> bool:
        """Tell whether the socket takes connections."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0


def extauth(folder: Path, listeners: str = "", state: str = "") -> Process:
    """Return the daemon as it is, on `folder`/ejabberd.sock, with the accounts that loadgen asks for.

    `state` is where it keeps them, instead of a file in `folder`.
    """
    configuration = configure(folder, listeners, state)
    trio.run(fill, configuration)
    return Process(
        folder / "extauth",
        folder / "ejabberd.sock",
        [str(Path(sys.executable).with_name("extauth")), "serve", "-c", str(configuration)],
    )


def streams(folder: Path) -> Process:
    """Return the same listener on plain trio streams."""
    path = folder / "streams.sock"
    return Process(
        folder / "streams", path, [sys.executable, "-m", "bench.streams_server", str(folder / "extauth.toml"), str(path)]
    )


def bare(folder: Path) -> Process:
    """Return the least that answers right."""
    path = folder / "bare.sock"
    return Process(
        folder / "bare", path, [sys.executable, "-m", "bench.bare_server", str(folder / "state.db"), PLAIN, str(path)]
    )


def configure(folder: Path, listeners: str, state: str = "") -> Path:
    """Write the configuration and return its path."""
    configuration = folder / "extauth.toml"
    domains = "".join(
        f"""
        [backend.local{iterations}]
        type = "local"
        iterations = {iterations}
        [domain."{domain}"]
        backends = ["local{iterations}"]
        """
        for iterations, domain in LOCAL.items()
    )
    configuration.write_text(
        dedent(f"""
        [daemon]
        state = "{state or f"sqlite://{folder}/state.db"}"
        hash_patience = 20.0
        [listener.ejabberd]
        protocol = "ejabberd"
        address = "unix:{folder}/ejabberd.sock"
        [listener.admin]
        protocol = "admin"
        address = "unix:{folder}/admin.sock"
        [backend.plain]
        type = "bench.plain_backend"
        [domain."{PLAIN}"]
        backends = ["plain"]
        """)
        + dedent(domains)
        + dedent(listeners)
    )
    return configuration


def dovecot(folder: Path, *, stored_keys: bool) -> Dovecot:
    """Return Debian's Dovecot with the same accounts, its passwords kept as they are or as SCRAM-SHA-256 keys."""
    folder.mkdir()
    accounts = passwords(1000)
    server = Dovecot(folder, accounts)
    if stored_keys:
        lines = [f"{user}:{_scram(password)}::::::\n" for user, password in accounts.items()]
        (folder / "users").write_text("".join(lines))
    return server


def _scram(password: str) -> str:
    """Return a password in Dovecot's scheme {SCRAM-SHA-256}: iterations, salt, stored key, server key."""
    salt = scram.new_salt()
    keys = scram.make(scram.Hash.SHA_256, password, salt, scram.MIN_ITERATIONS)
    texts = (b64encode(value).decode() for value in (salt, keys.stored_key, keys.server_key))
    return f"{{SCRAM-SHA-256}}{scram.MIN_ITERATIONS},{','.join(texts)}"


async def fill(configuration: Path) -> None:
    """Create the accounts that loadgen asks for."""
    settings = load(configuration, InstalledKinds())
    at_once = trio.CapacityLimiter(8)
    async with open_without_listeners(settings) as service, trio.open_nursery() as nursery:

        async def create(domain: str, user: str, password: str) -> None:
            async with at_once:
                verdict = await settle(service.ask(CreateUser(identity(user, domain), Origin("bench"), Secret(password))))
            assert isinstance(verdict, Accept), verdict

        for domain, users in ((LOCAL[4096], 1000), (LOCAL[10000], 100)):
            for user, password in passwords(users).items():
                nursery.start_soon(create, domain, user, password)
