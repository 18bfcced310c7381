"""Keys, each with the algorithms that it may verify: what the header of a token says never widens them. Pure.

A key's own `alg` (RFC 7517 section 4.4) leaves one algorithm; its type leaves some; the configuration narrows them.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from jwt import PyJWK, PyJWS
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError
from msgspec import Struct

Jwk = Mapping[str, Any]

ALGORITHMS = (
    *("HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
MOST_KEYS = 64
MOST_TRIED = 8  # of the keys that a token may mean
SHORTEST_SECRET = 16  # bytes
_SHORTEST_RSA = 2048  # bits, RFC 7518 section 3.3

_OF_TYPE = {
    ("oct", None): ("HS256", "HS384", "HS512"),
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}
_PADDED = {"HS256": 32, "HS384": 48, "HS512": 64}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi"})

_jws = PyJWS()


class BadKey(ValueError):  # noqa: N818 - as jid.InvalidName
    """It can't be used, and why."""


class Key(Struct, frozen=True):
    """One key: `kid` ("": it has none) and, by algorithm, the key bound to it."""

    kid: str
    bound: Mapping[str, PyJWK]

    def __repr__(self) -> str:
        return f"Key({self.kid!r}, {', '.join(self.bound)})"


class Keyset(Struct, frozen=True):
    """Keys to choose from."""

    keys: tuple[Key, ...]

    def knows(self, kid: str) -> bool:
        """Tell whether a token with this key id ("": without one) may be signed by one of the keys."""
        return not kid or any(key.kid in ("", kid) for key in self.keys)

    def verifies(self, text: str, kid: str, algorithm: str) -> bool:
        """Tell whether one of the keys has signed a token, by an algorithm that it is bound to."""
        named = [key for key in self.keys if kid and key.kid == kid]
        meant = named or [key for key in self.keys if not kid or not key.kid]
        bound = [key.bound[algorithm] for key in meant if algorithm in key.bound]
        return any(_is_signed(text, key) for key in bound[:MOST_TRIED])


def _is_signed(text: str, key: PyJWK) -> bool:
    try:
        _jws.decode_complete(text, key)
    except (PyJWTError, ValueError):
        return False
    return True


def make(jwk: Jwk, algorithms: Sequence[str] = ()) -> Key:
    """Make a key of a JWK. `algorithms` narrows what it may verify; () does not.

    Raises:
        BadKey: it is none that verifies tokens, or too weak.
    """
    kid, alg = jwk.get("kid", ""), jwk.get("alg")
    if not isinstance(kid, str):
        raise BadKey("a kid that is no text")
    if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
        raise BadKey("not a key for signatures")
    if not _PRIVATE.isdisjoint(jwk):
        raise BadKey("a private key; only its public part belongs here")
    suiting = _OF_TYPE.get((str(jwk.get("kty")), str(jwk["crv"]) if "crv" in jwk else None), ())
    allowed = [name for name in suiting if alg in (None, name) and (not algorithms or name in algorithms)]
    if not allowed:
        raise BadKey("its type and alg leave no algorithm that may be used")
    try:
        bound = {name: PyJWK(dict(_padded(jwk, name)), algorithm=name) for name in allowed}
    except BadKey:
        raise
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadKey("it makes no sense") from error
    size = getattr(next(iter(bound.values())).key, "key_size", _SHORTEST_RSA)
    if jwk["kty"] == "RSA" and size < _SHORTEST_RSA:
        raise BadKey(f"an RSA key of less than {_SHORTEST_RSA} bits")
    return Key(kid, bound)


def _padded(jwk: Jwk, algorithm: str) -> Jwk:
    """Return a secret as long as the library wants it: HMAC itself fills keys up with zeros (RFC 2104 section 2)."""
    if jwk["kty"] != "oct":
        return jwk
    secret = base64.urlsafe_b64decode(jwk["k"] + "=" * (-len(jwk["k"]) % 4))
    if len(secret) < SHORTEST_SECRET:
        raise BadKey(f"a secret of less than {SHORTEST_SECRET} bytes")
    return {**jwk, "k": _base64url(secret.ljust(_PADDED[algorithm], b"\0"))}


def of_secret(secret: bytes) -> Jwk:
    """Return the JWK of a shared secret."""
    return {"kty": "oct", "k": _base64url(secret)}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def read_jwks(found: object) -> list[Jwk]:
    """Return the keys of a JWK Set, or of one JWK.

    Raises:
        BadKey: it is neither.
    """
    if not isinstance(found, dict):
        raise BadKey("no JSON object")
    table = cast("dict[str, Any]", found)
    keys: object = table.get("keys", [table])
    if not isinstance(keys, list):
        raise BadKey("keys is no list")
    return [cast("Jwk", key) for key in cast("list[object]", keys)[:MOST_KEYS] if isinstance(key, dict)]


def read_file(data: bytes) -> list[Jwk]:
    """Return the keys of a file: a JWK, a JWK Set, or a public key or certificate in PEM.

    Raises:
        BadKey: it is none of these.
    """
    if b"-----BEGIN" not in data:
        try:
            return read_jwks(json.loads(data))
        except (ValueError, RecursionError) as error:
            raise BadKey(str(error) if isinstance(error, BadKey) else "neither PEM nor JSON") from None
    try:
        if b"BEGIN CERTIFICATE" in data:
            return [_of_public_key(x509.load_pem_x509_certificate(data).public_key())]
        return [_of_public_key(serialization.load_pem_public_key(data))]
    except (ValueError, TypeError, PyJWTError):
        raise BadKey("no public key or certificate in PEM that verifies tokens") from None


def _of_public_key(key: PublicKeyTypes) -> Jwk:
    for algorithm in (RSAAlgorithm, ECAlgorithm, OKPAlgorithm):
        try:
            return cast("Jwk", algorithm.to_jwk(cast("Any", key), as_dict=True))
        except (PyJWTError, AttributeError):
            continue
    raise BadKey("a key of another type")


def usable(jwks: Iterable[Jwk], algorithms: Sequence[str]) -> Keyset:
    """Return those of an issuer's published keys that can be used; never a secret, which is none once it is published.

    Raises:
        BadKey: none can.
    """
    keys: list[Key] = []
    for jwk in jwks:
        try:
            if jwk.get("kty") != "oct":
                keys.append(make(jwk, algorithms))
        except BadKey:
            continue
    if not keys:
        raise BadKey("no key that can be used")
    return Keyset(tuple(keys))
