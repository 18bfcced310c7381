"""`extauth cache ...`: what the running daemon remembers of logins."""

import click

from extauth.admin import Command
from extauth.cli.client import need
from extauth.cli.common import Choices, options, show


@click.group()
def cache() -> None:
    """Look after what the running daemon remembers of logins."""


@cache.command()
@click.argument("mask", default="*")
@options
@click.pass_obj
def flush(choices: Choices, mask: str) -> None:
    """Forget the logins of MASK: a JID, or a pattern such as '*@example.com'. Without it, of everybody."""
    result = need(choices.settings(), Command("cache-flush", mask=mask))
    show(choices, result, lambda result: f"{result['forgotten']} forgotten")
