"""`extauth user ...`: the accounts that the daemon itself keeps."""

from typing import Any

import click

from extauth.admin import Command
from extauth.cli.apppassword import app_password
from extauth.cli.client import perform_anyhow
from extauth.cli.common import Choices, options, password_option, read_password, show
from extauth.cli.importing import import_

PAGE = 1000


@click.group()
def user() -> None:
    """Manage accounts.

    By the running daemon, or on its store when none runs.
    """


@user.command()
@click.argument("jid")
@password_option
@options
@click.pass_obj
def add(choices: Choices, jid: str, *, from_stdin: bool) -> None:
    """Make the account JID."""
    password = read_password(from_stdin=from_stdin, confirm=True)
    _one(choices, Command("user-add", jid=jid, password=password), "made")


@user.command()
@click.argument("jid")
@password_option
@options
@click.pass_obj
def passwd(choices: Choices, jid: str, *, from_stdin: bool) -> None:
    """Set the password of JID."""
    password = read_password(from_stdin=from_stdin, confirm=True)
    _one(choices, Command("user-passwd", jid=jid, password=password), "password set")


@user.command()
@click.argument("jid")
@options
@click.pass_obj
def disable(choices: Choices, jid: str) -> None:
    """Refuse all logins of JID, keeping the account."""
    _one(choices, Command("user-disable", jid=jid), "disabled")


@user.command()
@click.argument("jid")
@options
@click.pass_obj
def enable(choices: Choices, jid: str) -> None:
    """Allow logins of JID again."""
    _one(choices, Command("user-enable", jid=jid), "enabled")


@user.command()
@click.argument("jid")
@click.confirmation_option("--yes", prompt="Remove this account and all of its credentials?")
@options
@click.pass_obj
def remove(choices: Choices, jid: str) -> None:
    """Remove the account JID and all of its credentials."""
    _one(choices, Command("user-remove", jid=jid), "removed")


@user.command()
@click.argument("jid")
@click.confirmation_option("--yes", prompt="Remove this account, and everything that is kept about it?")
@options
@click.pass_obj
def purge(choices: Choices, jid: str) -> None:
    """Remove everything that is kept about JID.

    That is the account, sessions, credentials, learned keys, the record of logins. A backend that can't remove accounts (a
    directory) keeps its own; which one does is said, and the rest goes all the same.
    """
    show(choices, perform_anyhow(choices, Command("user-purge", jid=jid)), _purged)


@user.command(name="show")
@click.argument("jid")
@options
@click.pass_obj
def show_(choices: Choices, jid: str) -> None:
    """Show what is known of JID."""
    show(choices, perform_anyhow(choices, Command("user-show", jid=jid)), _describe)


@user.command(name="list")
@click.argument("domain", required=False)
@options
@click.pass_obj
def list_(choices: Choices, domain: str | None) -> None:
    """List the accounts of DOMAIN, or of all domains."""
    accounts: list[dict[str, str]] = []
    for name in [domain] if domain else choices.settings().domains:
        after = ""
        while page := perform_anyhow(choices, Command("user-list", domain=name, after=after, limit=PAGE)):
            accounts += page
            after = page[-1]["jid"].rpartition("@")[0]
            if len(page) < PAGE:
                break
    show(choices, accounts, lambda accounts: "\n".join(_line(account) for account in accounts))


user.add_command(app_password)
user.add_command(import_)


def _one(choices: Choices, command: Command, done: str) -> None:
    show(choices, perform_anyhow(choices, command), lambda account: f"{account['jid']}: {done}")


def _purged(result: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {kind}" for kind, count in result["deleted"].items() if count)
    lines = [f"{result['jid']}: account removed from {result['removed'] or 'no backend'}; deleted: {counts or 'nothing else'}"]
    if result["kept"]:
        lines.append(f"  kept by {result['kept']}, where it has to be removed by other means; until then it may log in")
    return "\n".join([*lines, *(f"  remains: {what}" for what in result["remains"])])


def _line(account: dict[str, str]) -> str:
    return account["jid"] if account.get("enabled") != "no" else f"{account['jid']} (disabled)"


def _describe(account: dict[str, Any]) -> str:
    return "\n".join(f"{key}: {value}" for key, value in account.items())
