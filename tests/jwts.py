"""JSON Web Tokens for the tests: keys of every kind, tokens signed by them, and a backend's surroundings."""

import base64
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from extauth.backend import Backend, BackendModule, Context
from extauth.model import Accept, CheckPassword, CheckToken, Identity, Origin, Reason, Reject, Request, Secret
from extauth.soon import settle
from extauth.store import Store, open_store
from extauth.threads import Threads

START = 1_800_000_000
ISSUER = "https://id.example.org"
AUDIENCE = "xmpp.example.com"
SECRET = "a fake secret of the tests, of 64 bytes so that it fits any HMAC"
ALICE = Identity("alice", "example.com")
BOB = Identity("bob", "example.com")
NOBODY = Identity("", "example.com")
BEARER = Origin("front", mechanism="OAUTHBEARER")
PLAIN = Origin("front", mechanism="PLAIN")


class Clock:
    """Unix time, as a test sets it."""

    def __init__(self, time: float = START) -> None:
        self.time = float(time)

    def __call__(self) -> float:
        return self.time


@cache
def private_key(kind: str) -> Any:  # noqa: ANN401 - of any kind
    """Return a key made for this run; the same for the same `kind`, which may have a number: "RSA", "RSA 2", "P-256" ..."""
    name = kind.partition(" ")[0]
    if name == "RSA":
        return rsa.generate_private_key(65537, 2048)
    if name == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    curves: Mapping[str, Any] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
    return ec.generate_private_key(curves[name]())


def public_pem(kind: str) -> bytes:
    key: bytes = (
        private_key(kind).public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return key


def jwk(kind: str, **members: str) -> dict[str, Any]:
    key = private_key(kind).public_key()
    algorithm: Any = {"R": RSAAlgorithm, "P": ECAlgorithm, "E": OKPAlgorithm}[kind[0]]
    return {**algorithm.to_jwk(key, as_dict=True), **members}


def claims(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the claims of a good token for alice; None takes one out."""
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": START - 10, "exp": START + 600}
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}


def sign(
    content: Mapping[str, Any],
    key: Any = SECRET,  # noqa: ANN401
    algorithm: str = "HS256",
    header: Mapping[str, Any] | None = None,
) -> str:
    return jwt.encode(dict(content), key, algorithm, headers=dict(header or {}))


def part(content: object) -> str:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def write_secret(path: Path, text: str | bytes = SECRET) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o600)
    return str(path)


class Judge:
    """A backend for tokens, and what it says of them."""

    def __init__(self, backend: Backend, store: Store, clock: Clock) -> None:
        self.backend = backend
        self.store = store
        self.clock = clock

    async def ask(self, request: Request) -> object:
        return await settle(self.backend.answer(request))

    async def token(self, text: str, identity: Identity = NOBODY) -> object:
        """Present a bearer token: whom it lets in, why it is refused, or None."""
        return self._said(await self.ask(CheckToken(identity, BEARER, Secret(text))))

    async def password(self, text: str, identity: Identity = ALICE) -> object:
        """Present it in a password's place."""
        return self._said(await self.ask(CheckPassword(identity, PLAIN, Secret(text))))

    @staticmethod
    def _said(answer: object) -> Identity | Reason | None:
        if isinstance(answer, Accept):
            return answer.identity
        assert answer is None or isinstance(answer, Reject), answer
        return None if answer is None else answer.reason


@asynccontextmanager
async def judging(module: BackendModule, config: object, folder: Path, clock: Clock | None = None) -> AsyncGenerator[Judge]:
    """Open a backend on a store in `folder`."""
    now = clock or Clock()
    with Threads("test", 1, 1.0) as threads:
        async with open_store(f"sqlite://{folder}/state/state.db") as store:
            async with module.open(config, Context("app", store, threads, now)) as backend:
                yield Judge(backend, store, now)
