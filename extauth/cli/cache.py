"""`extauth cache ...`: what daemons remember of logins."""

import click

from extauth.admin import Command
from extauth.cli.client import perform_anyhow
from extauth.cli.common import Choices, options, show


@click.group()
def cache() -> None:
    """Flush what daemons remember of logins."""


@cache.command()
@click.argument("mask", default="*")
@options
@click.pass_obj
def flush(choices: Choices, mask: str) -> None:
    """Forget the logins of MASK, or of everybody.

    MASK is a JID, or a pattern such as '*@example.com'.

    All daemons that share the state store forget them; also when none runs here.
    """
    show(
        choices, perform_anyhow(choices, Command("cache-flush", mask=mask)), lambda done: f"{done['forgotten']} forgotten here"
    )
