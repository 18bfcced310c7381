"""Proofs of a login: what an XMPP server shows later, to ask tokens for the stream that logged in.

A server that relays logins is told of each success, and gets a grant with it: text that only we can have made, which says who
logged in, when, and how. So nobody can ask tokens for somebody who did not log in, and a token does not renew itself for ever.
"""

import base64
import binascii
import hmac
import secrets
from collections.abc import Mapping

from extauth.issuing import Login
from extauth.model import VIA, Identity

FAMILY = "family"  # the attribute that names the family of the token that logged in
ISSUED = "issued"  # the attribute that tells when a token that belongs to no family was issued (Unix seconds)
BY_TOKEN = "token"  # noqa: S105 - a value of VIA
MAC_BYTES = 32


def new_family() -> str:
    """Return an id that nobody has had: 128 random bits."""
    return secrets.token_urlsafe(16)


def login_of(attributes: Mapping[str, str], at: int) -> Login | None:
    """Return the login that an `Accept` with these attributes is; None: it is one that gets no tokens.

    `at` is when the exchange began, Unix time in milliseconds: a password that is changed meanwhile begins no family. A login
    by a token that belongs to no family counts as made when that was issued: one from before a revocation gets no others.
    """
    via = attributes.get(VIA)
    if via is None:
        return Login(at, new_family(), primary=True)
    if via == BY_TOKEN and FAMILY in attributes:
        issued = int(attributes[ISSUED]) * 1000 if ISSUED in attributes else at
        return Login(min(at, issued), attributes[FAMILY], primary=False)
    return None


def seal(key: bytes, identity: Identity, login: Login) -> str:
    """Return the grant: letters, digits, "-" and "_"."""
    fields = (identity.user, identity.domain, str(login.at), login.family, "primary" if login.primary else "token")
    body = "\0".join(fields).encode()
    return base64.urlsafe_b64encode(hmac.digest(key, body, "sha256") + body).decode().rstrip("=")


def unseal(key: bytes, grant: str) -> tuple[Identity, Login] | None:
    """Return whose login it proves, and which; None: it is no grant of ours."""
    try:
        data = base64.b64decode(grant + "=" * (-len(grant) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    mac, body = data[:MAC_BYTES], data[MAC_BYTES:]
    if not hmac.compare_digest(hmac.digest(key, body, "sha256"), mac):
        return None
    user, domain, at, family, how = body.decode().split("\0")
    return Identity(user, domain), Login(int(at), family, primary=how == "primary")
