"""The verbs about accounts."""

import trio

from extauth import jid
from extauth.admin.command import Command, ImportedAccount, Reply, Verb, about_account, ask, reply, result, unavailable
from extauth.errors import BackendDown
from extauth.model import (
    Accept,
    CreateUser,
    FindAccount,
    Identity,
    ImportUser,
    ListUsers,
    Origin,
    PurgeUser,
    Reason,
    Reject,
    RemoveUser,
    SetEnabled,
    SetPassword,
    Unavailable,
    UserExists,
    Verdict,
)
from extauth.purge import REMAINS
from extauth.service import Service
from extauth.soon import settle


async def _user_list(service: Service, command: Command, origin: Origin) -> Reply:
    """At most `limit` accounts of `domain` whose name comes after `after`."""
    identity = Identity(command.after, jid.domain_part(command.domain))
    return await ask(service, ListUsers(identity, origin, command.limit))


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
    return result(outcomes)


async def _user_purge(service: Service, command: Command, origin: Origin) -> Reply:
    """Remove all that there is of `jid`: the account where that can be done, and everything in the store."""
    identity = jid.parse(command.jid)
    verdict: Verdict = await settle(service.ask(PurgeUser(identity, origin)))
    if not isinstance(verdict, Accept):
        return reply(verdict)
    try:
        deleted = await service.purge(identity)
    except BackendDown as down:
        return unavailable(str(down))
    return result({"jid": str(identity), **verdict.attributes, "deleted": deleted, "remains": REMAINS})


VERBS: dict[str, Verb] = {
    "user-add": about_account(CreateUser),
    "user-passwd": about_account(SetPassword),
    "user-enable": about_account(lambda i, o, _: SetEnabled(i, o, enabled=True)),
    "user-disable": about_account(lambda i, o, _: SetEnabled(i, o, enabled=False)),
    "user-remove": about_account(lambda i, o, _: RemoveUser(i, o)),
    "user-purge": _user_purge,
    "user-show": about_account(lambda i, o, _: FindAccount(i, o)),
    "user-list": _user_list,
    "user-import": _user_import,
}
