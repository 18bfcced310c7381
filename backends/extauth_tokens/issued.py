"""App passwords and temporary tokens: what the `tokens` backend answers about them."""

from collections.abc import Callable
from typing import Any

from extauth.credentials import Credentials, Terms, Used
from extauth.issuing import EndCredential, IssueCredential, ListCredentials
from extauth.model import VIA, Accept, Answer, Identity, Listing, Proof, Reason, Reject, Request, Tokens
from extauth.soon import Soon
from extauth.tokens.credential import APP, MARKS, Claim

Reply = Soon[Answer | None]


class IssuedCredentials:
    """Judges and issues them. `lifetime` is of temporary tokens, in seconds."""

    def __init__(self, credentials: Credentials, lifetime: int) -> None:
        self._credentials = credentials
        self._lifetime = lifetime
        self.answers: dict[type[Request], Callable[[Any], Reply]] = {
            Proof: self._prove,
            IssueCredential: self._issue,
            ListCredentials: self._list,
            EndCredential: self._end,
        }

    async def judge(self, asked: Identity, mechanism: str, claim: Claim) -> Answer:
        """Judge what came as a password or bearer token."""
        return _answer(asked, await self._credentials.check(claim, mechanism))

    async def end_all(self, identity: Identity) -> int:
        """Revoke everything of a user, or (without one) of the domain."""
        return await self._credentials.end_all(identity)

    async def _prove(self, request: Proof) -> Answer:
        return _answer(request.identity, await self._credentials.proven(request.credential, request.origin.mechanism))

    async def _issue(self, request: IssueCredential) -> Answer:
        if request.kind not in MARKS:
            return Reject(Reason.NOT_SUPPORTED)
        lifetime = None if request.kind == APP else request.lifetime or self._lifetime
        terms = Terms(request.kind, request.label, lifetime, request.one_time, request.mechanism)
        made = await self._credentials.issue(request.identity, terms)
        if isinstance(made, Reason):
            return Reject(made)
        word, text, expires = made
        told = {"id": word} | ({} if expires is None else {"expires": str(expires)})
        return Tokens(request.identity, {request.kind: text}, told)

    async def _list(self, request: ListCredentials) -> Answer:
        found = await self._credentials.issued(request.identity)
        described = [{name: str(value) for name, value in one._asdict().items() if value is not None} for one in found]
        return Listing(tuple(Accept(request.identity, attributes) for attributes in described))

    async def _end(self, request: EndCredential) -> Answer:
        if not request.which:  # which is the label of temporary tokens
            return Reject(Reason.MALFORMED)
        ended = await self._credentials.end(request.identity, request.which)
        return Accept(request.identity, {"ended": str(ended)}) if ended else Reject(Reason.BAD_NAME)


def _answer(asked: Identity, used: Used | Reason) -> Answer:
    if isinstance(used, Reason):
        return Reject(used)
    if used.identity.domain != asked.domain or (asked.user and asked != used.identity):
        return Reject(Reason.WRONG_TOKEN)
    return Accept(used.identity, {VIA: used.kind, **({"credential": used.label} if used.label else {})})
