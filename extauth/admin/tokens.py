"""The verbs about tokens, sessions and the other credentials that are issued."""

from extauth import jid
from extauth.admin.command import Command, Reply, Verb, about_account, ask, refusal, reply
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
    Relogin,
    StartRelogin,
)
from extauth.model import Accept, Identity, Origin, Reason, Reject, Request, Secret, Unavailable, UserExists, Verdict
from extauth.service import Service
from extauth.soon import settle
from extauth.tokens.credential import FAST, ISSUED_KINDS
from extauth.tokens.grant import new_family
from extauth.tokens.kinds import ACCESS, KINDS


async def _token_issue(service: Service, command: Command, origin: Origin) -> Reply:
    """An access and a refresh token for `jid` (and `device`), or one of `kind` with `fields` and `lifetime`.

    A guest's token is made for a name that is nobody's, so that it is good for no account.
    """
    identity = jid.parse(command.jid)
    if command.kind and command.kind not in ISSUED_KINDS:
        return await _issue_one(service, identity, command, origin)
    login = _login(service)
    request = _credential(identity, command, origin)
    return await _give(service, request if command.kind else IssueTokens(identity, origin, login, command.device))


async def _issue_one(service: Service, identity: Identity, command: Command, origin: Origin) -> Reply:
    """A token of a kind that needs no account; if it is for one that there is, that may not be disabled."""
    request = IssueToken(identity, origin, command.kind, command.fields, command.lifetime)
    known: Verdict = await settle(service.ask(UserExists(identity, origin)))
    if known == Reject(Reason.NO_USER):
        return await ask(service, request)
    if KINDS.get(command.kind, ACCESS).restricts:
        return refusal(Reason.USER_EXISTS) if isinstance(known, Accept) else reply(known)
    return await _give(service, request)


async def _give(service: Service, request: Request) -> Reply:
    """Give somebody who has an account, and may log in, what is asked for. Says so if nobody can tell the latter."""
    identity, origin = request.identity, request.origin
    known: Verdict = await settle(service.ask(UserExists(identity, origin)))
    if not isinstance(known, Accept):
        return reply(known)
    standing = await service.standing(identity, origin)
    if isinstance(standing, Reject):
        return reply(service.refuse(request.operation, identity, origin, standing.reason))
    if isinstance(standing, Unavailable):
        return reply(standing)
    given = await ask(service, request)
    if standing is None and given["ok"]:
        given["result"] |= {"enabled": "unknown"}
    return given


def _login(service: Service) -> Login:
    """Return a login by order of the administrator."""
    return Login(service.milliseconds(), new_family(), primary=True)


def _credential(identity: Identity, command: Command, origin: Origin) -> Request:
    bound = command.mechanism.upper()
    label = command.device if command.kind == FAST else command.label
    return IssueCredential(identity, origin, command.kind, label, command.lifetime, command.one_time, bound)


async def _token_inspect(service: Service, command: Command, origin: Origin) -> Reply:
    """What `token` of `domain` is; it is not used up."""
    return await ask(service, InspectToken(Identity("", jid.domain_part(command.domain)), origin, Secret(command.token)))


async def _session_list(service: Service, command: Command, origin: Origin) -> Reply:
    """At most `limit` sessions of `jid`, or of `domain`, whose id comes after `after`."""
    return await ask(service, ListSessions(_somebody(command), origin, command.after, command.limit))


async def _session_end(service: Service, command: Command, origin: Origin) -> Reply:
    """End `session` or those of `device` or all of `jid`, or all of `domain`; or that of `token`, which is one of `domain`."""
    if not command.token:
        end = EndSessions(_somebody(command), origin, "administrator", command.session, command.device)
        return await ask(service, end)
    inspect = InspectToken(Identity("", jid.domain_part(command.domain)), origin, Secret(command.token))
    found: Verdict = await settle(service.ask(inspect))
    if not isinstance(found, Accept):
        return reply(found)
    return await ask(service, EndSessions(found.identity, origin, "administrator", found.attributes["family"]))


async def _session_start(service: Service, command: Command, origin: Origin) -> Reply:
    """A relogin key for `jid` (and `device`), bound to `cookie` if there is one."""
    identity = jid.parse(command.jid)
    return await _give(service, StartRelogin(identity, origin, _login(service), command.device, _cookie(command)))


async def _session_relogin(service: Service, command: Command, origin: Origin) -> Reply:
    """Whose the relogin key `token` of `domain` is, and the next one, if `cookie` is that of the session."""
    nobody = Identity("", jid.domain_part(command.domain))
    return await ask(service, Relogin(nobody, origin, Secret(command.token), _cookie(command)))


def _cookie(command: Command) -> Secret | None:
    return None if command.cookie is None else Secret(command.cookie)


async def _credential_end(service: Service, command: Command, origin: Origin) -> Reply:
    """Revoke the app passwords and temporary tokens of `jid` with the id or label `label`."""
    return await ask(service, EndCredential(jid.parse(command.jid), origin, command.label))


def _somebody(command: Command) -> Identity:
    return jid.parse(command.jid) if command.jid else Identity("", jid.domain_part(command.domain))


VERBS: dict[str, Verb] = {
    "token-issue": _token_issue,
    "token-inspect": _token_inspect,
    "credential-list": about_account(lambda i, o, _: ListCredentials(i, o)),
    "credential-end": _credential_end,
    "session-list": _session_list,
    "session-end": _session_end,
    "session-start": _session_start,
    "session-relogin": _session_relogin,
}
