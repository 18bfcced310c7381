"""App passwords and temporary tokens: what the `tokens` backend answers about them."""

import re
from collections.abc import Callable
from typing import Any

from extauth.credentials import Credentials, Terms, Used
from extauth.fasttokens import PREFIX, FastTokens
from extauth.issuing import EndCredential, IssueCredential, ListCredentials, is_label
from extauth.model import (
    VIA,
    Accept,
    Answer,
    FindHashedTokens,
    HashedTokens,
    Identity,
    Listing,
    Proof,
    Reason,
    Reject,
    Request,
    Tokens,
)
from extauth.soon import Soon
from extauth.tokens.credential import APP, FAST, MARKS, Claim

Reply = Soon[Answer | None]

_HASHED = re.compile(r"HT-SHA-(256|384|512)-(NONE|UNIQ|ENDP|EXPR)").fullmatch


class IssuedCredentials:
    """Judges and issues them, and FAST tokens. `lifetime` is of temporary tokens, in seconds."""

    def __init__(self, name: str, credentials: Credentials, fast: FastTokens, lifetime: int) -> None:
        self._name = name
        self._credentials = credentials
        self._fast = fast
        self._lifetime = lifetime
        self.answers: dict[type[Request], Callable[[Any], Reply]] = {
            Proof: self._prove,
            FindHashedTokens: self._find,
            IssueCredential: self._issue,
            ListCredentials: self._list,
            EndCredential: self._end,
        }

    async def judge(self, asked: Identity, mechanism: str, claim: Claim) -> Answer:
        """Judge what came as a password or bearer token."""
        return _answer(asked, await self._credentials.check(claim, mechanism))

    async def end_all(self, identity: Identity, device: str) -> int:
        """Revoke everything of a device, of a user, or (without one) of the domain."""
        ended = await self._fast.end(identity, device)
        return ended if device else ended + await self._credentials.end_all(identity)

    async def _find(self, request: FindHashedTokens) -> Answer | None:
        found = await self._fast.find(request.identity, request.mechanism)
        return HashedTokens(request.identity, found, self._name) if found else None

    async def _prove(self, request: Proof) -> Answer:
        if request.credential.startswith(PREFIX):
            reason = await self._fast.use(request.identity, request.credential)
            return Accept(request.identity, {VIA: FAST}) if reason is Reason.OK else Reject(reason)
        return _answer(request.identity, await self._credentials.proven(request.credential, request.origin.mechanism))

    async def _issue(self, request: IssueCredential) -> Answer:
        if not is_label(request.label):
            return Reject(Reason.MALFORMED)
        if request.kind == FAST:
            return await self._issue_fast(request)
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

    async def _issue_fast(self, request: IssueCredential) -> Answer:
        if not (request.label and _HASHED(request.mechanism)):
            return Reject(Reason.MALFORMED)
        text, expires = await self._fast.issue(request.identity, request.label, request.mechanism)
        return Tokens(request.identity, {FAST: text}, {"expires": str(expires)})

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
