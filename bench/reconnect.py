"""What a client waits for from <auth/> to <success/>, through Prosody and the daemon: by an access token, and by SCRAM."""

import json
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from xml.etree.ElementTree import Element

import scramp

from bench import servers
from bench.generator import Measured
from tests.certificates import make_certificates
from tests.daemons import extauth
from tests.rawxmpp import SASL, Stream, WebsocketStream, decode
from tests.servers.prosody import Prosody

HOST = "reconnect.example.org"
USER = "u00000"
PASSWORD = "fake password of one who comes back"
ITERATIONS = 10000  # as the backend makes them by default
LOGINS = 100
WARM_UP = 5

CONFIGURATION = """
    [listener.sasl]
    protocol = "dovecot"
    address = "unix:{folder}/sasl.sock"
    [backend.tokens]
    [backend.people]
    type = "local"
    iterations = {iterations}
    [domain."{host}"]
    backends = ["tokens", "people"]
"""
PROSODY = """\
    authentication = "extauth"
    extauth_socket = "{folder}/sasl.sock"
    extauth_accounts_socket = "{folder}/ejabberd.sock"
    """


def configuration(folder: Path) -> str:
    """Return the tables that the daemon needs beside its own."""
    return CONFIGURATION.format(folder=folder, iterations=ITERATIONS, host=HOST)


def prosody(folder: Path) -> Prosody:
    """Return a Prosody that asks the daemon in the same folder."""
    own = folder / "prosody"
    own.mkdir()
    certificates = make_certificates(folder, [HOST])
    plugins = (servers.ROOT / "contrib" / "prosody",)
    hosts = f'VirtualHost "{HOST}"'
    return Prosody(own, certificates, PROSODY.format(folder=folder), plugin_paths=plugins, virtual_hosts=hosts)


def access_token(daemon: servers.Process) -> bytes:
    """Make the account in a running daemon; return an access token of it as clients send it."""
    where = ("-c", daemon.command[-1])
    extauth("user", "add", f"{USER}@{HOST}", "--password-stdin", *where, stdin=PASSWORD).check_returncode()
    issued = extauth("token", "issue", f"{USER}@{HOST}", "--json", *where)
    issued.check_returncode()
    return b64decode(json.loads(issued.stdout)["access"])


def by_token(token: bytes) -> Callable[[Stream], Element]:
    """Return a login by X-OAUTH."""
    return lambda stream: stream.auth("X-OAUTH", token)


def by_scram(mechanism: str) -> Callable[[Stream], Element]:
    """Return a login by password, whose client derives the keys and checks the server's signature."""

    def login(stream: Stream) -> Element:
        client: Any = scramp.ScramClient([mechanism], USER, PASSWORD)
        client.set_server_first(decode(stream.auth(mechanism, client.get_client_first().encode())).decode())
        answer = stream.respond(client.get_client_final().encode())
        client.set_server_final(decode(answer).decode())
        return answer

    return login


def measure(server: Prosody, login: Callable[[Stream], Element]) -> Measured:
    """Log in again and again, each time on a new websocket that is open already.

    Raises:
        RuntimeError: a login was refused.
    """
    taken: list[float] = []
    for _ in range(WARM_UP + LOGINS):
        with WebsocketStream(server.http_port, HOST) as stream:
            before = time.perf_counter()
            answer = login(stream)
            taken.append((time.perf_counter() - before) * 1e6)
        if answer.tag != f"{SASL}success":
            raise RuntimeError(answer.tag)
    del taken[:WARM_UP]
    return Measured(1e6 / median(taken), median(taken), quantiles(taken, n=100)[-1])
