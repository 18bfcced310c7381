"""The contract of bearer tokens on every backend that judges them."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs

import extauth_jwt
import extauth_oauth
import extauth_signed
import pytest
from extauth_oauth.issuer import Issuer
from extauth_oauth.judge import OauthBackend
from extauth_tokens.config import Config

from extauth.backend import Backend, BackendModule, Context
from extauth.fetch import Fetcher, Response
from extauth.model import Secret
from extauth.store import open_store
from extauth.threads import Threads
from tests.jwts import ALICE, AUDIENCE, ISSUER, SECRET, START, Clock, claims, judging, sign, write_secret
from tests.tokencontract import TokenContract
from tests.tokenscene import Scene, scene_of


class TestJwt(TokenContract):
    """A shared secret."""

    says_domain = False

    @pytest.fixture
    async def backend(self, tmp: Path) -> AsyncIterator[Backend]:
        config = extauth_jwt.Config(issuer=ISSUER, audience=(AUDIENCE,), secret_files=(write_secret(tmp / "secret"),))
        async with judging(cast("BackendModule", extauth_jwt), config, tmp) as judge:
            yield judge.backend

    @pytest.fixture
    def token(self) -> str:
        return sign(claims())


class TestXcauth(TokenContract):
    """Tokens of xcauth and JSXC."""

    @pytest.fixture
    async def backend(self, tmp: Path) -> AsyncIterator[Backend]:
        config = extauth_signed.Config(format="xcauth", secret_files=(write_secret(tmp / "secret", b"01234"),))
        async with judging(cast("BackendModule", extauth_signed), config, tmp) as judge:
            yield judge.backend

    @pytest.fixture
    def token(self) -> str:
        signed = hashlib.sha256(b"01234").digest()[:2] + (START + 60).to_bytes(4)
        mac = hmac.digest(b"01234", b"\0" + signed + str(ALICE).encode(), "sha256")[:16]
        return base64.b64encode(b"\0" + mac + signed).decode().rstrip("=").translate(str.maketrans("OIl", "-$%"))


class TestTalkJs(TokenContract):
    """Signatures of TalkJS."""

    says_domain = False

    @pytest.fixture
    async def backend(self, tmp: Path) -> AsyncIterator[Backend]:
        config = extauth_signed.Config(format="talkjs", secret_files=(write_secret(tmp / "secret"),))
        async with judging(cast("BackendModule", extauth_signed), config, tmp) as judge:
            yield judge.backend

    @pytest.fixture
    def token(self) -> str:
        return hmac.digest(SECRET.encode(), b"alice", "sha256").hex()


class TestOauth(TokenContract):
    """Opaque tokens, which an issuer is asked about."""

    says_domain = False
    opaque = True

    @pytest.fixture
    async def backend(self, tmp: Path) -> AsyncIterator[Backend]:
        class Web:
            async def fetch(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> Response:
                del method, url, headers
                (text,) = parse_qs(body.decode())["token"]
                good = claims(active=True, token_type="Bearer", client_id="xmpp", username="alice")
                return Response(200, {}, json.dumps(good if text == "opaque-Token_1" else {"active": False}).encode())

        url = "https://id.example.org/introspect"
        rules = extauth_oauth.Config(
            introspection_url=url,
            client_id="xmpp",
            client_secret_file="/s",
            issuer=ISSUER,
            audience=(AUDIENCE,),
            prefix="opaque-",
        )
        with Threads("test", 1, 1.0) as threads:
            async with open_store(f"sqlite://{tmp}/state/state.db") as store:
                issuer = Issuer(rules, Secret("fake"), cast("Fetcher", Web()))
                yield OauthBackend(rules, issuer, Context("app", store, threads, Clock()))

    @pytest.fixture
    def token(self) -> str:
        return "opaque-Token_1"


class TestTokens(TokenContract):
    """Access tokens of our own, in Base64 as clients keep them."""

    @pytest.fixture
    async def scene(self, tmp: Path) -> AsyncIterator[Scene]:
        async with scene_of(f"sqlite://{tmp}/state/state.db", Config()) as scene:
            yield scene

    @pytest.fixture
    def backend(self, scene: Scene) -> Backend:
        return scene.backend

    @pytest.fixture
    async def token(self, scene: Scene) -> str:
        return (await scene.issue())["access"]
