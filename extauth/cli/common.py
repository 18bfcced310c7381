"""What the commands share: which configuration, how results are shown, which exit code."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from extauth.configuration import load
from extauth.errors import ConfigError
from extauth.model import Reason
from extauth.plugins import InstalledKinds
from extauth.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_FILES = (Path("extauth.toml"), Path("/etc/extauth/extauth.toml"))
EXITS = {Reason.NO_USER: os.EX_NOUSER, Reason.USER_EXISTS: os.EX_CANTCREAT, Reason.BAD_NAME: os.EX_DATAERR}


@dataclass
class Choices:
    """What was chosen before and after the verb."""

    config: Path | None = None
    as_json: bool = False
    _settings: Settings | None = field(default=None, repr=False)

    @property
    def path(self) -> Path:
        """The configuration file: `-c`, else $EXTAUTH_CONFIG, else the first default that is there."""
        if self.config is not None:
            return self.config
        from_environment = os.environ.get("EXTAUTH_CONFIG")
        if from_environment:
            return Path(from_environment)
        return next((path for path in DEFAULT_FILES if os.path.exists(path)), DEFAULT_FILES[-1])  # never raises

    def read(self) -> Settings:
        """Read the configuration anew.

        Raises:
            ConfigError: all of its problems.
        """
        return load(self.path, InstalledKinds())

    def settings(self) -> Settings:
        """Return the configuration, or tell its problems and exit with 78."""
        if self._settings is None:
            try:
                self._settings = self.read()
            except ConfigError as error:
                exit_with_problems(error)
        return self._settings


def exit_with_problems(error: ConfigError) -> NoReturn:
    """Tell everything that is wrong with the configuration, and exit with 78 (EX_CONFIG)."""
    for problem in error.problems:
        click.echo(f"extauth: {problem}", err=True)
    sys.exit(os.EX_CONFIG)


def fail(text: str, code: int) -> NoReturn:
    """Tell why, and exit with a code of sysexits.h."""
    click.echo(f"extauth: {text}", err=True)
    sys.exit(code)


def show(choices: Choices, result: Any, text: Callable[[Any], str]) -> None:  # noqa: ANN401 - JSON
    """Print a result: as JSON, or as `text` makes it."""
    told = json.dumps(result, indent=2) if choices.as_json else text(result)
    if told:
        click.echo(told)


def utc(seconds: float | str) -> str:
    """Return a Unix time as people read it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(float(seconds)))


def options(command: F) -> F:
    """Accept `-c FILE` and `--json` after the verb, too."""
    command = click.option(
        "-c", "--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
        help="The configuration file.", callback=_choose("config"), expose_value=False,
    )(command)  # fmt: skip
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        default=None,
        help="Print JSON.",
        callback=_choose("as_json"),
        expose_value=False,
    )(command)


def _choose(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def choose(context: click.Context, _parameter: click.Parameter, value: Any) -> None:  # noqa: ANN401 - click's
        if value is not None:
            setattr(context.ensure_object(Choices), name, value)

    return choose


def read_password(*, from_stdin: bool, confirm: bool = False) -> str:
    """Read a password from standard input or a prompt; never from the arguments, which everybody can see."""
    if from_stdin:
        try:
            return sys.stdin.buffer.readline().removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError:
            fail("the password is not UTF-8", os.EX_DATAERR)
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True)
    return password


def read_secret(what: str) -> str:
    """Read a secret from a prompt on a terminal, else from the first line of standard input."""
    if sys.stdin.isatty():
        secret: str = click.prompt(what, hide_input=True, err=True)
        return secret
    return read_password(from_stdin=True)


password_option = click.option(
    "--password-stdin",
    "from_stdin",
    is_flag=True,
    help="Read the password from the first line of standard input.",
)
