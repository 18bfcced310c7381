"""`extauth status` and `extauth audit tail`: what the daemon does and decides."""

import os
from typing import Any

import click
import msgspec

from extauth.admin import Command
from extauth.cli.client import NoDaemon, connect, need, result_of
from extauth.cli.common import Choices, fail, options, show, utc
from extauth.journal import Decision, audit_line

WAIT = 20.0


@click.command()
@options
@click.pass_obj
def status(choices: Choices) -> None:
    """Show what the running daemon is doing."""
    show(choices, need(choices.settings(), Command("status")), _describe)


@click.group()
def audit() -> None:
    """Look at the decisions of the running daemon."""


@audit.command()
@click.option("-n", "--lines", metavar="N", default=10, show_default=True, help="Begin with the last so many.")
@click.option("-f", "--follow", is_flag=True, help="Go on until interrupted.")
@options
@click.pass_obj
def tail(choices: Choices, lines: int, *, follow: bool) -> None:
    """Print the latest decisions (the daemon remembers a thousand)."""
    try:
        with connect(choices.settings()) as client:
            command = Command("audit-tail", seen=-lines) if lines > 0 else Command("audit-tail", seen=1 << 62)
            while True:
                found = result_of(client.perform(command))
                for decision in found["decisions"]:
                    _print(choices, decision)
                if not follow:
                    break
                command = Command("audit-tail", seen=found["seen"], wait=WAIT)
    except NoDaemon as error:
        fail(str(error), os.EX_UNAVAILABLE)
    except KeyboardInterrupt:
        pass


def _print(choices: Choices, decision: dict[str, Any]) -> None:
    if choices.as_json:
        click.echo(msgspec.json.encode(decision))
    else:
        click.echo(f"{utc(decision['time'])} {audit_line(msgspec.convert(decision, Decision))}")


def _describe(status: dict[str, Any]) -> str:
    lines = [f"up {status['uptime']:.0f} s, {status['reloads']} reloads ({status['failed_reloads']} failed)"]
    if status["audit_lines_lost"]:
        lines.append(f"{status['audit_lines_lost']} audit lines were lost: nobody reads the daemon's standard error")
    lines += [
        f"listener {name}: {listener['protocol']} at {listener['address']}, {listener['connections']} connections"
        for name, listener in status["listeners"].items()
    ]
    lines += [f"password threads: {_load(status['password_threads'])}"]
    if status["state_problem"]:
        lines.append(f"state DOWN: {status['state_problem']}")
    for name, type_ in status["backends"].items():
        lines += [f"backend {name}: {line}" for line in _condition(type_, status["conditions"][name])]
    lines += [f"backend {name}: remembers {count} logins" for name, count in status["remembered"].items() if count]
    lines += [
        f"backend {learned['backend']}: {learned['with_keys']} of {learned['active']} active users of {learned['domain']} "
        f"have SCRAM keys"
        for learned in status["learned"]
    ]
    lines += [f"domain {name}: asks {', '.join(backends)}" for name, backends in status["domains"].items()]
    lines += [f"{d['count']:>8}  {d['listener']} {d['operation']} {d['result']} {d['reason']}" for d in status["decisions"]]
    return "\n".join(lines)


def _condition(type_: str, condition: dict[str, Any]) -> list[str]:
    """Return what is known of a backend, in words."""
    last, since = condition["last_failure"], utc(condition["since"])
    if condition["state"] == "down":
        lines = [f"{type_}, DOWN since {since} ({condition['failures']} requests not answered): {last['problem']}"]
    elif condition["state"] == "up":
        lines = [f"{type_}, answers since {since}"]
        if last:
            lines += [f"did not answer {condition['failures']} requests, the last at {utc(last['at'])}: {last['problem']}"]
    else:
        lines = [f"{type_}, not asked yet"]
    servers = condition["servers_down"].items()
    lines += [f"{url} is DOWN since {utc(server['since'])}: {server['problem']}" for url, server in servers]
    return [*lines, f"threads: {_load(condition['threads'])}"] if condition["threads"] else lines


def _load(load: dict[str, int]) -> str:
    return f"{load['busy']} of {load['threads']} busy, {load['waiting']} requests wait"
