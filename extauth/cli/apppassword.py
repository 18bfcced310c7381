"""`extauth user app-password ...`: passwords for one device or application each."""

import click

from extauth.admin import Command
from extauth.cli.client import perform_anyhow
from extauth.cli.common import Choices, options, show, utc
from extauth.tokens.credential import APP


@click.group(name="app-password")
def app_password() -> None:
    """Manage passwords for one device or application each.

    By the running daemon, or on its store when none runs.
    """


@app_password.command()
@click.argument("jid")
@click.argument("name")
@options
@click.pass_obj
def add(choices: Choices, jid: str, name: str) -> None:
    """Make an app password of JID and call it NAME. It is shown this once."""
    made = perform_anyhow(choices, Command("token-issue", jid=jid, kind=APP, label=name))
    show(choices, made, lambda made: made[APP])


@app_password.command(name="list")
@click.argument("jid")
@options
@click.pass_obj
def list_(choices: Choices, jid: str) -> None:
    """List the app passwords and temporary tokens of JID."""
    found = perform_anyhow(choices, Command("credential-list", jid=jid))
    show(choices, found, lambda found: "\n".join(_line(one) for one in found))


@app_password.command()
@click.argument("jid")
@click.argument("name")
@options
@click.pass_obj
def revoke(choices: Choices, jid: str, name: str) -> None:
    """Revoke what JID has called NAME, or with this id."""
    ended = perform_anyhow(choices, Command("credential-end", jid=jid, label=name))
    show(choices, ended, lambda ended: f"{ended['jid']}: {ended['ended']} revoked")


def _line(one: dict[str, str]) -> str:
    used = f"used {utc(one['used'])}" if one["used"] != "0" else "never used"
    expires = f", expires {utc(one['expires'])}" if "expires" in one else ""
    return f"{one['id']} {one['kind']} {one['label'] or '-'} since {utc(one['made'])}, {used}{expires}"
