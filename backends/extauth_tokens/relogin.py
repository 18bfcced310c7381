"""Relogin keys: what the `tokens` backend answers about them. A session of theirs is a family, and a key a turn of it."""

from collections.abc import Callable
from typing import Any

from extauth.issuing import Login, Relogin, StartRelogin, is_label
from extauth.keystore import Keystore
from extauth.model import VIA, Accept, Answer, Identity, Reason, Reject, Request, Secret, Tokens
from extauth.sessions import Sessions, Turn
from extauth.soon import Soon, settle
from extauth.tokens import relogin
from extauth.tokens.credential import digest
from extauth.tokens.grant import FAMILY, new_family
from extauth.tokens.kinds import RELOGIN_SECRET, REPLYING
from extauth.tokens.relogin import FORMS, RELOGIN, Claim, Key
from extauth_tokens.config import Config


class ReloginKeys:
    """Judges and issues them."""

    def __init__(self, rules: Config, keys: Keystore, sessions: Sessions, now: Callable[[], float]) -> None:
        self._rules = rules
        self._keys = keys
        self._sessions = sessions
        self._now = now
        self.answers: dict[type[Request], Callable[[Any], Soon[Answer | None]]] = {
            StartRelogin: self._start,
            Relogin: self._relogin,
        }

    async def _start(self, request: StartRelogin) -> Answer:
        """Begin a family for relogin keys alone: no refresh token takes turns with them."""
        if not request.login.primary:
            return Reject(Reason.NOT_ALLOWED)
        if not is_label(request.device) or (self._rules.bind_cookie and request.cookie is None):
            return Reject(Reason.MALFORMED)
        login = Login(request.login.at, new_family(), primary=True)
        cookie = None if request.cookie is None else digest(request.cookie)
        ends, secret = await self._until(request.identity.domain)
        turn = await self._sessions.current(request.identity, login, request.device, ends, ends, cookie)
        if isinstance(turn, Reason):
            return Reject(turn)
        return self._key(request.identity, login.family, turn, secret)

    async def _relogin(self, request: Relogin) -> Answer:
        claim = relogin.recognise(request.key.reveal())
        return Reject(Reason.BAD_TOKEN) if claim is None else await self._use(request.identity, claim, request.cookie)

    async def login(self, asked: Identity, mechanism: str, claim: Claim) -> Answer:
        """Judge what came as a token of a mechanism: a key is taken where the next one can be returned."""
        if mechanism not in REPLYING:
            return Reject(Reason.WRONG_TOKEN)
        given = await self._use(asked, claim, None)
        if not isinstance(given, Tokens):
            return given
        return Accept(given.identity, {VIA: RELOGIN, **given.attributes}, given.tokens[RELOGIN])

    async def inspect(self, domain: str, claim: Claim) -> Answer:
        """Tell whose a key is, and how a relogin by it would end."""
        owner = await self._owner(domain, claim)
        if isinstance(owner, Reason):
            return Reject(owner)
        session = await settle(self._sessions.find(owner, claim.family))
        state = Reason.TOKEN_REVOKED
        if session is not None:
            state = Reason.OK if session.number == claim.number else Reason.TOKEN_REUSED
        return Accept(owner, {"kind": RELOGIN, FAMILY: claim.family, "seq": str(claim.number), "state": state})

    async def _use(self, asked: Identity, claim: Claim, cookie: Secret | None) -> Answer:
        owner = await self._owner(asked.domain, claim)
        if isinstance(owner, Reason):
            return Reject(owner)
        if asked.user and asked != owner:
            return Reject(Reason.WRONG_TOKEN)
        ends, secret = await self._until(owner.domain)
        shown = b"" if cookie is None else digest(cookie)
        lifetime = self._rules.session_lifetime
        turn = await self._sessions.relogin(owner, claim.family, claim.number, ends, lifetime, shown)
        return Reject(turn) if isinstance(turn, Reason) else self._key(owner, claim.family, turn, secret)

    async def _owner(self, domain: str, claim: Claim) -> Identity | Reason:
        """Return whose a genuine key is: also one that was used, since that is told from an invented one."""
        genuine = self._keys.verify(domain, RELOGIN_SECRET, lambda secrets: claim.is_by(domain, secrets))
        if not await settle(genuine):
            return Reason.BAD_TOKEN
        return await settle(self._sessions.owner(domain, claim.family)) or Reason.UNKNOWN_FAMILY

    async def _until(self, domain: str) -> tuple[int, bytes]:
        """Return when a session ends that is used now, and the secret of its next key."""
        ends = int(self._now()) + self._rules.relogin_lifetime
        return ends, await self._keys.signing(domain, RELOGIN_SECRET, ends)

    def _key(self, owner: Identity, family: str, turn: Turn, secret: bytes) -> Tokens:
        text = FORMS[self._rules.relogin_key](Key(owner, family, turn.number, turn.ends), secret)
        return Tokens(owner, {RELOGIN: text}, {FAMILY: family, "expires": str(turn.ends)})
