"""What a verb is given, and what it returns."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from msgspec import Struct

from extauth import jid
from extauth.model import (
    Accept,
    Identity,
    ImportedKeys,
    Listing,
    Origin,
    Reason,
    Reject,
    Request,
    Secret,
    Tokens,
    Unavailable,
    Verdict,
)
from extauth.service import Service
from extauth.soon import settle

Reply = dict[str, Any]


class Command(Struct, frozen=True, forbid_unknown_fields=True):
    """One request. Which fields a verb uses is told by its function."""

    verb: str
    jid: str = ""
    password: str = ""
    domain: str = ""
    mask: str = ""
    after: str = ""
    limit: int = 1000
    seen: int = 0
    wait: float = 0.0
    kind: str = ""
    fields: dict[str, str] = {}
    lifetime: int = 0
    device: str = ""
    session: str = ""
    token: str = ""
    cookie: str | None = None
    key: str = ""
    key_id: str = ""
    value: bytes = b""
    force: bool = False
    label: str = ""
    one_time: bool = False
    mechanism: str = ""
    accounts: tuple["ImportedAccount", ...] = ()
    replace: bool = False
    dry_run: bool = False

    def __repr__(self) -> str:
        return f"Command({self.verb!r}, ...)"


class ImportedAccount(Struct, frozen=True, forbid_unknown_fields=True):
    """An account for the verb `user-import`."""

    jid: str
    iterations: int
    keys: tuple[ImportedKeys, ...]
    enabled: bool = True


Verb: TypeAlias = Callable[[Service, Command, Origin], Awaitable[Reply]]


def refusal(reason: Reason, detail: str = "") -> Reply:
    """Return why a verb is refused."""
    return {"ok": False, "reason": reason.value, "detail": detail}


def unavailable(detail: str, reason: Reason = Reason.BACKEND_DOWN) -> Reply:
    """Return why nobody can tell."""
    return {**refusal(reason, detail), "unavailable": True}


def result(value: object) -> Reply:
    """Return what a verb gives."""
    return {"ok": True, "result": value}


def _account(account: Accept) -> dict[str, str]:
    return {"jid": str(account.identity), **account.attributes}


async def ask(service: Service, request: Request) -> Reply:
    """Return what came of a request."""
    return reply(await settle(service.ask(request)))


def reply(verdict: Verdict) -> Reply:
    """Return a verdict in words."""
    match verdict:
        case Accept():
            return result(_account(verdict))
        case Listing(accounts):
            return result([_account(account) for account in accounts])
        case Tokens(identity, tokens, attributes):
            return result({"jid": str(identity), **attributes, **{kind: text.reveal() for kind, text in tokens.items()}})
        case Reject(reason):
            return refusal(reason)
        case Unavailable(reason, detail):
            return unavailable(detail, reason)
        case _:
            return refusal(Reason.NOT_SUPPORTED)


def about_account(make: Callable[[Identity, Origin, Secret], Request]) -> Verb:
    """Return a verb that asks one request about the account `jid`, with `password` where that is used."""

    async def verb(service: Service, command: Command, origin: Origin) -> Reply:
        return await ask(service, make(jid.parse(command.jid), origin, Secret(command.password)))

    return verb
