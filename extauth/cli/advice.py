"""What `extauth check` warns of: settings that are valid and yet will hurt."""

import grp
import shutil
from itertools import takewhile
from pathlib import Path

from extauth.passwords.scram import ADVISED_ITERATIONS
from extauth.settings import Settings
from extauth.sockets import parse_address, user_ids

HIDDEN = {
    "/tmp": "ejabberd's unit has PrivateTmp: it sees a /tmp of its own",
    "/var/tmp": "ejabberd's unit has PrivateTmp: it sees a /var/tmp of its own",
    "/home": "ejabberd's unit has ProtectHome: it can't see it",
    "/root": "ejabberd's unit has ProtectHome: it can't see it",
}


def advice(settings: Settings) -> list[str]:
    """Return the warnings, each with its place."""
    warnings: list[str] = []
    for listener in settings.listeners:
        kind, where, _ = parse_address(listener.config.address)
        if kind == "unix" and listener.protocol != "admin" and (why := _hidden(where)):
            warnings.append(f"listener.{listener.name}.address: {where}: {why}")
        if kind == "tcp":
            warnings.append(
                f"listener.{listener.name}.address: every user of this machine can connect to {listener.config.address}"
            )
    for name, table in settings.backends.items():
        iterations = getattr(table.config, "iterations", None)
        if isinstance(iterations, int) and iterations < ADVISED_ITERATIONS:
            warnings.append(f"backend.{name}.iterations: {iterations} is less than XEP-0438 advises ({ADVISED_ITERATIONS})")
        if table.layers.learn_scram == "offer":
            warnings.append(
                f'backend.{name}.learn_scram: "offer": users without keys are locked out of clients that do not fall back '
                f"from SCRAM; `extauth status` tells how many have some"
            )
    for name, domain in settings.domains.items():
        before = list(takewhile(lambda backend: settings.backends[backend].type != "tokens", domain.backends))
        if before and len(before) < len(domain.backends):
            warnings.append(
                f'domain."{name}".backends: tokens go to {", ".join(before)} as passwords; name the tokens backend first'
            )
    connector = shutil.which("extauth-connect")
    if connector is not None and (why := _hidden(str(Path(connector).resolve()))):
        warnings.append(f"{connector}: {why}; install extauth under /usr or /opt before ejabberd starts it")
    return warnings


def strangers(settings: Settings) -> list[str]:
    """Return warnings of users and groups who are to connect and whom this machine does not know."""
    warnings: list[str] = []
    for listener in settings.listeners:
        place, config = f"listener.{listener.name}", listener.config
        try:
            user_ids(config.allow_users)
        except ValueError as error:
            warnings += [f"{place}.{problem} on this machine" for problem in error.args]
        try:
            if config.group is not None:
                grp.getgrnam(config.group)
        except KeyError:
            warnings.append(f"{place}.group: there is no group {config.group!r} on this machine")
    return warnings


def _hidden(path: str) -> str:
    return next((why for folder, why in HIDDEN.items() if Path(path).is_relative_to(folder)), "")
