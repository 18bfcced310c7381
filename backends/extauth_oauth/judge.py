"""What the `oauth` backend answers."""

import hashlib
import re
from collections import OrderedDict

import trio

from extauth import subjects
from extauth.backend import Context
from extauth.model import VIA, Accept, Answer, CheckPassword, CheckToken, Reason, Reject, Request
from extauth.soon import Soon, settle
from extauth.tokens import jose
from extauth.tokens.jose import Claims
from extauth_oauth.config import Config
from extauth_oauth.issuer import Issuer

Reply = Soon[Answer | None]

_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}").fullmatch  # RFC 6749 appendix A.12, but for spaces


class OauthBackend:
    """Judges the tokens of one issuer."""

    handles: frozenset[type[Request]] = frozenset({CheckToken, CheckPassword})

    def __init__(self, config: Config, issuer: Issuer, context: Context) -> None:
        self._config = config
        self._rules = config.rules
        self._naming = config.naming
        self._issuer = issuer
        self._store = context.store
        self._now = context.now
        self._good: OrderedDict[bytes, tuple[float, Claims]] = OrderedDict()  # by the hash of a token: until when, and what

    def answer(self, request: Request) -> Reply:
        """Answer a request of one of the kinds in `handles`."""
        if isinstance(request, CheckPassword):
            text = request.password.reveal()
            return self._judge(request, text) if self._is_marked(text) and _TOKEN(text) else None
        assert isinstance(request, CheckToken)
        text = request.token.reveal()
        return self._judge(request, text) if _TOKEN(text) else None

    def _is_marked(self, password: str) -> bool:
        """Tell whether a password is a token by the look of it; the issuer never gets to see any other."""
        prefix = self._config.prefix
        return (bool(prefix) and password.startswith(prefix)) or jose.header(password) is not None

    async def _judge(self, request: Request, token: str) -> Answer | None:
        key = hashlib.sha256(token.encode()).digest()
        claims = self._remembered(key)
        if claims is None:
            claims = await self._issuer.ask(token)
            if claims is None:
                return Reject(Reason.BAD_TOKEN)
            self._remember(key, claims)
        refusal = self._refuse(claims)
        return await settle(self._admit(request, claims)) if refusal is None else Reject(refusal)

    def _admit(self, request: Request, claims: Claims) -> Reply:
        found = self._naming.find(claims, request.identity)
        if isinstance(found, Reason):
            return Reject(found)
        accepted = Accept(found, {VIA: "oauth"})
        return subjects.admit(self._store, accepted, self._config.issuer, str(claims.get("sub", found)))

    def _refuse(self, claims: Claims) -> Reason | None:
        """Return why a token that is good is not good here, if so."""
        rules = self._config
        if rules.introspection_url:
            kind = claims.get("token_type")
            if str(kind).lower() != "bearer" and not (kind is None and rules.untyped):
                return Reason.WRONG_TOKEN
            if rules.clients and claims.get("client_id") not in rules.clients:
                return Reason.WRONG_AUDIENCE
            if claims.get("iss", rules.issuer) != rules.issuer:
                return Reason.FOREIGN_TOKEN
        return self._rules.judge(claims, self._now())

    # What the issuer said lately ------------------------------------------------------------------------------------------

    def _remembered(self, key: bytes) -> Claims | None:
        until, claims = self._good.get(key, (0.0, None))
        return claims if trio.current_time() < until else None

    def _remember(self, key: bytes, claims: Claims) -> None:
        self._good.pop(key, None)
        while len(self._good) >= self._config.remember_size:
            self._good.popitem(last=False)  # in the order of their time
        self._good[key] = (trio.current_time() + self._config.remember, claims)
