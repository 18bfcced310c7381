"""The throwaway configuration of `extauth serve --demo`."""

import os
import secrets
import shutil
import socket
import sys
from pathlib import Path
from typing import NamedTuple

import trio

from extauth.admin import Command, perform
from extauth.configuration import load
from extauth.daemon import open_without_listeners
from extauth.model import Origin
from extauth.plugins import InstalledKinds
from extauth.settings import Settings

DOMAIN = "localhost"
ACCOUNT = f"alice@{DOMAIN}"
PORTS = (23661, 23662)  # for ejabberd and for Prosody


class Demonstration(NamedTuple):
    """A configuration to serve and the text to show once it is served."""

    config: Path
    text: str


def prepare(folder: Path) -> Demonstration:
    """Write a configuration into `folder` and make its one account, with a random password."""
    config = folder / "extauth.toml"
    ports = [_free_port(preferred) for preferred in PORTS]
    config.write_text(_config(folder, ports), encoding="utf-8")
    password = secrets.token_urlsafe(12)
    trio.run(_make_account, load(config, InstalledKinds()), password)
    return Demonstration(config, _text(folder, config, ports, password))


def _free_port(preferred: int) -> int:
    """Return the preferred port, or another if somebody has that."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", preferred))
        except OSError:
            sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def _make_account(settings: Settings, password: str) -> None:
    async with open_without_listeners(settings) as service:
        reply = await perform(service, Command("user-add", jid=ACCOUNT, password=password), Origin("demo"))
        assert reply["ok"], reply


def _config(folder: Path, ports: list[int]) -> str:
    return f"""\
[daemon]
state = "sqlite://{folder}/state/state.db"

[listener.admin]
protocol = "admin"
address = "unix:{folder}/admin.sock"

[listener.ejabberd]
protocol = "ejabberd"
address = "unix:{folder}/ejabberd.sock"
allow_changes = true

[listener.prosody]
protocol = "prosody"
address = "unix:{folder}/prosody.sock"

[listener.ejabberd-tcp]
protocol = "ejabberd"
address = "tcp:127.0.0.1:{ports[0]}"

[listener.prosody-tcp]
protocol = "prosody"
address = "tcp:127.0.0.1:{ports[1]}"

[domain.{DOMAIN}]
backends = ["local"]
"""


def _text(folder: Path, config: Path, ports: list[int], password: str) -> str:
    program = _program("extauth")
    return f"""
extauth is running. Everything it keeps is in {folder} and is removed when it stops (Ctrl-C).

  account    {ACCOUNT}
  password   {password}          (shown only here)

Try it from another terminal; it asks for the password, and tells why if you mistype it:

  {program} login -c {config} {ACCOUNT}

ejabberd.yml:

  hosts: [{DOMAIN}]
  auth_method: [external]
  extauth_program: "{program} connect ejabberd tcp:127.0.0.1:{ports[0]}"
  auth_use_cache: false

prosody.cfg.lua, with mod_auth_external and lpty, and EXTAUTH_PROSODY=tcp:127.0.0.1:{ports[1]} in Prosody's environment:

  VirtualHost "{DOMAIN}"
    authentication = "external"
    external_auth_command = "{_program("extauth-prosody")}"

or without lpty, with the variant of the module that connects by TCP:

    external_auth_command = "@127.0.0.1:{ports[1]}"

(A server that systemd confines may not see programs under /home or /root: docs/operations.md tells where to install.)
"""


def _program(name: str) -> str:
    beside = Path(sys.argv[0]).resolve().with_name(name)
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(name) or name
