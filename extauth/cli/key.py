"""`extauth key ...`: the keys that sign tokens. What a key is, is never shown."""

import os
from pathlib import Path
from typing import Any

import click

from extauth.admin import Command
from extauth.cli.client import perform_anyhow
from extauth.cli.common import Choices, fail, options, show, utc
from extauth.cli.token import domain_option, only_domain

MOST = 16384  # bytes


@click.group()
def key() -> None:
    """Manage the keys that sign tokens.

    By the running daemon, or on its store when none runs. What a key is, is never shown.
    """


@key.command(name="list")
@domain_option
@options
@click.pass_obj
def list_(choices: Choices, domain: str) -> None:
    """List the keys of the domain. Of each name the first signs, and all of them verify."""
    show(choices, perform_anyhow(choices, Command("key-list", domain=only_domain(choices, domain))), _lines)


@key.command()
@click.argument("name")
@domain_option
@options
@click.pass_obj
def rotate(choices: Choices, name: str, domain: str) -> None:
    """Make a new key NAME. It signs from now on; what older ones signed stays valid. NAME is for example token_secret."""
    _add(choices, Command("key-add", domain=only_domain(choices, domain), key=name))


@key.command(name="import")
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@domain_option
@options
@click.pass_obj
def import_(choices: Choices, name: str, file: Path, domain: str) -> None:
    """Take a key NAME from FILE. It is the bytes as they are, and signs from now on."""
    try:
        value = file.read_bytes()
    except OSError as error:
        fail(f"{file}: {error.strerror}", os.EX_NOINPUT)
    if not 0 < len(value) <= MOST:
        fail(f"{file}: a key has 1 to {MOST} bytes", os.EX_DATAERR)
    _add(choices, Command("key-add", domain=only_domain(choices, domain), key=name, value=value))


@key.command()
@click.argument("name")
@click.argument("key_id", metavar="ID")
@click.option("--force", is_flag=True, help="Even if tokens that it has signed are still valid; they become void.")
@domain_option
@options
@click.pass_obj
def retire(choices: Choices, name: str, key_id: str, domain: str, *, force: bool) -> None:
    """Forget the key ID of NAME. Refused while anything that it has signed may still be valid."""
    command = Command("key-retire", domain=only_domain(choices, domain), key=name, key_id=key_id, force=force)
    show(choices, perform_anyhow(choices, command), lambda done: f"{done['key']} {done['id']}: retired")


def _add(choices: Choices, command: Command) -> None:
    show(choices, perform_anyhow(choices, command), lambda done: f"{done['key']} {done['id']}: signs from now on")


def _lines(keys: list[dict[str, Any]]) -> str:
    lines: list[str] = []
    for place, one in enumerate(keys):
        signs = place == 0 or keys[place - 1]["name"] != one["name"]
        until = f"has signed what expires by {utc(one['latest'])}" if one["latest"] else "has signed nothing"
        origin = "imported" if one["imported"] else "made"
        lines.append(f"{one['name']} {one['id']} {'signs' if signs else 'verifies'}, {origin} {utc(one['made'])}, {until}")
    return "\n".join(lines)
