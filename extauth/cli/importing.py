"""`extauth user import`: accounts of another server, with the passwords that they have."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from extauth.admin import Command, ImportedAccount
from extauth.cli.client import perform_all
from extauth.cli.common import Choices, fail, options, show
from extauth.imports.account import Found, Problem
from extauth.imports.source import NoSource, accounts
from extauth.model import ImportedKeys, Reason
from extauth.passwords import scram
from extauth.passwords.prepare import for_storing
from extauth.settings import Settings

T = TypeVar("T")

AT_ONCE = 20  # accounts in one command, whose line has a limit


@click.command(name="import")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--domain",
    metavar="DOMAIN",
    default="",
    help="Only accounts of this domain; needed where the source does not tell domains.",
)
@click.option("--replace", is_flag=True, help="Replace accounts that are here already.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@options
@click.pass_obj
def import_(choices: Choices, source: Path, domain: str, *, replace: bool, dry_run: bool) -> None:
    """Import accounts of ejabberd or Prosody.

    They keep their passwords.

    SOURCE is what `ejabberdctl dump` or `export2sql` wrote, an SQL dump or SQLite database of either server, or Prosody's data
    folder.
    """
    problems: list[Problem] = []
    settings = choices.settings()
    try:
        found = list(_sound(accounts(source, domain), problems))
    except NoSource as error:
        fail(str(error), os.EX_DATAERR)
    outcomes: dict[str, str] = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:

        def commands() -> Iterator[Command]:
            for start in range(0, len(found), AT_ONCE):
                made = threads.map(partial(_account, settings=settings, derive=not dry_run), found[start : start + AT_ONCE])
                yield Command("user-import", accounts=tuple(_sound(made, problems)), replace=replace, dry_run=dry_run)

        for result in perform_all(choices, commands()):
            outcomes.update(result)
    imported = [jid for jid, code in outcomes.items() if code == Reason.OK]
    existing = [jid for jid, code in outcomes.items() if code == Reason.USER_EXISTS]
    problems += [Problem(jid, f"refused ({code})") for jid, code in outcomes.items() if jid not in {*imported, *existing}]
    told = [str(problem) for problem in problems]
    show(choices, {"imported": imported, "existing": existing, "problems": told, "dry_run": dry_run}, _summary)
    if any(problem.lost for problem in problems):
        raise SystemExit(os.EX_DATAERR)


def _sound(items: Iterable[T | Problem], problems: list[Problem]) -> Iterator[T]:
    """Yield what is no problem, and keep the problems."""
    for item in items:
        if isinstance(item, Problem):
            problems.append(item)
        else:
            yield item


def _account(found: Found, *, settings: Settings, derive: bool) -> ImportedAccount | Problem:
    """Return the account as it is imported: with its keys, or with keys that are made of its password."""
    jid = str(found.identity)
    if found.password is None:
        keys = tuple(ImportedKeys(k.hash.value, k.salt, k.stored_key, k.server_key) for k in found.keys)
        return ImportedAccount(jid, found.keys[0].iterations, keys, found.enabled)
    prepared = for_storing(found.password.reveal())
    if prepared is None:
        return Problem(jid, "a password with characters that no password may have")
    iterations = _iterations(settings, found.identity.domain)
    fresh = tuple(_keys(family, prepared, iterations) for family in scram.Hash) if derive else ()
    return ImportedAccount(jid, iterations, fresh, found.enabled)


def _keys(family: scram.Hash, prepared: str, iterations: int) -> ImportedKeys:
    salt = scram.new_salt()
    made = scram.make(family, prepared, salt, iterations)
    return ImportedKeys(family.value, salt, made.stored_key, made.server_key)


def _iterations(settings: Settings, domain: str) -> int:
    """Return the count that the domain's own accounts have."""
    names = settings.domains[domain].backends if domain in settings.domains else ()
    counts = [getattr(settings.backends[name].config, "iterations", None) for name in names]
    return next((count for count in counts if isinstance(count, int)), scram.ADVISED_ITERATIONS)


def _summary(result: dict[str, Any]) -> str:
    lines = [*result["problems"], *(f"{jid}: there is such an account already: left alone" for jid in result["existing"])]
    would = "would be " if result["dry_run"] else ""
    count = len(result["imported"])
    lines.append(f"{count} account{'' if count == 1 else 's'} {would}imported, {len(result['existing'])} left alone")
    if count and not result["dry_run"]:
        lines.append("If a daemon runs, reload it now, so that it offers the mechanisms for which all accounts have keys.")
    return "\n".join(lines)
