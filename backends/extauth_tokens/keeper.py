"""What the `tokens` backend answers."""

from collections.abc import Callable
from typing import Any

from extauth.issuing import EndSessions, InspectToken, IssueToken, IssueTokens, ListSessions, is_label
from extauth.jid import InvalidName
from extauth.keystore import Keystore
from extauth.model import (
    VIA,
    Accept,
    Answer,
    CheckPassword,
    CheckToken,
    Identity,
    Listing,
    Reason,
    Reject,
    Request,
    Secret,
    Tokens,
)
from extauth.sessions import Session, Sessions, Turn
from extauth.soon import Soon, settle, then
from extauth.tokens import credential, relogin, xoauth
from extauth.tokens.grant import BY_TOKEN, FAMILY, ISSUED
from extauth.tokens.kinds import ACCESS, GUEST, KINDS, REFRESH, TOKEN_SECRET, Kind
from extauth.tokens.xoauth import Sealed, Token
from extauth_tokens.config import Config
from extauth_tokens.issued import IssuedCredentials
from extauth_tokens.relogin import ReloginKeys

Reply = Soon[Answer | None]

PASSWORD = ""  # the mechanism by which a token comes in a password's place


class TokenBackend:
    """Judges and issues tokens."""

    def __init__(
        self,
        rules: Config,
        keys: Keystore,
        sessions: Sessions,
        issued: IssuedCredentials,
        relogin_keys: ReloginKeys,
        now: Callable[[], float],
    ) -> None:
        self._rules = rules
        self._rotating = rules.mode == "rotating"
        self.keyring = rules.scram_credentials
        self._keys = keys
        self._sessions = sessions
        self._issued = issued
        self._relogin_keys = relogin_keys
        self._now = now
        self._answers: dict[type[Request], Callable[[Any], Reply]] = {
            CheckToken: self._check_token,
            CheckPassword: self._check_password,
            IssueTokens: self._issue,
            IssueToken: self._issue_one,
            InspectToken: self._inspect,
            ListSessions: self._list,
            EndSessions: self._end,
            **issued.answers,
            **relogin_keys.answers,
        }
        self.handles = frozenset(self._answers)

    def answer(self, request: Request) -> Reply:
        """Answer a request of one of the kinds in `handles`."""
        return self._answers[type(request)](request)

    # Logins ---------------------------------------------------------------------------------------------------------------

    def _check_token(self, request: CheckToken) -> Reply:
        return self._check(request, request.token, request.origin.mechanism)

    def _check_password(self, request: CheckPassword) -> Reply:
        return self._check(request, request.password, PASSWORD)

    def _check(self, request: Request, secret: Secret, mechanism: str) -> Reply:
        shown = secret.reveal()
        text = xoauth.recognise(shown)
        if text is not None:  # nobody else is asked about it
            return self._verify(request, text, lambda sealed, owner: self._admit(request, mechanism, sealed, owner))
        claim = credential.recognise(shown)
        if claim is not None:
            return self._issued.judge(request.identity, request.origin.mechanism, claim)
        key = relogin.recognise(shown)
        return None if key is None else self._relogin_keys.login(request.identity, mechanism, key)

    def _verify(self, request: Request, text: str, use: Callable[[Sealed, Identity], Reply]) -> Reply:
        """Return what `use` makes of the token in a text and whose it is, if it is one of the domain that has not expired."""
        sealed = xoauth.read(text)
        if sealed is None:
            return Reject(Reason.BAD_TOKEN)
        domain = request.identity.domain

        def verified(known: bool) -> Reply:  # noqa: FBT001 - it is what `then` calls
            try:
                owner = sealed.token.owner if known else None
            except InvalidName:
                owner = None
            if owner is None:
                return Reject(Reason.BAD_TOKEN)
            if owner.domain != domain:
                return Reject(Reason.WRONG_TOKEN)
            return use(sealed, owner) if self._now() < sealed.token.expires else Reject(Reason.EXPIRED_TOKEN)

        return then(self._keys.verify(domain, KINDS[sealed.token.kind].key, sealed.is_by), verified)

    def _admit(self, request: Request, mechanism: str, sealed: Sealed, owner: Identity) -> Reply:
        token = sealed.token
        kind = KINDS[token.kind]
        if request.identity.user and owner != request.identity:
            return Reject(Reason.WRONG_TOKEN)
        if kind.mechanisms and mechanism not in kind.mechanisms:
            return Reject(Reason.WRONG_TOKEN)
        if kind.restricts and not request.origin.enforces:
            return Reject(Reason.NOT_ENFORCED)
        accepted = Accept(owner, self._attributes(token, kind))
        if kind is REFRESH:
            return self._rotate(token, owner) if self._rotating else self._reuse(token, owner)
        if kind is ACCESS and self._rules.revocable_access:
            return then(self._is_revoked(token, owner), lambda gone: Reject(Reason.TOKEN_REVOKED) if gone else accepted)
        return self._spend(sealed, accepted) if kind.one_time else accepted

    def _attributes(self, token: Token, kind: Kind) -> dict[str, str]:
        attributes = {VIA: BY_TOKEN if kind.renews else kind.name, "expires": str(token.expires)}
        if kind.attributes:
            attributes.update(kind.attributes)
        if kind.renews:
            attributes[FAMILY] = token.family if self._rotating else ""
        if kind is ACCESS and not self._rotating:
            attributes[ISSUED] = str(self._issued_at(token))  # until it expires it logs in, but who is revoked gets no others
        for name in kind.told:
            attributes[name] = token.fields[name]
        return attributes

    def _is_revoked(self, token: Token, owner: Identity) -> Soon[bool]:
        if self._rotating:
            return then(self._sessions.find(owner, token.family), lambda session: session is None)
        issued, lifetime = self._issued_at(token) * 1000, self._rules.access_lifetime
        return then(self._sessions.horizon(owner), lambda horizon: horizon.voids(issued, lifetime))

    def _issued_at(self, token: Token) -> int:
        """Return when an access token was issued, if it has the lifetime of today's configuration (Unix seconds)."""
        return token.expires - self._rules.access_lifetime

    async def _spend(self, sealed: Sealed, accepted: Accept) -> Answer:
        fresh = await self._sessions.spend(sealed.mac.hex(), sealed.token.expires)
        return accepted if fresh else Reject(Reason.TOKEN_REUSED)

    async def _rotate(self, token: Token, owner: Identity) -> Answer:
        expires = int(self._now()) + self._rules.refresh_lifetime
        key = await self._keys.signing(owner.domain, TOKEN_SECRET, expires)
        turn = await self._sessions.rotate(owner, token.family, token.number, expires)
        if isinstance(turn, Reason):
            return Reject(turn)
        successor = _refresh_token(owner, token.family, turn)
        return Accept(owner, self._attributes(token, REFRESH), Secret(xoauth.seal(successor, key)))

    async def _reuse(self, token: Token, owner: Identity) -> Answer:
        """Log in by a refresh token as MongooseIM does: it stays valid, until the user's number is raised."""
        now = int(self._now())
        if self._rules.refresh_returns == "access":
            await self._sessions.admit_lifetime(self._rules.access_lifetime, now + self._rules.access_lifetime)
        number = (await settle(self._sessions.horizon(owner))).number
        if token.number < number:
            return Reject(Reason.TOKEN_REVOKED)
        if self._rules.refresh_returns == "refresh":
            expires = now + self._rules.refresh_lifetime
            given = Token(REFRESH.name, str(owner), expires, {"seq": str(number)})
        else:
            given = Token(ACCESS.name, str(owner), now + self._rules.access_lifetime, {})
        key = await self._keys.signing(owner.domain, TOKEN_SECRET, given.expires)
        return Accept(owner, self._attributes(token, REFRESH), Secret(xoauth.seal(given, key)))

    # Issuing --------------------------------------------------------------------------------------------------------------

    async def _issue(self, request: IssueTokens) -> Answer:
        owner, login, rules = request.identity, request.login, self._rules
        if not is_label(request.device):
            return Reject(Reason.MALFORMED)
        now = int(self._now())
        expires = now + rules.refresh_lifetime
        key = await self._keys.signing(owner.domain, TOKEN_SECRET, expires)
        access_expires = now + rules.access_lifetime
        await self._sessions.admit_lifetime(rules.access_lifetime, access_expires)
        if self._rotating:
            turn = await self._sessions.current(owner, login, request.device, expires, now + rules.session_lifetime)
            if isinstance(turn, Reason):
                return Reject(turn)
            refresh = _refresh_token(owner, login.family, turn)
            access_expires = min(access_expires, turn.ends)
        else:
            number = await self._sessions.number(owner, login, rules.access_lifetime)
            if isinstance(number, Reason):
                return Reject(number)
            refresh = Token(REFRESH.name, str(owner), expires, {"seq": str(number)})
        access = Token(ACCESS.name, refresh.jid, access_expires, {})
        return Tokens(
            owner,
            {token.kind: Secret(xoauth.encode(xoauth.seal(token, key))) for token in (access, refresh)},
            {FAMILY: refresh.family, "access-expires": str(access.expires), "refresh-expires": str(refresh.expires)},
        )

    async def _issue_one(self, request: IssueToken) -> Answer:
        kind = KINDS.get(request.kind)
        if kind is None or kind.renews:
            return Reject(Reason.NOT_SUPPORTED)
        if set(request.fields) != set(kind.fields) or any("\0" in field for field in request.fields.values()):
            return Reject(Reason.MALFORMED)
        lifetime = request.lifetime or (self._rules.guest_lifetime if kind is GUEST else kind.lifetime)
        token = Token(kind.name, str(request.identity), int(self._now()) + lifetime, request.fields)
        key = await self._keys.signing(request.identity.domain, kind.key, token.expires)
        text = Secret(xoauth.encode(xoauth.seal(token, key)))
        return Tokens(request.identity, {kind.name: text}, {"expires": str(token.expires)})

    # Looking after --------------------------------------------------------------------------------------------------------

    def _inspect(self, request: InspectToken) -> Reply:
        key = relogin.recognise(request.token.reveal())
        if key is not None:
            return self._relogin_keys.inspect(request.identity.domain, key)
        text = xoauth.recognise(request.token.reveal())
        return Reject(Reason.BAD_TOKEN) if text is None else self._verify(request, text, self._describe)

    async def _describe(self, sealed: Sealed, owner: Identity) -> Answer:
        token = sealed.token
        attributes = {"kind": token.kind, "family": "", **token.fields, **self._attributes(token, KINDS[token.kind])}
        return Accept(owner, {**attributes, "state": await self._state(token, owner)})

    async def _state(self, token: Token, owner: Identity) -> Reason:
        """Return how a login by the token would end, as far as the store knows."""
        if KINDS[token.kind] is REFRESH and self._rotating:
            session = await settle(self._sessions.find(owner, token.family))
            if session is not None:
                return Reason.OK if session.number == token.number else Reason.TOKEN_REUSED
            return Reason.TOKEN_REVOKED
        if KINDS[token.kind] is REFRESH:
            number = (await settle(self._sessions.horizon(owner))).number
            return Reason.OK if token.number >= number else Reason.TOKEN_REVOKED
        if KINDS[token.kind] is ACCESS and self._rules.revocable_access:
            return Reason.TOKEN_REVOKED if await settle(self._is_revoked(token, owner)) else Reason.OK
        return Reason.OK

    def _list(self, request: ListSessions) -> Reply:
        found = self._sessions.living(request.identity, request.after, request.limit)
        return then(found, lambda found: Listing(tuple(_described(session) for session in found)))

    async def _end(self, request: EndSessions) -> Answer:
        ended = await self._sessions.end(request.identity, request.cause, family=request.family, device=request.device)
        if not request.family:
            ended += await self._issued.end_all(request.identity, request.device)
        return Accept(request.identity, {"ended": str(ended)})


def _refresh_token(owner: Identity, family: str, turn: Turn) -> Token:
    return Token(REFRESH.name, f"{owner}/{family}", turn.expires, {"seq": str(turn.number)})


def _described(session: Session) -> Accept:
    times = {"made": session.made, "used": session.used, "ends": session.ends, "number": session.number}
    return Accept(
        session.identity,
        {"session": session.id, "device": session.device, **{name: str(value) for name, value in times.items()}},
    )
