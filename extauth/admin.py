"""What administrators ask of the daemon: the verbs behind the CLI's commands.

The `admin` listener performs them for other processes; where no daemon runs, the CLI performs those on accounts itself.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct, to_builtins

from extauth import jid
from extauth.model import (
    Accept,
    CreateUser,
    FindAccount,
    Identity,
    Listing,
    ListUsers,
    Origin,
    Reason,
    Reject,
    RemoveUser,
    Request,
    Secret,
    SetEnabled,
    SetPassword,
    Unavailable,
    Verdict,
)
from extauth.service import Service
from extauth.soon import settle

MAX_WAIT = 30.0  # seconds that `audit-tail` waits at most

Reply = dict[str, Any]


class Command(Struct, frozen=True, forbid_unknown_fields=True):
    """One request. Which fields a verb uses is told by its function."""

    verb: str
    jid: str = ""
    password: str = ""
    domain: str = ""
    after: str = ""
    limit: int = 1000
    seen: int = 0
    wait: float = 0.0

    def __repr__(self) -> str:
        return f"Command({self.verb!r}, ...)"


async def perform(service: Service, command: Command, origin: Origin) -> Reply:
    """Perform a command. Returns {"ok": true, "result": ...} or {"ok": false, "reason": code, "detail": text}."""
    verb = _VERBS.get(command.verb)
    if verb is None:
        return _refusal(Reason.MALFORMED, f"no verb {command.verb!r}")
    try:
        return await verb(service, command, origin)
    except jid.InvalidName as error:
        return _refusal(Reason.BAD_NAME, str(error))


def _refusal(reason: Reason, detail: str = "") -> Reply:
    return {"ok": False, "reason": reason.value, "detail": detail}


def _result(result: object) -> Reply:
    return {"ok": True, "result": result}


def _account(account: Accept) -> dict[str, str]:
    return {"jid": str(account.identity), **account.attributes}


async def _ask(service: Service, request: Request) -> Reply:
    verdict: Verdict = await settle(service.ask(request))
    match verdict:
        case Accept():
            return _result(_account(verdict))
        case Listing(accounts):
            return _result([_account(account) for account in accounts])
        case Reject(reason):
            return _refusal(reason)
        case Unavailable(reason, detail):
            return {**_refusal(reason, detail), "unavailable": True}
        case _:
            return _refusal(Reason.NOT_SUPPORTED)


def _about_account(make: Callable[[Identity, Origin, Secret], Request]) -> Callable[..., Awaitable[Reply]]:
    """Return a verb that asks one request about the account `jid`, with `password` where that is used."""

    async def verb(service: Service, command: Command, origin: Origin) -> Reply:
        return await _ask(service, make(jid.parse(command.jid), origin, Secret(command.password)))

    return verb


async def _user_list(service: Service, command: Command, origin: Origin) -> Reply:
    """At most `limit` accounts of `domain` whose name comes after `after`."""
    identity = Identity(command.after, jid.domain_part(command.domain))
    return await _ask(service, ListUsers(identity, origin, command.limit))


async def _status(service: Service, _command: Command, _origin: Origin) -> Reply:
    """What the daemon is doing."""
    settings, metrics = service.settings, service.metrics
    protocols = {listener.name: listener for listener in settings.listeners}
    return _result(
        {
            "uptime": round(service.uptime, 1),
            "reloads": metrics.reloads,
            "failed_reloads": metrics.failed_reloads,
            "audit_lines_lost": service.journal.lost,
            "listeners": {
                name: {
                    "protocol": protocols[name].protocol,
                    "address": protocols[name].config.address,
                    "connections": server.connections,
                }
                for name, server in service.servers.items()
            },
            "backends": {name: table.type for name, table in settings.backends.items()},
            "domains": {name: list(domain.backends) for name, domain in settings.domains.items()},
            "decisions": [{**key._asdict(), "count": count} for key, count in metrics.outcomes()],
        }
    )


async def _audit_tail(service: Service, command: Command, _origin: Origin) -> Reply:
    """The decisions after number `seen`; waits up to `wait` seconds for one. A negative `seen`: the last that many."""
    journal = service.journal
    seen = command.seen if command.seen >= 0 else max(journal.decided + command.seen, 0)
    last, decisions = await journal.tail(seen, min(command.wait, MAX_WAIT))
    return _result({"seen": last, "decisions": to_builtins(decisions)})


_VERBS: dict[str, Callable[[Service, Command, Origin], Awaitable[Reply]]] = {
    "user-add": _about_account(CreateUser),
    "user-passwd": _about_account(SetPassword),
    "user-enable": _about_account(lambda i, o, _: SetEnabled(i, o, enabled=True)),
    "user-disable": _about_account(lambda i, o, _: SetEnabled(i, o, enabled=False)),
    "user-remove": _about_account(lambda i, o, _: RemoveUser(i, o)),
    "user-show": _about_account(lambda i, o, _: FindAccount(i, o)),
    "user-list": _user_list,
    "status": _status,
    "audit-tail": _audit_tail,
}
