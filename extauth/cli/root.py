"""The commands."""

import os
from importlib.metadata import version
from pathlib import Path

import click

from extauth.cli.cache import cache
from extauth.cli.common import Choices
from extauth.cli.key import key
from extauth.cli.login import login
from extauth.cli.serve import check, serve
from extauth.cli.status import audit, status
from extauth.cli.token import session, token
from extauth.cli.user import user

click.UsageError.exit_code = os.EX_USAGE  # click's own is 2


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("extauth"), prog_name="extauth")
@click.option(
    "-c", "--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="The configuration file (else $EXTAUTH_CONFIG, ./extauth.toml, /etc/extauth/extauth.toml).",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def cli(context: click.Context, config: Path | None, *, as_json: bool) -> None:
    """One daemon that gives any XMPP server every login.

    Exit codes are those of sysexits.h: 64 usage, 67 no such account, 69 no daemon, 75 try again later, 77 refused,
    78 configuration.
    """
    context.obj = Choices(config, as_json)


@cli.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def connect(arguments: tuple[str, ...]) -> None:
    """Relay questions of ejabberd or Prosody to the daemon."""
    raise AssertionError(arguments)  # extauth.cli.entry hands over before click is imported


for command in (serve, check, login, user, token, session, key, cache, status, audit):
    cli.add_command(command)
