"""Debian's Prosody with its mod_auth_dovecot before a daemon.

The module does not tell the virtual host, so each has a listener of its own, and a domain of the same name behind it.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.certificates import Certificates
from tests.daemons import YES, Daemon
from tests.servers.process import temporary_folder
from tests.servers.prosody import Prosody

PASSWORD = "fake right"
TOKEN = "fake-token"  # of alice

_CONFIGURATION = """\
[daemon]
state = "sqlite://{folder}/state/state.db"
mechanism_modules = ["tests.mechanisms.x_my_mechanism"]
[listener.admin]
protocol = "admin"
address = "unix:{folder}/admin.sock"
[listener.accounts]
protocol = "ejabberd"
address = "unix:{folder}/ejabberd.sock"
allow_changes = true
[backend.local]
iterations = 4096
[backend.tokens]
type = "tests.backends.bearer"
tokens = ["{token}:alice"]
[backend.away]
type = "tests.backends.away"
"""
_HOST = """\
[listener."{host}"]
protocol = "dovecot"
address = "unix:{folder}/{host}.sock"
domain = "{host}"
[domain."{host}"]
{rules}
"""


@dataclass(frozen=True)
class Relay:
    """A running pair."""

    daemon: Daemon
    prosody: Prosody

    @property
    def url(self) -> str:
        """Prosody's websocket."""
        return f"ws://127.0.0.1:{self.prosody.http_port}/xmpp-websocket"

    def register(self, user: str, host: str, password: str = PASSWORD) -> None:
        """Make an account."""
        self._change(f"tryregister:{user}:{host}:{password}")

    def set_password(self, user: str, host: str, password: str) -> None:
        """Change a password."""
        self._change(f"setpass:{user}:{host}:{password}")

    def _change(self, question: str) -> None:
        with self.daemon.connect() as wire:
            assert wire.ask(question) == YES


@contextmanager
def relay(certificates: Certificates, hosts: Mapping[str, str]) -> Generator[Relay]:
    """Run the pair with these virtual hosts, each with the lines of its [domain] table.

    The backends are `local`, `tokens` (which takes TOKEN) and `away` (which can never tell).
    """
    with temporary_folder() as folder, temporary_folder() as prosody_folder:
        tables = [_HOST.format(host=host, folder=folder, rules=rules) for host, rules in hosts.items()]
        text = "".join([_CONFIGURATION.format(folder=folder, token=TOKEN), *tables])
        with Daemon(folder, text) as daemon, _prosody(prosody_folder, certificates, folder, hosts) as prosody:
            yield Relay(daemon, prosody)


def _prosody(folder: Path, certificates: Certificates, sockets: Path, hosts: Mapping[str, str]) -> Prosody:
    declared = [f'VirtualHost "{host}"\n    dovecot_auth_socket = "{sockets}/{host}.sock"' for host in hosts]
    return Prosody(
        folder,
        certificates,
        'authentication = "dovecot"',
        plugin_paths=["/usr/lib/prosody/modules/mod_auth_dovecot"],
        virtual_hosts="\n".join(declared),
    )
