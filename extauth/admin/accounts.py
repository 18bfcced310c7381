"""The verbs about accounts."""

import trio

from extauth import jid
from extauth.admin.command import Command, ImportedAccount, Reply, Verb, about_account, ask, result
from extauth.model import (
    Accept,
    CreateUser,
    FindAccount,
    Identity,
    ImportUser,
    ListUsers,
    Origin,
    Reason,
    Reject,
    RemoveUser,
    SetEnabled,
    SetPassword,
    Unavailable,
    UserExists,
)
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


VERBS: dict[str, Verb] = {
    "user-add": about_account(CreateUser),
    "user-passwd": about_account(SetPassword),
    "user-enable": about_account(lambda i, o, _: SetEnabled(i, o, enabled=True)),
    "user-disable": about_account(lambda i, o, _: SetEnabled(i, o, enabled=False)),
    "user-remove": about_account(lambda i, o, _: RemoveUser(i, o)),
    "user-show": about_account(lambda i, o, _: FindAccount(i, o)),
    "user-list": _user_list,
    "user-import": _user_import,
}
