"""What administrators ask of the daemon: the verbs behind the CLI's commands.

The `admin` listener performs them for other processes; where no daemon runs, the CLI performs those on accounts itself.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from msgspec import Struct, to_builtins

from extauth import jid
from extauth.errors import BackendDown
from extauth.issuing import (
    EndCredential,
    EndSessions,
    InspectToken,
    IssueCredential,
    IssueToken,
    IssueTokens,
    ListCredentials,
    ListSessions,
    Login,
)
from extauth.keystore import Keystore
from extauth.model import (
    Accept,
    CreateUser,
    FindAccount,
    Identity,
    ImportedKeys,
    ImportUser,
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
    Tokens,
    Unavailable,
    UserExists,
    Verdict,
)
from extauth.service import Service
from extauth.soon import settle
from extauth.tokens.credential import FAST, ISSUED_KINDS
from extauth.tokens.grant import new_family
from extauth.tokens.kinds import ACCESS, KEYS, KINDS

MAX_WAIT = 30.0  # seconds that `audit-tail` waits at most

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
    return _reply(await settle(service.ask(request)))


def _reply(verdict: Verdict) -> Reply:
    match verdict:
        case Accept():
            return _result(_account(verdict))
        case Listing(accounts):
            return _result([_account(account) for account in accounts])
        case Tokens(identity, tokens, attributes):
            return _result({"jid": str(identity), **attributes, **{kind: text.reveal() for kind, text in tokens.items()}})
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


async def _user_import(service: Service, command: Command, origin: Origin) -> Reply:
    """Make `accounts` of another server, or (`dry_run`) tell what would become of them: a reason code for each jid, or "ok".

    All at a time, so that they share the store's way to the disk.
    """
    outcomes: dict[str, str] = {}

    async def one(account: ImportedAccount) -> None:
        identity = jid.parse(account.jid)
        if command.dry_run:
            verdict = await settle(service.ask(UserExists(identity, origin)))
            there = isinstance(verdict, Accept) and not command.replace
            fine = isinstance(verdict, Accept) or verdict == Reject(Reason.NO_USER)
            verdict = Reject(Reason.USER_EXISTS) if there else Accept(identity) if fine else verdict
        else:
            request = ImportUser(identity, origin, account.iterations, account.keys, account.enabled, command.replace)
            verdict = await settle(service.ask(request))
        reason = verdict.reason if isinstance(verdict, Reject | Unavailable) else Reason.OK
        outcomes[account.jid] = reason.value

    async with trio.open_nursery() as nursery:
        for account in command.accounts:
            nursery.start_soon(one, account)
    return _result(outcomes)


# Tokens -----------------------------------------------------------------------------------------------------------------------


async def _token_issue(service: Service, command: Command, origin: Origin) -> Reply:
    """An access and a refresh token for `jid` (and `device`), or one of `kind` with `fields` and `lifetime`.

    A guest's token is made for a name that is nobody's, so that it is good for no account.
    """
    identity = jid.parse(command.jid)
    known: Verdict = await settle(service.ask(UserExists(identity, origin)))
    if command.kind in ISSUED_KINDS:
        if not isinstance(known, Accept):
            return _reply(known)
        return await _ask(service, _credential(identity, command, origin))
    if command.kind:
        if isinstance(known, Accept) and KINDS.get(command.kind, ACCESS).restricts:
            return _refusal(Reason.USER_EXISTS)
        return await _ask(service, IssueToken(identity, origin, command.kind, command.fields, command.lifetime))
    if not isinstance(known, Accept):
        return _reply(known)
    login = Login(service.milliseconds(), new_family(), primary=True)  # by order of the administrator
    return await _ask(service, IssueTokens(identity, origin, login, command.device))


def _credential(identity: Identity, command: Command, origin: Origin) -> Request:
    bound = command.mechanism.upper()
    label = command.device if command.kind == FAST else command.label
    return IssueCredential(identity, origin, command.kind, label, command.lifetime, command.one_time, bound)


async def _token_inspect(service: Service, command: Command, origin: Origin) -> Reply:
    """What `token` of `domain` is; it is not used up."""
    return await _ask(service, InspectToken(Identity("", jid.domain_part(command.domain)), origin, Secret(command.token)))


async def _session_list(service: Service, command: Command, origin: Origin) -> Reply:
    """At most `limit` sessions of `jid`, or of `domain`, whose id comes after `after`."""
    return await _ask(service, ListSessions(_somebody(command), origin, command.after, command.limit))


async def _session_end(service: Service, command: Command, origin: Origin) -> Reply:
    """End `session` or those of `device` or all of `jid`, or all of `domain`; or that of `token`, which is one of `domain`."""
    if not command.token:
        end = EndSessions(_somebody(command), origin, "administrator", command.session, command.device)
        return await _ask(service, end)
    inspect = InspectToken(Identity("", jid.domain_part(command.domain)), origin, Secret(command.token))
    found: Verdict = await settle(service.ask(inspect))
    if not isinstance(found, Accept):
        return _reply(found)
    return await _ask(service, EndSessions(found.identity, origin, "administrator", found.attributes["family"]))


async def _credential_end(service: Service, command: Command, origin: Origin) -> Reply:
    """Revoke the app passwords and temporary tokens of `jid` with the id or label `label`."""
    return await _ask(service, EndCredential(jid.parse(command.jid), origin, command.label))


def _somebody(command: Command) -> Identity:
    return jid.parse(command.jid) if command.jid else Identity("", jid.domain_part(command.domain))


# Keys -------------------------------------------------------------------------------------------------------------------------


def _about_keys(verb: Callable[[Keystore, str, Command], Awaitable[Reply]]) -> Callable[..., Awaitable[Reply]]:
    """Return a verb about the keys of `domain`. None of them ever tells what a key is."""

    async def checked(service: Service, command: Command, _origin: Origin) -> Reply:
        domain = jid.domain_part(command.domain)
        if domain not in service.settings.domains:
            return _refusal(Reason.UNKNOWN_DOMAIN)
        if command.key and command.key not in KEYS:
            return _refusal(Reason.BAD_NAME, f"no key {command.key!r}: there are {', '.join(KEYS)}")
        try:
            return await verb(service.keystore, domain, command)
        except BackendDown as down:
            return {**_refusal(Reason.BACKEND_DOWN, str(down)), "unavailable": True}

    return checked


async def _key_list(keys: Keystore, domain: str, _command: Command) -> Reply:
    return _result([key._asdict() for key in await keys.described(domain)])


async def _key_add(keys: Keystore, domain: str, command: Command) -> Reply:
    """A new key `key`: random, or `value`."""
    return _result({"key": command.key, "id": await keys.add(domain, command.key, command.value or None)})


async def _key_retire(keys: Keystore, domain: str, command: Command) -> Reply:
    """Forget the key `key` with `key_id`; `force`: whatever it has signed."""
    if await keys.retire(domain, command.key, command.key_id, force=command.force):
        return _result({"key": command.key, "id": command.key_id})
    return _refusal(Reason.NOT_ALLOWED, "there is no such key, or tokens that it has signed may still be valid")


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
            "remembered": {name: len(entry.remembered) for name, entry in service.layered.items()},
            "learned": await _learned(service),
            "domains": {name: list(domain.backends) for name, domain in settings.domains.items()},
            "decisions": [{**key._asdict(), "count": count} for key, count in metrics.outcomes()],
        }
    )


async def _learned(service: Service) -> list[Reply]:
    """How many of the users who have logged in lately have SCRAM keys, by backend and domain."""
    found: list[Reply] = []
    for name, entry in service.layered.items():
        if entry.learning is not None:
            try:
                shares = await entry.learning.share()
            except BackendDown:
                continue  # the rest of the status is worth having
            found += [{"backend": name, "domain": domain, **share._asdict()} for domain, share in sorted(shares.items())]
    return found


async def _cache_flush(service: Service, command: Command, _origin: Origin) -> Reply:
    """Forget what caches remember of the users whose JID matches the shell pattern `mask`."""
    mask = command.mask.casefold()
    return _result({"forgotten": sum(entry.remembered.forget_matching(mask) for entry in service.layered.values())})


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
    "user-import": _user_import,
    "token-issue": _token_issue,
    "token-inspect": _token_inspect,
    "credential-list": _about_account(lambda i, o, _: ListCredentials(i, o)),
    "credential-end": _credential_end,
    "session-list": _session_list,
    "session-end": _session_end,
    "key-list": _about_keys(_key_list),
    "key-add": _about_keys(_key_add),
    "key-retire": _about_keys(_key_retire),
    "cache-flush": _cache_flush,
    "status": _status,
    "audit-tail": _audit_tail,
}
