"""A layer that remembers how a backend judged logins: to spare it, to outlive its outages, to not repeat refused passwords.

What is remembered is of this process alone and may be dropped at any time. An outage is never remembered, nor a refusal as
anything but a refusal of that very password.
"""

from collections.abc import Sequence
from typing import TypeAlias

import trio
from msgspec import Struct
from msgspec.structs import replace

from extauth.backend import Backend
from extauth.changes import CHANGES
from extauth.errors import BackendDown
from extauth.layers.memory import Memory, fingerprint
from extauth.layers.rules import CacheRules
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
)
from extauth.soon import Soon, settle, then

_Login: TypeAlias = CheckPassword | CheckCertificate

HEADWAY = 0.05  # share of the peer's patience that grace needs to be in time


class _Judged(Struct, frozen=True, gc=False):
    """What the backend said, and when (trio's clock)."""

    answer: Accept | Reject | None
    at: float


class Remembered:
    """What is remembered of one backend. It outlives reloads that leave the backend's table as it is."""

    def __init__(self, entries: int) -> None:
        self._memories: Sequence[Memory[_Judged]] = (Memory(entries), Memory(entries))
        self.accepted, self.refused = self._memories
        self.flushes = 0  # what was asked before a flush is not remembered after it

    def __len__(self) -> int:
        return sum(map(len, self._memories))

    def forget(self, identity: Identity) -> int:
        """Forget all about a user, and return how much that was."""
        self.flushes += 1
        return sum(memory.forget(identity) for memory in self._memories)

    def forget_changed(self, identity: Identity | None) -> int:
        """Forget all about a user, or with None about all users, and return how much that was."""
        return self.forget_matching("*") if identity is None else self.forget(identity)

    def forget_matching(self, mask: str) -> int:
        """Forget all about users by a shell pattern of bare JIDs, and return how much that was."""
        self.flushes += 1
        return sum(memory.forget_matching(mask) for memory in self._memories)


class Caching:
    """A backend with a memory."""

    def __init__(self, name: str, backend: Backend, rules: CacheRules, remembered: Remembered) -> None:
        self.handles = backend.handles
        self._name = name
        self._backend = backend
        self._rules = rules
        self._remembered = remembered

    def answer(self, request: Request) -> Soon[Answer | None]:
        """Answer a login from memory, if that is allowed; all else, by the backend."""
        if isinstance(request, CheckPassword):
            return self._check(request, request.password.reveal())
        if isinstance(request, CheckCertificate):
            return self._check(request, "")  # nobody's password
        if isinstance(request, CHANGES):
            return self._change(request)
        return self._backend.answer(request)

    def _check(self, request: _Login, password: str) -> Soon[Answer | None]:
        identity = request.identity
        print_ = fingerprint(identity.domain, identity.user, self._name, request.origin.mechanism, password)
        accepted = self._fresh(self._remembered.accepted, print_, self._rules.ttl)
        if accepted is not None and isinstance(accepted.answer, Accept):
            return replace(accepted.answer, via="cache")
        refused = self._fresh(self._remembered.refused, print_, self._rules.repeats)
        if refused is not None and isinstance(request, CheckPassword):
            return self._repeat(request, refused)
        return self._ask(request, print_)

    def _fresh(self, memory: Memory[_Judged], print_: bytes, seconds: float) -> _Judged | None:
        judged = memory.get(print_)
        return judged if judged is not None and trio.current_time() - judged.at < seconds else None

    def _repeat(self, request: CheckPassword, refused: _Judged) -> Soon[Answer | None]:
        if not isinstance(refused.answer, Reject):
            return None
        answer = replace(refused.answer, via="repeat")
        if Decoy not in self.handles:
            return answer
        # It takes as long as for somebody whom nobody knows.
        return then(self._backend.answer(Decoy(request.identity, request.origin, request.password)), lambda _: answer)

    async def _ask(self, request: _Login, print_: bytes) -> Answer | None:
        flushes = self._remembered.flushes
        known = self._fresh(self._remembered.accepted, print_, self._rules.grace)
        try:
            answer = await (settle(self._backend.answer(request)) if known is None else self._in_time(request))
        except BackendDown:
            if known is not None and isinstance(known.answer, Accept) and flushes == self._remembered.flushes:
                return replace(known.answer, via="grace")
            raise
        if flushes == self._remembered.flushes:
            self._remember(request, print_, answer)
        return answer

    async def _in_time(self, request: _Login) -> Answer | None:
        """Ask, and take the silence of a backend for an outage as long as there is time for grace."""
        with trio.move_on_at(trio.current_effective_deadline() - HEADWAY * request.origin.patience):
            return await settle(self._backend.answer(request))
        raise BackendDown("no answer in time")

    def _remember(self, request: _Login, print_: bytes, answer: Answer | None) -> None:
        identity, now = request.identity, trio.current_time()
        remembered = self._remembered
        match answer:
            case Accept(payload=None):
                remembered.refused.drop(print_)
                if max(self._rules.ttl, self._rules.grace) > 0:
                    remembered.accepted.put(print_, identity, _Judged(answer, now))
            case Reject(Reason.BAD_PASSWORD):
                remembered.accepted.drop(print_)
                self._remember_refusal(request, print_, _Judged(answer, now))
            case None:
                remembered.accepted.forget(identity)
                self._remember_refusal(request, print_, _Judged(None, now))
            case _:  # whoever may not log in may not do so by another password either
                remembered.accepted.forget(identity)

    def _remember_refusal(self, request: _Login, print_: bytes, judged: _Judged) -> None:
        if self._rules.repeats > 0 and isinstance(request, CheckPassword):
            self._remembered.refused.put(print_, request.identity, judged)

    async def _change(self, request: Request) -> Answer | None:
        try:
            return await settle(self._backend.answer(request))
        finally:
            self._remembered.forget(request.identity)
