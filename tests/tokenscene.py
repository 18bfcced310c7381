"""The `tokens` backend on a store of its own, with a clock that a test sets."""

import base64
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import extauth_tokens
from extauth_tokens.config import Config

from extauth.backend import Backend, Context
from extauth.issuing import EndSessions, IssueTokens, ListSessions, Login
from extauth.keystore import Keystore
from extauth.model import (
    Accept,
    Answer,
    CheckPassword,
    CheckToken,
    Identity,
    Listing,
    Origin,
    Reason,
    Reject,
    Request,
    Secret,
    Tokens,
)
from extauth.soon import settle
from extauth.store import Store, open_store
from extauth.threads import Threads
from extauth.tokens import grant, xoauth
from extauth.tokens.xoauth import Token

ALICE = Identity("alice", "example.com")
BOB = Identity("bob", "example.com")
NOBODY = Identity("", "example.com")
X_OAUTH = Origin("front", mechanism="X-OAUTH")
BEARER = Origin("front", mechanism="OAUTHBEARER")
PLAIN = Origin("front", mechanism="PLAIN")
START = 1_800_000_000


class Clock:
    """Unix time, as a test sets it."""

    def __init__(self) -> None:
        self.time = float(START)

    def __call__(self) -> float:
        return self.time


class Scene:
    """The tokens of one store, and the clock."""

    def __init__(self, backend: Backend, store: Store, clock: Clock) -> None:
        self.backend = backend
        self.store = store
        self.clock = clock
        self.keys = Keystore(store, clock)

    async def ask(self, request: Request) -> Answer | None:
        return await settle(self.backend.answer(request))

    def primary(self) -> Login:
        login = grant.login_of({}, int(self.clock.time * 1000))
        assert login is not None
        return login

    async def issue(self, login: Login | None = None, device: str = "", identity: Identity = ALICE) -> dict[str, str]:
        """Ask for tokens after a login, by default a primary one."""
        answer = await self.ask(IssueTokens(identity, PLAIN, login or self.primary(), device))
        assert isinstance(answer, Tokens), answer
        assert answer.identity == identity
        return {kind: text.reveal() for kind, text in answer.tokens.items()}

    async def login(self, token: str, origin: Origin = X_OAUTH, identity: Identity = NOBODY) -> Answer | None:
        """Log in by a token in base64, as a client has it."""
        if origin is PLAIN:
            return await self.ask(CheckPassword(identity, origin, Secret(token)))
        text = base64.b64decode(token).decode() if origin is X_OAUTH else token
        return await self.ask(CheckToken(identity, origin, Secret(text)))

    async def use(self, refresh: str) -> str:
        """Log in by a refresh token and return what came with the success."""
        answer = await self.login(refresh)
        assert isinstance(answer, Accept), answer
        assert answer.payload is not None
        return xoauth.encode(answer.payload.reveal())

    async def refused(self, token: str, origin: Origin = X_OAUTH, identity: Identity = NOBODY) -> Reason:
        answer = await self.login(token, origin, identity)
        assert isinstance(answer, Reject), answer
        return answer.reason

    async def end(self, identity: Identity = ALICE, *, family: str = "", device: str = "") -> int:
        self.clock.time += 0.01
        answer = await self.ask(EndSessions(identity, PLAIN, "test", family, device))
        self.clock.time += 0.01
        assert isinstance(answer, Accept)
        return int(answer.attributes["ended"])

    async def sessions(self, identity: Identity = ALICE) -> list[Accept]:
        answer = await self.ask(ListSessions(identity, PLAIN))
        assert isinstance(answer, Listing)
        return list(answer.accounts)


@asynccontextmanager
async def scene_of(state: str, config: Config, clock: Clock | None = None) -> AsyncGenerator[Scene, None]:
    """Open a scene; several on one state are daemons that share a store."""
    clock = clock or Clock()
    with Threads("test", 1, 1.0) as threads:
        async with open_store(state) as store:
            async with extauth_tokens.open(config, Context("tokens", store, threads, clock)) as backend:
                yield Scene(backend, store, clock)


def parsed(token: str) -> Token:
    text = xoauth.recognise(token)
    assert text is not None
    sealed = xoauth.read(text)
    assert sealed is not None
    return sealed.token
