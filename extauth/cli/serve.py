"""`extauth serve` and `extauth check`."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import trio

from extauth.cli import demo as demos
from extauth.cli.advice import advice, strangers
from extauth.cli.common import Choices, exit_with_problems, fail, options, show
from extauth.daemon import open_without_listeners
from extauth.daemon import serve as run
from extauth.errors import BackendDown, ConfigError
from extauth.jid import InvalidName, identity, parse
from extauth.journal import set_up_logging
from extauth.layers.compose import SEEN
from extauth.model import Identity
from extauth.settings import Settings

PROBE = "extauth-check"  # a name that hardly anybody has, to see whether a backend answers


@click.command()
@click.option("--demo", is_flag=True, help="Serve a throwaway configuration with one account, and say how to try it.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@options
@click.pass_obj
def serve(choices: Choices, *, demo: bool, verbose: bool) -> None:
    """Run the daemon in the foreground, as systemd wants it."""
    os.umask(0o077)
    set_up_logging(verbose=verbose)
    if not demo:
        _run(choices.settings(), choices.read, _say_nothing)
        return
    with tempfile.TemporaryDirectory(prefix="extauth-demo-") as folder:
        demonstration = demos.prepare(Path(folder))
        choices.config = demonstration.config
        _run(choices.settings(), choices.read, lambda: click.echo(demonstration.text))


def _say_nothing() -> None:
    pass


def _run(settings: Settings, read_again: Callable[[], Settings], started: Callable[[], None]) -> None:
    try:
        trio.run(run, settings, read_again, started)
    except ConfigError as error:
        exit_with_problems(error)
    except BackendDown as error:
        fail(str(error), os.EX_TEMPFAIL)


@click.command()
@click.option(
    "--online",
    is_flag=True,
    help="Also open the state store and every backend, ask each for a name, and look for users and groups.",
)
@click.option("--user", metavar="NAME", help="With --online: also say which backends know NAME (user, or user@domain).")
@options
@click.pass_obj
def check(choices: Choices, user: str | None, *, online: bool) -> None:
    """Check the configuration without serving. Exits with 0 if all is good, 78 if it is not, 75 if a backend is away."""
    if user is not None and not online:
        raise click.UsageError("--user needs --online")
    settings = choices.settings()
    warnings = advice(settings)
    knowing: list[dict[str, Any]] = []
    unreachable: dict[str, str] = {}
    if online:
        warnings += strangers(settings)
        set_up_logging()  # standard output is for the result
        try:
            names = _identities(settings, user) if user is not None else []
            advised, knowing, unreachable = trio.run(_open_all, settings, names)
            warnings += advised
        except InvalidName as error:
            fail(f"{user}: {error}", os.EX_DATAERR)
        except ConfigError as error:
            exit_with_problems(error)
        except BackendDown as error:
            fail(str(error), os.EX_TEMPFAIL)
    result = {"file": str(choices.path), "usable": True, "warnings": warnings, "knowing": knowing, "unreachable": unreachable}
    lines = [*map(_line, knowing), *(f"warning: {warning}" for warning in warnings), f"{choices.path}: good"]
    show(choices, result, lambda _: "\n".join(lines))
    if unreachable:
        fail("; ".join(f"backend.{name} can't be reached: {problem}" for name, problem in unreachable.items()), os.EX_TEMPFAIL)


def _identities(settings: Settings, user: str) -> list[Identity]:
    """Return whom a name means: in the domain it gives, or in every domain."""
    return [parse(user)] if "@" in user else [identity(user, domain) for domain in settings.domains]


async def _open_all(settings: Settings, names: Sequence[Identity]) -> tuple[list[str], list[dict[str, Any]], dict[str, str]]:
    """Return warnings, which backends know the names, and which can't be reached and why."""
    async with open_without_listeners(settings) as service:
        warnings = service.advice()
        rows: list[dict[str, Any]] = []
        asked = [entry for domain in settings.domains for entry in await service.knowing(Identity(PROBE, domain))]
        unreachable = {entry.backend: entry.problem for entry in asked if entry.down}
        for name in names:
            known = await service.knowing(name)
            rows += [{"jid": str(name), **entry._asdict()} for entry in known]
            knowing = [entry.backend for entry in known if entry.knows and entry.backend != SEEN]
            if len(knowing) > 1:
                warnings.append(f"{name} is known to {' and '.join(knowing)}: {knowing[0]} decides")
        return warnings, rows, unreachable


def _line(row: dict[str, Any]) -> str:
    said = {True: "knows it", False: "does not know it"}.get(row["knows"], f"can't tell: {row['problem']}")
    return f"{row['jid']}: {row['backend']} {said}"
