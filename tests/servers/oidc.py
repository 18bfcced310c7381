"""An OpenID provider: the package oidc-provider in Node.js (tests/node/oidc.mjs), by https on a port of 127.0.0.1."""

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.certificates import Certificates
from tests.servers.process import free_port
from tools import prepare

_SCRIPT = Path(__file__).parent.parent / "node" / "oidc.mjs"

CLIENT = "xmpp"
SECRET = "fake secret of a client"
RESOURCE = "urn:example:xmpp"  # tokens for it are JWTs, others opaque


def signing_key(kid: str) -> dict[str, Any]:
    """Make a key for the provider, private part included."""
    key = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048), as_dict=True)
    del key["key_ops"]  # of the private key, which the provider would publish as those of the public one
    return {**key, "kid": kid, "alg": "RS256", "use": "sig"}


class OpenIdProvider:
    """Serves within a `with`; issues tokens as if their owner had logged in there (blocks)."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates
        self.port = free_port()
        self.issuer = f"https://localhost:{self.port}"

    def __enter__(self) -> Self:
        node = prepare.find_node()
        assert node is not None
        options = {
            "port": self.port,
            "certificate": str(self._certificates.server_certificate),
            "key": str(self._certificates.server_key),
            "client": CLIENT,
            "secret": SECRET,
            "resource": RESOURCE,
            "keys": [signing_key("first")],
        }
        command = [str(node), str(_SCRIPT), json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)

    def token(self, kind: str, user: str) -> str:
        """Issue a token: "jwt", "opaque", "refresh" or "id"."""
        found = self._order({"kind": kind, "user": user})
        assert isinstance(found, str), found
        return found

    def rotate(self, kid: str) -> None:
        """Take a new signing key, and forget the one before."""
        assert self._order({"keys": [signing_key(kid)]}) == "ready"

    def _order(self, order: dict[str, Any]) -> object:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: object = json.loads(self._process.stdout.readline())
        return answer


def key_id(token: str) -> str:
    """Return which key a JWT names."""
    return str(jwt.get_unverified_header(token)["kid"])
