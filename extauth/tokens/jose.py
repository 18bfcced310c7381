"""Reading JSON Web Tokens that others issue (RFC 7515, RFC 7519), before and after they are verified. Pure."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, cast

from msgspec import Struct

from extauth import jid
from extauth.model import Identity, Reason

Claims = Mapping[str, Any]

LONGEST = 16_384  # characters of a token
LARGEST_SKEW = 60  # seconds that clocks may differ by
_COMPACT = re.compile(r"[A-Za-z0-9_\-]++(?:\.[A-Za-z0-9_\-]*+){2,4}").fullmatch  # also an encrypted one, which is refused

# What only ID tokens hold (OpenID Connect Core sections 2 and 3.3.2.11).
_OF_ID_TOKENS = ("nonce", "at_hash", "c_hash", "s_hash")
# By which claims issuers tell what a token is for, and what they then say of access tokens.
_PURPOSE = ("typ", "token_use", "token_type")
_ACCESS = frozenset({"bearer", "access", "access_token", "at+jwt"})
_OTHER = frozenset({"id", "id_token", "refresh", "refresh_token", "offline", "logout", "logout+jwt"})


def header(text: str) -> Claims | None:
    """Return the header of what is a JWT by the look of it; None: it is none, and may be a password."""
    if not _COMPACT(text):
        return None
    found = _object(text.partition(".")[0])
    return found if found is not None and isinstance(found.get("alg"), str) else None


def payload(text: str) -> Claims | None:
    """Return what a token claims, which is not verified by this; None: it claims nothing that can be read."""
    return _object(text.split(".")[1]) if len(text) <= LONGEST else None


def _object(part: str) -> Claims | None:
    try:
        found: object = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return cast("Claims", found) if isinstance(found, dict) else None


def member(claims: Claims, path: str) -> object:
    """Return the claim of this name, or of nested objects ("realm.name"); None if there is none."""
    if path in claims:
        return claims[path]
    value: object = claims
    for name in path.split("."):
        value = cast("Mapping[str, object]", value).get(name) if isinstance(value, Mapping) else None
    return value


class Rules(Struct, frozen=True):
    """What the claims of an access token must say, each as the configuration has it; "", () and 0: nothing about that.

    `require` are texts of the form claim=value; `skew` and `max_age` seconds; `expires`: whether there has to be an `exp`;
    `evident`: whether something has to show that it is an access token, for issuers that also give ID tokens.
    """

    issuer: str = ""
    audience: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    skew: int = LARGEST_SKEW
    max_age: int = 0
    expires: bool = True
    evident: bool = False

    def problems(self) -> list[str]:
        """Return what is wrong with them."""
        found = [f"require: {text!r}: must be of the form claim=value" for text in self.require if "=" not in text]
        if not 0 <= self.skew <= LARGEST_SKEW:
            found.append(f"skew: must be 0 to {LARGEST_SKEW}")
        if self.max_age < 0:
            found.append("max_age: must not be negative")
        return found

    def judge(self, claims: Claims, now: float, typ: str = "") -> Reason | None:
        """Return why verified claims are refused, if they are. `typ` is that of the token's header, in lower case."""
        if self.issuer and claims.get("iss") != self.issuer:
            return Reason.FOREIGN_TOKEN
        if self.audience and not any(audience in self.audience for audience in _texts(claims.get("aud"))):
            return Reason.WRONG_AUDIENCE
        if not self._is_access(claims, typ) or not all(_says(claims, text) for text in self.require):
            return Reason.WRONG_TOKEN
        return self._judge_times(claims, now)

    def _is_access(self, claims: Claims, typ: str) -> bool:
        """Tell whether claims are of an access token for anybody who bears it, as far as can be told (RFC 9068, RFC 7800)."""
        if "cnf" in claims or "events" in claims:  # of one who has to prove a key; of a logout or other event
            return False
        said = {value.lower() for name in _PURPOSE if isinstance(value := claims.get(name), str)}
        if not said.isdisjoint(_OTHER):
            return False
        if typ == "at+jwt" or not said.isdisjoint(_ACCESS):
            return True
        return not any(name in claims for name in _OF_ID_TOKENS) and (not self.evident or "scope" in claims or "scp" in claims)

    def _judge_times(self, claims: Claims, now: float) -> Reason | None:
        expires, begins, issued = (_time(claims.get(name)) for name in ("exp", "nbf", "iat"))
        if expires is None and (self.expires or "exp" in claims):
            return Reason.BAD_TOKEN
        if ("nbf" in claims and begins is None) or ("iat" in claims and issued is None):
            return Reason.BAD_TOKEN
        if expires is not None and now >= expires:
            return Reason.EXPIRED_TOKEN
        if max(begins or 0, issued or 0) > now + self.skew:
            return Reason.WRONG_TOKEN
        # Without the time of issue, what is left of its life stands for its age.
        age = now - issued if issued is not None else (expires or now) - now
        return Reason.EXPIRED_TOKEN if self.max_age and age > self.max_age else None


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [item for item in cast("list[object]", value) if isinstance(item, str)] if isinstance(value, list) else []


def _says(claims: Claims, text: str) -> bool:
    name, _, wanted = text.partition("=")
    value = member(claims, name)
    if isinstance(value, str):
        return value == wanted or wanted in value.split(" ")  # as `scope` is
    return wanted in _texts(value)


def _time(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 2**53 else None  # neither infinite nor NaN


_PLACE = re.compile(r"\{([^{}]*)\}")


class Naming(Struct, frozen=True):
    """How claims name an account: `template` holds claims in braces ("{given}.{family}"), which are put in as they are.

    `escape`: what comes of it is a whole local part, to be escaped by XEP-0106; else it may be a JID.
    """

    template: str
    escape: bool

    def problem(self) -> str:
        """Return what is wrong with the template, if something is."""
        rest = _PLACE.sub("", self.template)
        if "{" in rest or "}" in rest or not _PLACE.search(self.template) or "{}" in self.template:
            return "names claims in braces, such as {preferred_username}"
        return ""

    def find(self, claims: Claims, asked: Identity) -> Identity | Reason:
        """Return whom the claims name, who must be the one asked for, or where nobody was named, of the domain; or why not."""
        found = self._identity(claims, asked.domain)
        if found is None:
            return Reason.BAD_NAME
        return found if found.domain == asked.domain and asked.user in ("", found.user) else Reason.WRONG_TOKEN

    def _identity(self, claims: Claims, domain: str) -> Identity | None:
        values = [_text(member(claims, name)) for name in _PLACE.findall(self.template)]
        if not all(values):
            return None
        left = iter(values)
        text = _PLACE.sub(lambda _: next(left), self.template)
        try:
            if self.escape:
                return Identity(jid.local_part(jid.escape(text)), domain)
            return jid.parse(text.partition("/")[0]) if "@" in text else Identity(jid.local_part(text), domain)
        except jid.InvalidName:
            return None


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else ""
