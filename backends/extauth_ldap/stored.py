"""Logins by the stored values that the directory shows to the searching account: no bind, so SCRAM is possible (RFC 5803)."""

from extauth.model import Answer, CheckPassword, Decoy, FindKeys, Reason, Reject, Secret, SetPassword
from extauth.passwords.prepare import for_storing, is_blank
from extauth.passwords.stored import make
from extauth.templates import Template
from extauth.threads import Threads
from extauth.verifier import Verifier
from extauth_ldap.directory import SearchBackend, answer
from extauth_ldap.messages import Change, Read, Told
from extauth_ldap.process import LdapProcess


class StoredBackend(SearchBackend):
    """Reads a user's stored passwords, and compares. `form`, if any, is how new ones are written.

    `hashes` are those for which everybody has SCRAM keys.
    """

    def __init__(
        self,
        process: LdapProcess,
        patience: float,
        base: Template,
        verifier: Verifier,
        hashing: Threads,
        form: str | None,
        hashes: frozenset[str],
    ) -> None:
        super().__init__(process, patience, base)
        self._verifier = verifier
        self._hashing = hashing
        self._form = form
        self._answers |= {CheckPassword: self._compare, Decoy: self._verifier.decoy}
        self.hashes = hashes
        if hashes:
            self._answers[FindKeys] = self._keys
        if form is not None:
            self._answers[SetPassword] = self._write

    async def _compare(self, request: CheckPassword) -> Answer | None:
        told = await self.ask(request, Read(request.identity))
        if told.values is None:
            return answer(request.identity, told)
        return await self._verifier.check(request, told.values, told.attributes, _refusal(told))

    async def _keys(self, request: FindKeys) -> Answer | None:
        told = await self.ask(request, Read(request.identity))
        if told.values is None:
            return answer(request.identity, told)
        return self._verifier.keys(request, told.values, told.attributes, _refusal(told))

    async def _write(self, request: SetPassword) -> Answer | None:
        prepared = for_storing(request.password.reveal())
        if prepared is None or is_blank(prepared):
            return Reject(Reason.MALFORMED)
        form = self._form
        assert form is not None
        value = Secret(await self._hashing.run(lambda: make(form, prepared)))
        return answer(request.identity, await self.ask(request, Change(request.identity, value)))


def _refusal(told: Told) -> Reason | None:
    return None if told.reason is Reason.OK else told.reason
