"""Relogin keys: short-lived refresh tokens of web pages, in two forms of text, each good for one relogin (as Resgate's are).

    opaque    "erk-" FAMILY "-" NUMBER "-" base64url(HMAC-SHA-256(key, "relogin" NUL domain NUL FAMILY NUL NUMBER))
    jwt       a JSON Web Token of type relogin+jwt, signed by HS256 (RFC 7519)

Neither holds a secret that would have to be stored, and what is still good is told by the state store alone: the `exp` of a JWT
is there for the page, to relogin in time. So also a key that is long past it tells that two have the session's keys.
"""

import base64
import hmac
import re
from collections.abc import Iterable

import jwt
from msgspec import Struct

from extauth.model import Identity, Secret
from extauth.tokens import jose

RELOGIN = "relogin"  # the kind; also a value of VIA
TYPE = "relogin+jwt"

_FORM = re.compile(r"erk-([A-Za-z0-9_-]{22})-([0-9]{1,15})-[A-Za-z0-9_-]{43}", re.ASCII).fullmatch


class Key(Struct, frozen=True):
    """One key of a session: which one. `ends` is when the session ends if it is not used (Unix seconds)."""

    owner: Identity
    family: str
    number: int
    ends: int


def opaque(key: Key, secret: bytes) -> Secret:
    """Return its text that tells nothing."""
    return Secret(_opaque(key.owner.domain, key.family, key.number, secret))


def signed(key: Key, secret: bytes) -> Secret:
    """Return its text as a JWT, which tells what `Key` holds."""
    claims = {"sub": str(key.owner), "sid": key.family, "seq": key.number, "exp": key.ends}
    return Secret(jwt.encode(claims, secret, "HS256", {"typ": TYPE}))


FORMS = {"opaque": opaque, "jwt": signed}


class Claim(Struct, frozen=True):
    """A text that looks like a key, and which it claims to be."""

    text: Secret
    family: str
    number: int

    def is_by(self, domain: str, secrets: Iterable[bytes]) -> bool:
        """Tell whether it was made for the domain by one of these secrets."""
        check = _is_opaque_by if _FORM(self.text.reveal()) else _is_jwt_by
        return any(check(self, domain, secret) for secret in secrets)


def recognise(text: str) -> Claim | None:
    """Read what is a key by the look of it; None: it is none. No password looks so by chance."""
    found = _FORM(text)
    if found is not None:
        return Claim(Secret(text), found[1], int(found[2]))
    header = jose.header(text)
    if header is None or header.get("typ") != TYPE:
        return None
    claims = jose.payload(text) or {}
    family, number = claims.get("sid"), claims.get("seq")
    if isinstance(family, str) and isinstance(number, int) and 0 < number < 1 << 53:
        return Claim(Secret(text), family, number)
    return Claim(Secret(text), "", 0)


def _opaque(domain: str, family: str, number: int, secret: bytes) -> str:
    mac = hmac.digest(secret, f"{RELOGIN}\0{domain}\0{family}\0{number}".encode(), "sha256")
    return f"erk-{family}-{number}-{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def _is_opaque_by(claim: Claim, domain: str, secret: bytes) -> bool:
    return hmac.compare_digest(_opaque(domain, claim.family, claim.number, secret), claim.text.reveal())


def _is_jwt_by(claim: Claim, domain: str, secret: bytes) -> bool:
    try:
        claims: dict[str, object] = jwt.decode(claim.text.reveal(), secret, ["HS256"], {"verify_exp": False})
    except jwt.InvalidTokenError:
        return False
    return str(claims.get("sub")).endswith(f"@{domain}")
