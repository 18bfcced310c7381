"""What the `jwt` backend answers."""

from extauth import subjects
from extauth.backend import Context
from extauth.model import VIA, Accept, Answer, CheckPassword, CheckToken, Reason, Reject, Request, Secret
from extauth.soon import Soon, then
from extauth.tokens import jose
from extauth.tokens.jose import Claims
from extauth_jwt.config import Config
from extauth_jwt.keys import Keyset
from extauth_jwt.published import Source

Reply = Soon[Answer | None]


class JwtBackend:
    """Judges the tokens of one issuer."""

    handles: frozenset[type[Request]] = frozenset({CheckToken, CheckPassword})

    def __init__(self, config: Config, source: Source, context: Context) -> None:
        self._issuer = config.issuer
        self._typ = frozenset(_media_type(typ) for typ in config.typ)
        self._rules = config.rules
        self._naming = config.naming
        self._source = source
        self._store = context.store
        self._now = context.now

    def answer(self, request: Request) -> Reply:
        """Answer a request of one of the kinds in `handles`."""
        if isinstance(request, CheckPassword):
            return self._judge(request, request.password)
        assert isinstance(request, CheckToken)
        return self._judge(request, request.token)

    def _judge(self, request: Request, token: Secret) -> Reply:
        """Judge what is a token by the look of it; whatever comes of it, no backend for passwords gets to see it."""
        text = token.reveal()
        header = jose.header(text)
        if header is None:
            return None
        claims = jose.payload(text)
        if claims is None:
            return Reject(Reason.BAD_TOKEN)
        if self._issuer and claims.get("iss") != self._issuer:
            return Reject(Reason.FOREIGN_TOKEN)
        typ, kid = header.get("typ", ""), header.get("kid", "")
        if "crit" in header or not isinstance(typ, str) or not isinstance(kid, str):
            return Reject(Reason.BAD_TOKEN)
        typ = _media_type(typ)
        if typ not in self._typ:
            return Reject(Reason.WRONG_TOKEN)

        def verify(keys: Keyset) -> Reply:
            if not keys.verifies(text, kid, header["alg"]):
                return Reject(Reason.BAD_TOKEN if keys.knows(kid) else Reason.UNKNOWN_KEY)
            return self._admit(request, claims, typ)

        return then(self._source.find(kid), verify)

    def _admit(self, request: Request, claims: Claims, typ: str) -> Reply:
        """Answer for verified claims."""
        refusal = self._rules.judge(claims, self._now(), typ)
        if refusal is not None:
            return Reject(refusal)
        found = self._naming.find(claims, request.identity)
        if isinstance(found, Reason):
            return Reject(found)
        accepted = Accept(found, {VIA: "jwt", "expires": str(int(claims["exp"]))})
        if not self._issuer:
            return accepted
        return subjects.admit(self._store, accepted, self._issuer, str(claims.get("sub", found)))


def _media_type(typ: str) -> str:
    """Return `typ` as it is compared (RFC 7515 section 4.1.9)."""
    return typ.lower().removeprefix("application/")
