"""A SASL exchange with the authority behind it: what every front end that speaks SASL has in common."""

import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import structlog
from msgspec.structs import replace

from extauth.authority import decides
from extauth.journal import shown
from extauth.model import VERDICTS, Identity, Keys, Origin, Proof, Reason, Reject, Request, Unavailable, Verdict
from extauth.sasl.exchange import Challenge, Condition, Exchange, Failure, Step, Stream, Success
from extauth.soon import Soon, settle

_log = structlog.get_logger("sasl")

Turn: TypeAlias = Challenge | Success | Failure
TURNS = (Challenge, Success, Failure)


class Negotiation:
    """One client's exchange: between two messages of the client the authority is asked as often as the mechanism needs."""

    def __init__(
        self,
        exchange: Exchange,
        stream: Stream,
        ask: Callable[[Request], Soon[Verdict]],
        refuse: Callable[[str, Identity, Origin, Reason], Reject],
        changed_since: Callable[[Identity, float], bool],
        *,
        known_domain: bool,
    ) -> None:
        self._exchange = exchange
        self._stream = stream
        self._ask = ask
        self._refuse = refuse
        self._changed_since = changed_since
        self._known_domain = known_domain
        self._began = math.inf  # monotonic seconds
        self._found: tuple[Request, Keys] | None = None
        self._recorded = False  # whether the authority has written down how it ended

    def begin(self, initial: bytes | None) -> Soon[Turn]:
        """Start with the client's initial response (None: it sent none)."""
        self._began = time.monotonic()
        if not self._known_domain:
            return self._failed(self._exchange.refuse("not-authorized", Reason.UNKNOWN_DOMAIN))
        return self._go_on(self._exchange.begin(initial))

    def respond(self, data: bytes) -> Soon[Turn]:
        """Go on with the client's response."""
        return self._go_on(self._exchange.respond(data))

    def fail(self, condition: Condition) -> Failure:
        """End it because what the client sent could not even be decoded."""
        return self._failed(self._exchange.refuse(condition))

    def abort(self) -> None:
        """End it because the client gave up or has gone."""
        self._exchange.abort()

    def _go_on(self, step: Step) -> Soon[Turn]:
        while isinstance(step, Request):
            verdict = self._decide(step)
            if not isinstance(verdict, VERDICTS):
                return self._go_on_later(step, verdict)
            step = self._resume(step, verdict)
        return self._failed(step) if isinstance(step, Failure) else step

    def _decide(self, request: Request) -> Soon[Verdict]:
        """Ask the authority. A proof by keys from before a change of the account counts if they are still the same."""
        found = self._found
        if found is None or not isinstance(request, Proof) or not self._changed_since(request.identity, self._began):
            return self._ask(request)
        return self._decide_anew(request, *found)

    async def _decide_anew(self, proof: Proof, finding: Request, found: Keys) -> Verdict:
        now: Verdict = await settle(self._ask(finding))
        if not isinstance(now, Unavailable):
            now = await settle(self._ask(proof if now == found else replace(proof, reason=Reason.BAD_PASSWORD)))
        return now

    async def _go_on_later(self, request: Request, verdict: Awaitable[Verdict]) -> Turn:
        turn = self._go_on(self._resume(request, await verdict))
        return turn if isinstance(turn, TURNS) else await turn

    def _resume(self, request: Request, verdict: Verdict) -> Step:
        self._recorded = decides(request, verdict)
        if isinstance(verdict, Keys):
            self._found = request, verdict
        return self._exchange.resume(verdict)

    def _failed(self, failure: Failure) -> Failure:
        if failure.bug is not None:
            _log.error("bug", mechanism=self._exchange.name, exc_info=failure.bug)
        if not self._recorded and failure.reason is not Reason.ABORTED:
            origin = replace(self._stream.origin, mechanism=shown(self._exchange.name))  # which the client chose
            self._refuse("authenticate", Identity("", self._stream.domain), origin, failure.reason)
        return failure
