"""A layer between the canonical name of a user and what a backend calls the user.

Each name has one name at the backend, and each name there is one user's: otherwise two people would share an account.
"""

from msgspec.structs import replace

from extauth.backend import Backend
from extauth.jid import InvalidName, local_part
from extauth.layers.rules import NameRules
from extauth.model import Accept, Answer, HashedTokens, Identity, Keys, ListUsers, Request
from extauth.soon import Soon, then
from extauth.templates import Template

_MARK = "\0"  # no name holds it


class Naming:
    """A backend that is asked about users under other names. It lists no users: their order is another there."""

    def __init__(self, backend: Backend, rules: NameRules) -> None:
        self.handles = backend.handles - {ListUsers}
        self._backend = backend
        self._rules = rules
        self._template = Template(rules.template)

    def answer(self, request: Request) -> Soon[Answer | None]:
        """Ask the backend under its own name of the user; users who can have none there are unknown."""
        identity = request.identity
        named = self._there(identity)
        if named is None:
            return None
        return then(self._backend.answer(replace(request, identity=named)), lambda answer: self._back(answer, identity))

    def _there(self, identity: Identity) -> Identity | None:
        if not identity.user:  # the credential names the user
            return identity
        prefix, suffix = self._rules.strip_prefix, self._rules.strip_suffix
        user = identity.user
        if not (user.startswith(prefix) and user.endswith(suffix) and len(user) > len(prefix) + len(suffix)):
            return None
        bare = Identity(user[len(prefix) : len(user) - len(suffix)], identity.domain)
        return Identity(self._template.fill(bare), identity.domain)

    def _back(self, answer: Answer | None, asked: Identity) -> Answer | None:
        """Return the answer about the user's canonical name: that of whom the backend means, also if it is somebody else."""
        if not isinstance(answer, Accept | Keys | HashedTokens):
            return answer
        before, _, after = self._template.fill(Identity(_MARK, asked.domain)).partition(_MARK)
        there = answer.identity.user
        if not (there.startswith(before) and there.endswith(after) and len(there) > len(before) + len(after)):
            return None
        user = there[len(before) : len(there) - len(after)]
        try:
            canonical = local_part(f"{self._rules.strip_prefix}{user}{self._rules.strip_suffix}")
        except InvalidName:
            return None
        return replace(answer, identity=Identity(canonical, answer.identity.domain))
