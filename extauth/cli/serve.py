"""`extauth serve` and `extauth check`."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import trio

from extauth.cli import demo as demos
from extauth.cli.advice import advice
from extauth.cli.common import Choices, exit_with_problems, fail, options, show
from extauth.daemon import open_without_listeners
from extauth.daemon import serve as run
from extauth.errors import BackendDown, ConfigError
from extauth.journal import set_up_logging
from extauth.settings import Settings


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
@click.option("--online", is_flag=True, help="Also open the state store and every backend.")
@options
@click.pass_obj
def check(choices: Choices, *, online: bool) -> None:
    """Check the configuration without serving. Exits with 0 if it can be used, 78 if not."""
    settings = choices.settings()
    warnings = advice(settings)
    if online:
        try:
            warnings += trio.run(_open_all, settings)
        except ConfigError as error:
            exit_with_problems(error)
        except BackendDown as error:
            fail(str(error), os.EX_TEMPFAIL)
    result = {"file": str(choices.path), "usable": True, "warnings": warnings}
    show(choices, result, lambda _: "\n".join([*(f"warning: {w}" for w in warnings), f"{choices.path}: good"]))


async def _open_all(settings: Settings) -> list[str]:
    async with open_without_listeners(settings) as service:
        return service.advice()
