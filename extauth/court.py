"""The authority as SASL exchanges see it."""

from collections.abc import Callable

import structlog
from msgspec.structs import replace

from extauth.authority import decides
from extauth.journal import shown
from extauth.model import Identity, Keys, Origin, Proof, Reason, Reject, Request, Unavailable, Verdict
from extauth.sasl.exchange import Failure, Terms
from extauth.soon import Soon, settle

_log = structlog.get_logger("sasl")


class Court:
    """See `extauth.sasl.exchange.Court`."""

    def __init__(
        self,
        ask: Callable[[Request], Soon[Verdict]],
        refuse: Callable[[str, Identity, Origin, Reason], Reject],
        changed_since: Callable[[Identity, float], bool],
    ) -> None:
        self.ask = ask
        self._refuse = refuse
        self._changed_since = changed_since

    def ask_proven(self, proof: Proof, finding: Request, found: Keys, began: float) -> Soon[Verdict]:
        """Ask the authority. A proof by keys from before a change of the account counts if they are still the same."""
        if not self._changed_since(proof.identity, began):
            return self.ask(proof)
        return self._ask_anew(proof, finding, found)

    async def _ask_anew(self, proof: Proof, finding: Request, found: Keys) -> Verdict:
        now: Verdict = await settle(self.ask(finding))
        if not isinstance(now, Unavailable):
            now = await settle(self.ask(proof if now == found else replace(proof, reason=Reason.BAD_PASSWORD)))
        return now

    def failed(self, terms: Terms, failure: Failure, last: tuple[Request, Verdict] | None) -> None:
        """Write down how an exchange failed, unless the authority has done so already."""
        if failure.bug is not None:
            _log.error("bug", mechanism=terms.name, exc_info=failure.bug)
        if failure.reason is not Reason.ABORTED and not (last is not None and decides(*last)):
            origin = replace(terms.stream.origin, mechanism=shown(terms.name))  # which the client chose
            self._refuse("authenticate", Identity("", terms.stream.domain), origin, failure.reason)
