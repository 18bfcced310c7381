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
from extauth.templates import Template
from extauth.threads import Threads
from extauth_ldap import diagnosis
from extauth_ldap.answers import Entry
from extauth_ldap.groups import Groups
from extauth_ldap.passwords import for_binding, for_setting
from extauth_ldap.templates import dn_value
from extauth_ldap.tree import Act, Found, Tree

T = TypeVar("T")

PATIENCE_SHARE = 0.8  # of the peer's patience: below the authority's own share, so that the reason of an outage is told


@dataclass(frozen=True)
class Search:
    """How the entry of a user is found, and which of its attributes must have the user's name."""

    base: Template
    filter: Template
    name_attribute: str

    def find(self, tree: Tree, identity: Identity, deadline: float, *attributes: str) -> Found | Reject | None:
        """Return the user's one entry, with these attributes; None if there is none of exactly that name.

        Raises:
            BackendDown: it can't be told.
        """
        base, filter_ = self.base.fill(identity), self.filter.fill(identity)
        found = tree.search(base, filter_, [self.name_attribute, *attributes], deadline)
        if len(found) > 1:
            return Reject(Reason.AMBIGUOUS)
        if not found or not self._names(found[0].entry, identity):
            return None
        return found[0]

    def _names(self, entry: Entry, identity: Identity) -> bool:
        """Tell whether the directory means the same name: its own comparison may ignore accents, blanks and more."""
        return any(is_name(value, identity) for value in entry.attributes.get(self.name_attribute.lower(), ()))


@dataclass(frozen=True)
class Membership:
    """Which group a user must be in, and which role each group gives; names as `groups.normal` makes them."""

    groups: Groups
    required: str | None
    roles: Mapping[str, str]

    def judge(self, user: Found, deadline: float) -> Mapping[str, str] | None:
        """Return the user's attributes, None if the required group is missing."""
        groups = self.groups.of(user, deadline)
        if self.required is not None and self.required not in groups:
            return None
        roles = sorted({role for group, role in self.roles.items() if group in groups})
        return {"role": ",".join(roles)} if roles else NOTHING


class Directory:
    """What both ways to log in share."""

    def __init__(self, tree: Tree, threads: Threads, patience: float) -> None:
        self._tree = tree
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

    async def run(self, request: Request, call: Callable[[float], T]) -> T:
        """Make a call in a thread, with the deadline that it has to keep.

        Raises:
            BackendDown: no thread came free in time, and what the call raises.
        """
        deadline = time.monotonic() + min(self._patience, PATIENCE_SHARE * request.origin.patience)
        return await self._threads.run(lambda: call(deadline))


class DirectBackend(Directory):
    """Binds under a name that is made of the user's, and asks nothing else."""

    def __init__(self, tree: Tree, threads: Threads, patience: float, name: Template) -> None:
        super().__init__(tree, threads, patience)
        self._name = name
        self._answers = {CheckPassword: self._check}

    async def _check(self, request: CheckPassword) -> Answer | None:
        password = for_binding(request.password.reveal())
        if password is None:
            return Reject(Reason.MALFORMED)
        try:
            name = self._name.fill(request.identity)
        except ValueError:
            return None
        outcome = await self.run(request, lambda deadline: self._tree.bind(name, password, deadline))
        reason = diagnosis.of_bind(outcome)
        if reason is Reason.NO_USER:
            return None
        return Accept(request.identity) if reason is Reason.OK else Reject(reason)


class SearchBackend(Directory):
    """Searches the user's entry, and binds under its name."""

    def __init__(
        self,
        tree: Tree,
        threads: Threads,
        patience: float,
        search: Search,
        membership: Membership | None,
        setter: Callable[[Secret], Act],
    ) -> None:
        super().__init__(tree, threads, patience)
        self._search = search
        self._membership = membership
        self._setter = setter
        self._answers = {
            CheckPassword: self._check,
            CheckCertificate: self._admit,
            UserExists: self._exists,
            SetPassword: self._change,
            Decoy: self._waste,
        }

    async def _check(self, request: CheckPassword) -> Answer | None:
        password = for_binding(request.password.reveal())
        if password is None:
            return Reject(Reason.MALFORMED)
        return await self.run(request, lambda deadline: self._check_now(request.identity, password, deadline))

    def _check_now(self, identity: Identity, password: Secret, deadline: float) -> Answer | None:
        user = self._search.find(self._tree, identity, deadline)
        if not isinstance(user, Found):
            return user
        reason = diagnosis.of_bind(self._tree.bind(user.entry.dn, password, deadline, home=user.home))
        return self._member(identity, user, deadline) if reason is Reason.OK else Reject(reason)

    async def _admit(self, request: CheckCertificate) -> Answer | None:
        return await self.run(request, lambda deadline: self._admit_now(request.identity, deadline))

    def _admit_now(self, identity: Identity, deadline: float) -> Answer | None:
        """Answer for somebody who proves by other means to be the user."""
        user = self._search.find(self._tree, identity, deadline, *diagnosis.STATE)
        refusal = diagnosis.of_entry(user.entry) if isinstance(user, Found) else None
        return self._belongs(identity, user, deadline) if refusal is None else Reject(refusal)

    def _belongs(self, identity: Identity, user: Found | Reject | None, deadline: float) -> Answer | None:
        return self._member(identity, user, deadline) if isinstance(user, Found) else user

    def _member(self, identity: Identity, user: Found, deadline: float) -> Answer:
        attributes = self._membership.judge(user, deadline) if self._membership else NOTHING
        return Reject(Reason.NOT_IN_GROUP) if attributes is None else Accept(identity, attributes)

    async def _exists(self, request: UserExists) -> Answer | None:
        identity = request.identity
        answer = await self.run(
            request, lambda deadline: self._belongs(identity, self._search.find(self._tree, identity, deadline), deadline)
        )
        return None if answer == Reject(Reason.NOT_IN_GROUP) else answer

    async def _change(self, request: SetPassword) -> Answer | None:
        password = for_setting(request.password.reveal())
        if password is None:
            return Reject(Reason.MALFORMED)
        change = self._setter(password)
        return await self.run(request, lambda deadline: self.change_now(request.identity, change, deadline))

    def change_now(self, identity: Identity, change: Act, deadline: float) -> Answer | None:
        """Change a user's entry. Blocks."""
        user = self._search.find(self._tree, identity, deadline)
        if not isinstance(user, Found):
            return user
        reason = diagnosis.of_change(self._tree.change(user, change, deadline))
        return Accept(identity) if reason is Reason.OK else Reject(reason)

    async def _waste(self, request: Decoy) -> Answer | None:
        """Bind as nobody: a round trip more, as for a user that exists."""
        base = self._search.base.fill(request.identity)
        name = f"cn={dn_value(secrets.token_hex(8))},{base}"
        await self.run(request, lambda deadline: self._tree.bind(name, Secret(secrets.token_hex(8)), deadline))
        return Reject(Reason.NO_USER)
