"""`extauth login`: a login on the real path, as the XMPP server makes it, and what the daemon says of it."""

import os
import socket
import sys
import time
from typing import Any

import click

from extauth import jid as jids
from extauth.admin import Command
from extauth.cli.attempt import ASKING, SASL, Login, Unable
from extauth.cli.client import Client, NoDaemon, connect, result_of
from extauth.cli.common import Choices, fail, options, password_option, read_password, show
from extauth.settings import Listener, Settings
from extauth.sockets import parse_address

WAIT = 5.0


@click.command()
@click.argument("jid")
@click.option("--listener", "name", metavar="NAME", help="The listener to log in through (else the first that can).")
@click.option("--mechanism", metavar="NAME", help="PLAIN, SCRAM-SHA-256 ...: through a listener that takes SASL.")
@password_option
@options
@click.pass_obj
def login(choices: Choices, jid: str, name: str | None, mechanism: str | None, *, from_stdin: bool) -> None:
    """Log JID in as its XMPP server would, and tell why.

    Through a listener of the running daemon. Tells who decided what, in how many milliseconds, and why.

    Exits with 0 if the login was accepted, 77 if it was refused, 75 if nobody could tell.
    """
    try:
        identity = jids.parse(jid)
    except jids.InvalidName as error:
        fail(f"{jid}: {error}", os.EX_DATAERR)
    settings = choices.settings()
    listener = _choose(settings, name, mechanism)
    try:
        with connect(settings) as admin:
            password = read_password(from_stdin=from_stdin)
            attempt = Login(identity.user, identity.domain, password, (mechanism or "PLAIN").upper())
            seen = result_of(admin.perform(Command("audit-tail", seen=1 << 62)))["seen"]
            reply, me = _ask(listener, attempt)
            decision = _decision(admin, seen, listener.name, me)
    except NoDaemon as error:
        fail(str(error), os.EX_UNAVAILABLE)
    except Unable as error:
        fail(str(error), os.EX_DATAERR)
    result = {"listener": listener.name, "protocol": listener.protocol, "reply": reply, **decision}
    show(choices, result, _describe)
    sys.exit({"accept": 0, "reject": os.EX_NOPERM}.get(decision.get("result", ""), os.EX_TEMPFAIL))


def _choose(settings: Settings, name: str | None, mechanism: str | None) -> Listener:
    able = [listener for listener in settings.listeners if listener.protocol in ((SASL,) if mechanism else ASKING)]
    chosen = next((listener for listener in able if name in (None, listener.name)), None)
    if chosen is None:
        names = ", ".join(listener.name for listener in able) or "none"
        what = "mechanisms" if mechanism else "password logins"
        fail(f"no listener {name or ''} that takes {what} (there are: {names})", os.EX_USAGE)
    return chosen


def _ask(listener: Listener, attempt: Login) -> tuple[str, str]:
    """Ask as a server would. Returns what was answered, and how our connection is called in the audit line."""
    kind, where, port = parse_address(listener.config.address)
    if kind == "systemd":
        fail(f"the address of listener {listener.name} is known to systemd only", os.EX_UNAVAILABLE)
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET6 if ":" in where else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(listener.config.deadline + 1)
        try:
            sock.connect(where if kind == "unix" else (where, port))
            me = f"uid:{os.getuid()}/pid:{os.getpid()}"
            if kind == "tcp":
                host, own_port = sock.getsockname()[:2]
                me = f"{host}:{own_port}"
            with sock.makefile("rwb") as wire:
                reply = ASKING[listener.protocol](wire, attempt)
        except OSError as error:
            fail(f"{listener.config.address}: {error.strerror or error}", os.EX_UNAVAILABLE)
    return reply, me


def _decision(admin: Client, seen: int, listener: str, me: str) -> dict[str, Any]:
    """Find the decision on our own login."""
    until = time.monotonic() + WAIT
    while time.monotonic() < until:
        found = result_of(admin.perform(Command("audit-tail", seen=seen, wait=1.0)))
        seen = found["seen"]
        for decision in found["decisions"]:
            if decision["listener"] == listener and decision["peer"] == me:
                return dict(decision)
    return {}


def _describe(result: dict[str, Any]) -> str:
    if "result" not in result:
        return f"{result['listener']}: {result['reply']}; the daemon tells of no decision"
    lines = [
        f"{result['user']}: {result['result']} ({result['reason']})",
        f"  through   listener {result['listener']} ({result['protocol']}), which replied {result['reply']}",
        f"  decided   by {result['backend'] or 'no backend'} in {result['ms']:.1f} ms",
    ]
    lines += [f"  asked     {step.replace(':', ' said ', 1)}" for step in result["trail"].split(",") if step]
    if result["detail"]:
        lines.append(f"  detail    {result['detail']}")
    if result["result"] != "accept":
        lines.append(f"  see       docs/reasons.md#{result['reason']}")
    return "\n".join(lines)
