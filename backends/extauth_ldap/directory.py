"""What the `ldap` backend answers: requests become questions to the LDAP process, and what it tells becomes answers."""

import secrets
from collections.abc import Awaitable, Callable

from extauth.backend import Insight
from extauth.model import (
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
from extauth_ldap.messages import Admit, Bind, Change, Check, Find, Question, Told
from extauth_ldap.passwords import for_binding, for_setting
from extauth_ldap.process import LdapProcess
from extauth_ldap.templates import dn_value

PATIENCE_SHARE = 0.8  # of the peer's patience: below the authority's own share, so that the reason of an outage is told


class Directory:
    """What both ways to log in share."""

    def __init__(self, process: LdapProcess, patience: float) -> None:
        self._process = process
        self._patience = patience
        self._answers: dict[type[Request], Callable[..., Awaitable[Answer | None]]] = {}

    @property
    def handles(self) -> frozenset[type[Request]]:
        """The kinds of request that it answers."""
        return frozenset(self._answers)

    def insight(self) -> Insight:
        """Tell which servers are down, and how many threads are busy."""
        return self._process.insight

    def answer(self, request: Request) -> Awaitable[Answer | None]:
        """Answer a request of one of the kinds in `handles`."""
        return self._answers[type(request)](request)

    async def ask(self, request: Request, question: Question) -> Told:
        """Ask the directory, within the time that the request has.

        Raises:
            BackendDown: it can't be told.
        """
        return await self._process.ask(question, min(self._patience, PATIENCE_SHARE * request.origin.patience))


class DirectBackend(Directory):
    """Binds under a name that is made of the user's, and asks nothing else."""

    def __init__(self, process: LdapProcess, patience: float, name: Template) -> None:
        super().__init__(process, patience)
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
        told = await self.ask(request, Bind(name, password))
        return None if told.reason is Reason.NO_USER else answer(request.identity, told)


class SearchBackend(Directory):
    """Searches the user's entry, and binds under its name. `base` is where nobody is bound, as a decoy."""

    def __init__(self, process: LdapProcess, patience: float, base: Template) -> None:
        super().__init__(process, patience)
        self._base = base
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
        return answer(request.identity, await self.ask(request, Check(request.identity, password)))

    async def _admit(self, request: CheckCertificate) -> Answer | None:
        return answer(request.identity, await self.ask(request, Admit(request.identity)))

    async def _exists(self, request: UserExists) -> Answer | None:
        found = answer(request.identity, await self.ask(request, Find(request.identity)))
        return None if found == Reject(Reason.NOT_IN_GROUP) else found

    async def _change(self, request: SetPassword) -> Answer | None:
        password = for_setting(request.password.reveal())
        if password is None:
            return Reject(Reason.MALFORMED)
        return answer(request.identity, await self.ask(request, Change(request.identity, password)))

    async def _waste(self, request: Decoy) -> Answer | None:
        """Bind as nobody: a round trip more, as for a user that exists."""
        name = f"cn={dn_value(secrets.token_hex(8))},{self._base.fill(request.identity)}"
        await self.ask(request, Bind(name, Secret(secrets.token_hex(8))))
        return Reject(Reason.NO_USER)


def answer(identity: Identity, told: Told) -> Answer | None:
    """Return what the directory told of a user as an answer."""
    if told.reason is None:
        return None
    return Accept(identity, told.attributes) if told.reason is Reason.OK else Reject(told.reason)
