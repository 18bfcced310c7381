"""What the `ldap` backend answers. All that blocks runs in threads, each request with one deadline for all its steps."""

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from extauth.jid import is_name
from extauth.model import (
    NOTHING,
    Accept,
    Answer,
    CheckCertificate,
    CheckPassword,
    Decoy,
    Identity,
    Reason,
    Reject,
    Request,
    Secret,
    SetPassword,
    UserExists,
)
from extauth.passwords.prepare import for_checking, for_storing, is_blank
from extauth.threads import Threads
from extauth_ldap import diagnosis
from extauth_ldap.groups import Groups
from extauth_ldap.servers import Purpose, Servers
from extauth_ldap.templates import Template, dn_value
from extauth_ldap.wire import Connection, Entry, Outcome

T = TypeVar("T")

PATIENCE_SHARE = 0.8  # of the peer's patience: below the authority's own share, so that the reason of an outage is told


@dataclass(frozen=True)
class Search:
    """How the entry of a user is found, and which of its attributes must have the user's name."""

    base: Template
    filter: Template
    name_attribute: str

    def find(self, servers: Servers, identity: Identity, deadline: float) -> Entry | Reject | None:
        """Return the user's one entry; None if there is none of exactly that name.

        Raises:
            BackendDown: it can't be told.
        """
        base, filter_ = self.base.fill(identity), self.filter.fill(identity)

        def search(connection: Connection, until: float) -> list[Entry]:
            return connection.search(base, filter_, [self.name_attribute], until)

        entries = servers.run(Purpose.SEARCH, search, deadline)
        if len(entries) > 1:
            return Reject(Reason.AMBIGUOUS)
        if not entries or not self._names(entries[0], identity):
            return None
        return entries[0]

    def _names(self, entry: Entry, identity: Identity) -> bool:
        """Tell whether the directory means the same name: its own comparison may ignore accents, blanks and more."""
        return any(is_name(value, identity) for value in entry.attributes.get(self.name_attribute.lower(), ()))


@dataclass(frozen=True)
class Membership:
    """Which group a user must be in, and which role each group gives; names as `groups.normal` makes them."""

    groups: Groups
    required: str | None
    roles: Mapping[str, str]

    def judge(self, entry: Entry, deadline: float) -> Mapping[str, str] | None:
        """Return the user's attributes, None if the required group is missing."""
        groups = self.groups.of(entry, deadline)
        if self.required is not None and self.required not in groups:
            return None
        roles = sorted({role for group, role in self.roles.items() if group in groups})
        return {"role": ",".join(roles)} if roles else NOTHING


class _Backend:
    """What both ways to log in share."""

    def __init__(self, servers: Servers, threads: Threads, patience: float) -> None:
        self._servers = servers
        self._threads = threads
        self._patience = patience
        self._answers: dict[type[Request], Callable[..., Awaitable[Answer | None]]] = {}

    @property
    def handles(self) -> frozenset[type[Request]]:
        """The kinds of request that it answers."""
        return frozenset(self._answers)

    def answer(self, request: Request) -> Awaitable[Answer | None]:
        """Answer a request of one of the kinds in `handles`."""
        return self._answers[type(request)](request)

    async def _run(self, request: Request, call: Callable[[float], T]) -> T:
        deadline = time.monotonic() + min(self._patience, PATIENCE_SHARE * request.origin.patience)
        return await self._threads.run(lambda: call(deadline))

    def _try(self, name: str, password: Secret, deadline: float) -> Reason:
        """Bind with the password in each form that it may be stored in."""
        for form in for_checking(password.reveal()):
            if is_blank(form):
                continue
            outcome = self._bind(name, Secret(form), deadline)
            reason = diagnosis.of_bind(outcome)
            if reason is not Reason.BAD_PASSWORD:
                return reason
        return Reason.BAD_PASSWORD

    def _bind(self, name: str, password: Secret, deadline: float) -> Outcome:
        def bind(connection: Connection, until: float) -> Outcome:
            return connection.bind(name, password, until)

        return self._servers.run(Purpose.BIND, bind, deadline)


class DirectBackend(_Backend):
    """Binds under a name that is made of the user's, and asks nothing else."""

    def __init__(self, servers: Servers, threads: Threads, patience: float, name: Template) -> None:
        super().__init__(servers, threads, patience)
        self._name = name
        self._answers = {CheckPassword: self._check}

    async def _check(self, request: CheckPassword) -> Answer | None:
        if is_blank(request.password.reveal()):
            return Reject(Reason.MALFORMED)
        try:
            name = self._name.fill(request.identity)
        except ValueError:
            return None
        reason = await self._run(request, lambda deadline: self._try(name, request.password, deadline))
        if reason is Reason.NO_USER:
            return None
        return Accept(request.identity) if reason is Reason.OK else Reject(reason)


class SearchBackend(_Backend):
    """Searches the user's entry, and binds under its name."""

    def __init__(
        self,
        servers: Servers,
        threads: Threads,
        patience: float,
        search: Search,
        membership: Membership | None,
        *,
        active_directory: bool,
    ) -> None:
        super().__init__(servers, threads, patience)
        self._search = search
        self._membership = membership
        self._active_directory = active_directory
        self._answers = {
            CheckPassword: self._check,
            CheckCertificate: self._admit,
            UserExists: self._exists,
            SetPassword: self._change,
            Decoy: self._waste,
        }

    async def _check(self, request: CheckPassword) -> Answer | None:
        if is_blank(request.password.reveal()):
            return Reject(Reason.MALFORMED)
        return await self._run(request, lambda deadline: self._check_now(request.identity, request.password, deadline))

    def _check_now(self, identity: Identity, password: Secret, deadline: float) -> Answer | None:
        entry = self._search.find(self._servers, identity, deadline)
        if not isinstance(entry, Entry):
            return entry
        reason = self._try(entry.dn, password, deadline)
        return self._member(identity, entry, deadline) if reason is Reason.OK else Reject(reason)

    async def _admit(self, request: CheckCertificate) -> Answer | None:
        return await self._run(request, lambda deadline: self._admit_now(request.identity, deadline))

    def _admit_now(self, identity: Identity, deadline: float) -> Answer | None:
        entry = self._search.find(self._servers, identity, deadline)
        return self._member(identity, entry, deadline) if isinstance(entry, Entry) else entry

    def _member(self, identity: Identity, entry: Entry, deadline: float) -> Answer:
        attributes = self._membership.judge(entry, deadline) if self._membership else NOTHING
        return Reject(Reason.NOT_IN_GROUP) if attributes is None else Accept(identity, attributes)

    async def _exists(self, request: UserExists) -> Answer | None:
        answer = await self._run(request, lambda deadline: self._admit_now(request.identity, deadline))
        return None if answer == Reject(Reason.NOT_IN_GROUP) else answer

    async def _change(self, request: SetPassword) -> Answer | None:
        prepared = for_storing(request.password.reveal())
        if prepared is None or is_blank(prepared):
            return Reject(Reason.MALFORMED)
        return await self._run(request, lambda deadline: self._change_now(request.identity, Secret(prepared), deadline))

    def _change_now(self, identity: Identity, password: Secret, deadline: float) -> Answer | None:
        entry = self._search.find(self._servers, identity, deadline)
        if not isinstance(entry, Entry):
            return entry

        def change(connection: Connection, until: float) -> Outcome:
            return connection.set_password(entry.dn, password, until, active_directory=self._active_directory)

        reason = diagnosis.of_change(self._servers.run(Purpose.SEARCH, change, deadline))
        return Accept(identity) if reason is Reason.OK else Reject(reason)

    async def _waste(self, request: Decoy) -> Answer | None:
        """Bind as nobody: a round trip more, as for a user that exists."""
        base = self._search.base.fill(request.identity)
        name = f"cn={dn_value(secrets.token_hex(8))},{base}"
        await self._run(request, lambda deadline: self._bind(name, Secret(secrets.token_hex(8)), deadline))
        return Reject(Reason.NO_USER)
