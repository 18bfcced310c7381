"""Changes of accounts: each is made by the one backend whose it is, and by none if that can't be told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from extauth.backend import Backend
from extauth.errors import BackendDown
from extauth.issuing import ABOUT_TOKENS, EndSessions
from extauth.model import (
    Accept,
    Answer,
    CheckCertificate,
    CreateUser,
    Identity,
    ImportUser,
    Listing,
    ListUsers,
    Origin,
    PurgeUser,
    Reason,
    Reject,
    RemoveUser,
    Request,
    SetEnabled,
    SetPassword,
    Unavailable,
    UserExists,
    Verdict,
)
from extauth.soon import settle

NO_USER = Reject(Reason.NO_USER)
CHANGES = (SetPassword, CreateUser, ImportUser, RemoveUser, PurgeUser, SetEnabled)  # of accounts


Note = Callable[[str, str], None]
"""Takes a backend's name and what it said, for the audit line."""


@dataclass(frozen=True)
class Member:
    """A backend as a member of a chain: under which name, and whether its refusal lets the next one speak."""

    name: str
    backend: Backend
    on_reject: Literal["stop", "next"] = "stop"


class Knowledge(NamedTuple):
    """Whether a backend knows a name; None if it can't tell, for the reason in `problem`; `down`: it can't be reached."""

    backend: str
    knows: bool | None
    problem: str = ""
    down: bool = False


def is_about(found: Identity, asked: Identity) -> bool:
    """Tell whether a backend's answer is about the user asked for, or where a credential names the user, of the domain."""
    if not asked.user:
        return found.user != "" and found.domain == asked.domain
    return found is asked or found == asked


async def standing(members: Sequence[Member], identity: Identity, origin: Origin) -> Verdict | None:
    """Ask whether a user may log in, of whom nothing is to be proven. None: who knows the user can't tell.

    As with a login, the first who knows the user decides.
    """
    verdict: Reject = NO_USER
    for member in members:
        kind = next((kind for kind in (CheckCertificate, UserExists) if kind in member.backend.handles), None)
        if kind is None:
            continue
        try:
            answer = await settle(member.backend.answer(kind(identity, origin)))
        except BackendDown as down:
            return Unavailable(Reason.BACKEND_DOWN, f"{member.name}: {down}")
        if isinstance(answer, Accept) and is_about(answer.identity, identity):
            return answer if kind is CheckCertificate else None
        if isinstance(answer, Reject):
            if member.on_reject == "stop":
                return answer
            verdict = answer
    return verdict


class _Asker:
    """Asks backends and remembers which was the last."""

    def __init__(self) -> None:
        self.name = ""

    async def __call__(self, member: Member, request: Request) -> Answer | None:
        self.name = member.name
        return await settle(member.backend.answer(request))


async def knowing(members: Sequence[Member], identity: Identity, origin: Origin) -> list[Knowledge]:
    """Ask each backend whether it knows a name."""
    found: list[Knowledge] = []
    for member in members:
        if UserExists not in member.backend.handles:
            found.append(Knowledge(member.name, None, "it can't be asked"))
            continue
        try:
            answer = await settle(member.backend.answer(UserExists(identity, origin)))
        except BackendDown as down:
            found.append(Knowledge(member.name, None, str(down), down=True))
        else:
            found.append(Knowledge(member.name, isinstance(answer, Accept) and is_about(answer.identity, identity)))
    return found


async def change(members: Sequence[Member], request: Request, note: Note) -> Verdict:
    """Make a change, or list the accounts. An outage of any backend that has to be asked ends it."""
    ask = _Asker()
    try:
        if isinstance(request, ListUsers):
            return await _list(members, request, note, ask)
        if isinstance(request, ABOUT_TOKENS):
            return await _at_token_keeper(members, request, note, ask)
        if isinstance(request, PurgeUser):
            return await _purge(members, request, note, ask)
        return await _change(members, request, note, ask)
    except BackendDown as down:
        # Who knows the name can't be told: a change could go to the wrong place.
        note(ask.name, "down")
        return Unavailable(Reason.BACKEND_DOWN, f"{ask.name}: {down}")


async def _change(members: Sequence[Member], request: Request, note: Note, ask: _Asker) -> Verdict:
    owner: Member | None = None
    for member in members:
        if UserExists in member.backend.handles:
            known = await ask(member, UserExists(request.identity, request.origin))
            if isinstance(known, Accept) and is_about(known.identity, request.identity):
                owner = member
                break
            note(member.name, "unknown")
    if isinstance(request, CreateUser | ImportUser):
        if owner is not None and not (isinstance(request, ImportUser) and request.replace):
            note(owner.name, "exists")
            return Reject(Reason.USER_EXISTS)
        owner = owner or next((member for member in members if type(request) in member.backend.handles), None)
    elif owner is None:
        return NO_USER
    if owner is None or type(request) not in owner.backend.handles:
        return Reject(Reason.NOT_SUPPORTED)
    answer = await ask(owner, request)
    note(owner.name, answer.reason if isinstance(answer, Reject) else "done" if answer else "unknown")
    cause = revocation(request)
    if cause and isinstance(answer, Accept):
        # Before the change is acknowledged: who asked for it may take it that nobody is logged in by the old credentials.
        await _at_token_keeper(members, EndSessions(request.identity, request.origin, cause), note, ask)
    return answer or NO_USER


async def _purge(members: Sequence[Member], request: PurgeUser, note: Note, ask: _Asker) -> Verdict:
    """Have every member remove the account, and find out which still know it."""
    identity, origin = request.identity, request.origin
    names: dict[str, list[str]] = {"removed": [], "kept": []}
    for member in members:
        removed = await ask(member, RemoveUser(identity, origin)) if RemoveUser in member.backend.handles else None
        if isinstance(removed, Accept):
            names["removed"].append(member.name)
            note(member.name, "removed")
        elif UserExists in member.backend.handles and isinstance(await ask(member, UserExists(identity, origin)), Accept):
            names["kept"].append(member.name)
            note(member.name, "kept")
        else:
            note(member.name, "unknown")
    await _at_token_keeper(members, EndSessions(identity, origin, revocation(request)), note, ask)
    return Accept(identity, {what: ", ".join(where) for what, where in names.items()})


def revocation(request: Request) -> str:
    """Return why a change ends the sessions of its account; "": it does not."""
    if isinstance(request, EndSessions):
        return request.cause
    if isinstance(request, SetPassword | ImportUser):
        return "password"
    if isinstance(request, SetEnabled) and not request.enabled:
        return "disabled"
    return "removed" if isinstance(request, RemoveUser) else "purged" if isinstance(request, PurgeUser) else ""


async def _at_token_keeper(members: Sequence[Member], request: Request, note: Note, ask: _Asker) -> Verdict:
    """Have the first that keeps tokens answer; all of them, if tokens are to be revoked."""
    verdict: Verdict = Reject(Reason.NOT_SUPPORTED)
    for member in members:
        if type(request) in member.backend.handles:
            answer = await ask(member, request)
            note(member.name, answer.reason if isinstance(answer, Reject) else request.operation)
            verdict = answer or verdict
            if not isinstance(request, EndSessions):
                break
    return verdict


async def _list(members: Sequence[Member], request: ListUsers, note: Note, ask: _Asker) -> Verdict:
    found: dict[Identity, Accept] = {}
    for member in members:
        if ListUsers in member.backend.handles:
            answer = await ask(member, request)
            if isinstance(answer, Listing):
                note(member.name, "listing")
                for account in answer.accounts:
                    found.setdefault(account.identity, account)
    in_order = sorted(found.values(), key=lambda account: account.identity.user)
    return Listing(tuple(in_order[: request.limit]))
