"""Logins by the stored values that the directory shows to the searching account: no bind, so SCRAM is possible (RFC 5803)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from extauth.model import (
    NOTHING,
    Accept,
    Answer,
    CheckPassword,
    Decoy,
    FindKeys,
    Identity,
    Reason,
    Reject,
    Secret,
    SetPassword,
)
from extauth.passwords.prepare import for_storing, is_blank
from extauth.passwords.stored import make
from extauth.threads import Threads
from extauth.verifier import Verifier
from extauth_ldap import diagnosis
from extauth_ldap.directory import Membership, Search, SearchBackend
from extauth_ldap.passwords import by_extension, by_value
from extauth_ldap.tree import Found, Tree


class _Account(NamedTuple):
    values: Sequence[str]
    attributes: Mapping[str, str]
    refusal: Reason | None


class StoredBackend(SearchBackend):
    """Reads a user's stored passwords, and compares. `attribute` holds them; `form`, if any, is how new ones are written.

    `hashes` are those for which everybody has SCRAM keys.
    """

    def __init__(
        self,
        tree: Tree,
        threads: Threads,
        patience: float,
        search: Search,
        membership: Membership | None,
        verifier: Verifier,
        hashing: Threads,
        attribute: str,
        form: str | None,
        hashes: frozenset[str],
    ) -> None:
        super().__init__(tree, threads, patience, search, membership, by_extension)
        self._verifier = verifier
        self._hashing = hashing
        self._attribute = attribute
        self._form = form
        self._answers |= {CheckPassword: self._compare, Decoy: self._verifier.decoy}
        self.hashes = hashes
        if hashes:
            self._answers[FindKeys] = self._keys
        if form is not None:
            self._answers[SetPassword] = self._write

    async def _compare(self, request: CheckPassword) -> Answer | None:
        account = await self.run(request, lambda deadline: self._read(request.identity, deadline))
        return await self._verifier.check(request, *account) if isinstance(account, _Account) else account

    async def _keys(self, request: FindKeys) -> Answer | None:
        account = await self.run(request, lambda deadline: self._read(request.identity, deadline))
        return self._verifier.keys(request, *account) if isinstance(account, _Account) else account

    def _read(self, identity: Identity, deadline: float) -> _Account | Reject | None:
        user = self._search.find(self._tree, identity, deadline, self._attribute, *diagnosis.STATE)
        if not isinstance(user, Found):
            return user
        values = user.entry.attributes.get(self._attribute.lower(), ())
        member = self._member(identity, user, deadline)
        if isinstance(member, Accept):
            return _Account(values, member.attributes, diagnosis.of_entry(user.entry))
        return _Account(values, NOTHING, Reason.NOT_IN_GROUP)

    async def _write(self, request: SetPassword) -> Answer | None:
        prepared = for_storing(request.password.reveal())
        if prepared is None or is_blank(prepared):
            return Reject(Reason.MALFORMED)
        form = self._form
        assert form is not None
        value = Secret(await self._hashing.run(lambda: make(form, prepared)))
        change = by_value(self._attribute, value)
        return await self.run(request, lambda deadline: self.change_now(request.identity, change, deadline))
