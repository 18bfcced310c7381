"""A SASL exchange with the authority behind it: what every front end that speaks SASL has in common."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import structlog
from msgspec.structs import replace

from extauth.authority import decides
from extauth.journal import shown
from extauth.model import VERDICTS, Identity, Origin, Reason, Reject, Request, Verdict
from extauth.sasl.exchange import Challenge, Condition, Exchange, Failure, Step, Stream, Success
from extauth.soon import Soon

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
        *,
        known_domain: bool,
    ) -> None:
        self._exchange = exchange
        self._stream = stream
        self._ask = ask
        self._refuse = refuse
        self._known_domain = known_domain
        self._recorded = False  # whether the authority has written down how it ended

    def begin(self, initial: bytes | None) -> Soon[Turn]:
        """Start with the client's initial response (None: it sent none)."""
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
            verdict = self._ask(step)
            if not isinstance(verdict, VERDICTS):
                return self._go_on_later(step, verdict)
            step = self._resume(step, verdict)
        return self._failed(step) if isinstance(step, Failure) else step

    async def _go_on_later(self, request: Request, verdict: Awaitable[Verdict]) -> Turn:
        turn = self._go_on(self._resume(request, await verdict))
        return turn if isinstance(turn, TURNS) else await turn

    def _resume(self, request: Request, verdict: Verdict) -> Step:
        self._recorded = decides(request, verdict)
        return self._exchange.resume(verdict)

    def _failed(self, failure: Failure) -> Failure:
        if failure.bug is not None:
            _log.error("bug", mechanism=self._exchange.name, exc_info=failure.bug)
        if not self._recorded and failure.reason is not Reason.ABORTED:
            origin = replace(self._stream.origin, mechanism=shown(self._exchange.name))  # which the client chose
            self._refuse("authenticate", Identity("", self._stream.domain), origin, failure.reason)
        return failure
