"""Who decides: the chain of backends of one domain, and what surrounds every decision.

Deadline, throttle, audit and counters sit in `ask`, once, for answers that come at once and for those that take time. `ask`
never raises: an outage, a time-out and a bug are all `Unavailable`, and never a yes.
"""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Literal

import structlog
import trio
from msgspec import Struct

from extauth.changes import CHANGES, NO_USER, Member, change, is_about, revocation
from extauth.errors import BackendDown
from extauth.issuing import ISSUED
from extauth.journal import Journal, kind_of, shown
from extauth.metrics import Metrics
from extauth.model import (
    VERDICTS,
    Accept,
    Anonymous,
    Answer,
    CheckCertificate,
    CheckPassword,
    CheckToken,
    Decoy,
    FindAccount,
    FindHashedTokens,
    FindKeys,
    HashedTokens,
    Identity,
    Keys,
    Origin,
    Proof,
    Reason,
    Reject,
    Request,
    Tokens,
    Unavailable,
    UserExists,
    Verdict,
)
from extauth.passwords.prepare import is_blank
from extauth.soon import Soon, settle
from extauth.throttle import Throttle

_log = structlog.get_logger("authority")

PATIENCE_SHARE = 0.9  # of the peer's patience is ours: an outage must still be told in time

# Questions go along the chain; what is not among them changes something at one backend.
QUESTIONS = (CheckPassword, FindKeys, FindHashedTokens, CheckToken, CheckCertificate, UserExists, FindAccount)

_PERSONAL = (Accept, Keys, HashedTokens)  # says whom it is about
_FOUND = (Keys, HashedTokens)  # neither yes nor no
_NAMING = (Accept, Tokens)  # says who it is
_PROVEN = Reason.OK  # Python 3.11 takes 0.7 us to look at a member of an enumeration
_FINDING = frozenset[type[Request]]((FindKeys, FindHashedTokens))


class _Link:
    """A member prepared for one kind of request."""

    __slots__ = ("answer", "name", "outage_ends", "reject_ends", "takes_tokens")

    def __init__(self, member: Member, *, reject_ends: bool, outage_ends: bool) -> None:
        self.name = member.name
        self.answer = member.backend.answer
        self.takes_tokens = CheckToken in member.backend.handles
        self.reject_ends = reject_ends
        self.outage_ends = outage_ends


class _Walk(Struct, gc=False):
    """One request on its way along the chain. `trail` tells afterwards what each backend said.

    `token`: what came is a token by its look, so that only those who take tokens may see it.
    """

    started: float  # monotonic seconds
    links: Iterator[_Link]
    backend: str = ""
    trail: str = ""
    otherwise: Reject | Unavailable = NO_USER
    token: bool = False

    def note(self, name: str, word: str) -> None:
        self.backend = name
        self.trail = f"{self.trail},{name}:{word}" if self.trail else f"{name}:{word}"


class Authority:
    """Answers for one domain."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        on_outage: Literal["stop", "next"],
        anonymous: bool = False,
        journal: Journal,
        metrics: Metrics,
        throttle: Throttle | None,
        revoked: Callable[[Identity, str], None],
        changed: Callable[[Identity], Awaitable[None]],
    ) -> None:
        self._members = members
        self._anonymous = anonymous
        self._journal = journal
        self._metrics = metrics
        self._throttle = throttle
        self._revoked = revoked
        self._changed = changed
        self.busy = 0  # requests that wait for a backend
        self._chains: dict[type[Request], tuple[_Link, ...]] = {}
        for kind in QUESTIONS:
            # Whether anybody knows a name is asked of all; who decides a login is the first who knows it.
            for_all = kind is UserExists
            self._chains[kind] = tuple(
                _Link(
                    member,
                    reject_ends=not for_all and member.on_reject == "stop",
                    outage_ends=not for_all and on_outage == "stop",
                )
                for member in members
                if kind in member.backend.handles
            )

    def ask(self, request: Request) -> Soon[Verdict]:
        """Decide, at once if no backend needs to wait. Never raises."""
        chain = self._chains.get(type(request))
        walk = _Walk(time.monotonic(), iter(chain or ()))
        answer: Soon[Verdict] | None
        try:
            if isinstance(request, CheckPassword) and is_blank(request.password.reveal()):
                answer = Reject(Reason.MALFORMED)
            elif self._throttle is None or (answer := self._throttle.refuse(request)) is None:
                answer = self._decide_here(request, walk) if chain is None else self._step(request, walk)
        except Exception:
            answer = self._bug(request)
        if isinstance(answer, VERDICTS):
            return self._conclude(request, walk, answer)
        return self._in_time(request, walk, answer)

    def _decide_here(self, request: Request, walk: _Walk) -> Soon[Verdict]:
        """Decide what is no question to the chain."""
        if isinstance(request, Proof):
            proven = request.reason is _PROVEN
            walk.note(shown(request.backend), f"accept({shown(request.credential)})" if proven else request.reason)
            if proven and request.credential.startswith(ISSUED):
                return self._use(request, walk)
            return Accept(request.identity) if proven else Reject(request.reason)
        if isinstance(request, Anonymous):
            walk.note("anonymous", shown(request.trace))
            return Accept(request.identity) if self._anonymous else Reject(Reason.NOT_ALLOWED)
        return self._change(request, walk)

    async def _change(self, request: Request, walk: _Walk) -> Verdict:
        """Make a change; all who remember something of its user forget that, and sessions end, before it is acknowledged."""
        verdict = await change(self._members, request, walk.note)
        if isinstance(request, CHANGES) and not isinstance(verdict, Reject):
            try:
                await self._changed(request.identity)
            except BackendDown as down:
                walk.note("*", "not-announced")
                return Unavailable(Reason.BACKEND_DOWN, f"caches may not know of the change: {down}")
        if isinstance(verdict, Accept) and (cause := revocation(request)):
            self._revoked(verdict.identity, cause)
        return verdict

    async def _use(self, request: Proof, walk: _Walk) -> Verdict:
        """Tell who has issued a credential that it was used; they may refuse it."""
        for member in self._members:
            if Proof in member.backend.handles:
                try:
                    answer = await settle(member.backend.answer(request))
                except BackendDown as down:
                    return Unavailable(Reason.BACKEND_DOWN, f"{member.name}: {down}")
                walk.note(member.name, answer.reason if isinstance(answer, Reject) else "used")
                return answer or NO_USER
        return Reject(Reason.NOT_ALLOWED)

    # The chain ------------------------------------------------------------------------------------------------------------

    def _step(self, request: Request, walk: _Walk) -> Soon[Verdict]:
        """Go along the chain until somebody decides or has to be waited for."""
        for link in walk.links:
            if walk.token and not link.takes_tokens:
                continue
            verdict: Verdict | None
            try:
                answer = link.answer(request)
            except BackendDown as down:
                verdict = self._outage(request, walk, link, down)
            else:
                if answer is not None and not isinstance(answer, VERDICTS):
                    return self._wait(request, walk, link, answer)
                verdict = self._take(request, walk, link, answer)
            if verdict is not None:
                return verdict
        if walk.otherwise is NO_USER and isinstance(request, CheckPassword):
            return self._decoy(request)
        return walk.otherwise

    async def _wait(self, request: Request, walk: _Walk, link: _Link, answer: Awaitable[Answer | None]) -> Verdict:
        verdict: Verdict | None
        try:
            verdict = self._take(request, walk, link, await answer)
        except BackendDown as down:
            verdict = self._outage(request, walk, link, down)
        return await settle(self._step(request, walk)) if verdict is None else verdict

    def _take(self, request: Request, walk: _Walk, link: _Link, answer: Answer | None) -> Answer | None:
        """Weigh one backend's answer; None if the next one is to be asked."""
        if answer is None:
            walk.note(link.name, "unknown")
            return None
        if isinstance(answer, _PERSONAL):
            if not is_about(answer.identity, request.identity):
                # A directory that ignores accents or blanks found somebody else.
                walk.note(link.name, f"other-name({shown(str(answer.identity))})")
                return None
            if isinstance(answer, Accept):
                walk.note(link.name, f"accept({answer.via})" if answer.via else "accept")
            else:
                walk.note(link.name, "found")
            return answer
        if isinstance(answer, Reject):
            walk.note(link.name, f"{answer.reason}({answer.via})" if answer.via else answer.reason)
            if link.reject_ends and answer.reason is not Reason.FOREIGN_TOKEN:
                return answer
            walk.token = walk.token or link.takes_tokens
            if walk.otherwise is NO_USER:
                walk.otherwise = answer
            return None
        walk.note(link.name, "found")
        return answer

    def _outage(self, request: Request, walk: _Walk, link: _Link, down: BackendDown) -> Unavailable | None:
        walk.note(link.name, "down")
        unavailable = Unavailable(Reason.BACKEND_DOWN, f"{link.name}: {down}")
        if link.outage_ends:
            return unavailable
        if link.takes_tokens and isinstance(request, CheckPassword):
            walk.token = True  # or it would have said at once that it is none
        if not isinstance(walk.otherwise, Unavailable):
            walk.otherwise = unavailable  # nobody else may turn "can't tell" into "no"
        return None

    async def _decoy(self, request: CheckPassword) -> Verdict:
        decoy = Decoy(request.identity, request.origin, request.password)
        for member in self._members:
            if Decoy in member.backend.handles:
                try:
                    await settle(member.backend.answer(decoy))
                except BackendDown as down:
                    return Unavailable(Reason.BACKEND_DOWN, f"{member.name}: {down}")
                break
        return NO_USER

    # Around every decision ------------------------------------------------------------------------------------------------

    async def _in_time(self, request: Request, walk: _Walk, answer: Awaitable[Verdict]) -> Verdict:
        verdict: Verdict = Unavailable(Reason.BACKEND_TIMEOUT)
        self.busy += 1
        try:
            with trio.CancelScope(relative_deadline=request.origin.patience * PATIENCE_SHARE) as scope:
                verdict = await answer
            if scope.cancelled_caught:
                walk.note("*", "timeout")
        except Exception:
            verdict = self._bug(request)
        finally:
            self.busy -= 1
        return self._conclude(request, walk, verdict)

    def _bug(self, request: Request) -> Unavailable:
        _log.exception("bug", operation=request.operation, user=str(request.identity))
        return Unavailable(Reason.BUG)

    def _conclude(self, request: Request, walk: _Walk, verdict: Verdict) -> Verdict:
        if type(request) in _FINDING and not decides(request, verdict):
            return verdict
        took = (time.monotonic() - walk.started) * 1000
        record(
            self._journal, self._metrics, request.operation, request.identity, request.origin, verdict,
            walk.backend, walk.trail, took,
        )  # fmt: skip
        if self._throttle is not None:
            self._throttle.observe(request, verdict)
        return verdict


def decides(request: Request, verdict: Verdict) -> bool:
    """Tell whether a verdict is a decision, to be written down. What was found for a mechanism is none: a `Proof` follows."""
    return type(request) not in _FINDING or not (isinstance(verdict, _FOUND) or verdict is NO_USER)


def record(
    journal: Journal, metrics: Metrics, operation: str, identity: Identity, origin: Origin, verdict: Verdict,
    backend: str = "", trail: str = "", ms: float = 0.0,
) -> None:  # fmt: skip
    """Count a decision and write its audit line: the one place where that is done."""
    result, reason, detail = "accept", "ok", ""
    if isinstance(verdict, _NAMING):
        identity = verdict.identity
    elif isinstance(verdict, Reject):
        result, reason = "reject", str(verdict.reason)
    elif isinstance(verdict, Unavailable):
        result, reason, detail = "unavailable", str(verdict.reason), verdict.detail
    kind = kind_of(operation, result, reason, backend, origin.listener, origin.peer, origin.mechanism)
    metrics.decisions[kind.outcome] += 1
    journal.decide(kind, time.time(), f"{identity.user}@{identity.domain}", origin.client, ms, trail, detail)
