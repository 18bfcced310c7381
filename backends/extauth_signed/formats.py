"""Signed tokens that are no JWT. Pure.

xcauth / JSXC (xcauth, xclib/auth.py; Nextcloud's JSXC, lib/TimeLimitedToken.php):

    token  = base64(0x00 MAC[:16] KEYID EXPIRY) without its padding, and with "-", "$", "%" for "O", "I", "l"
    MAC    = HMAC-SHA-256(secret, 0x00 KEYID EXPIRY user@domain)
    KEYID  = the first 2 bytes of SHA-256(secret);  EXPIRY = Unix time, 4 bytes, big-endian

TalkJS (identity verification by signature): hex(HMAC-SHA-256(secret, user id)).
"""

import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from hmac import compare_digest
from typing import Protocol

from extauth import jid
from extauth.mac import SHA256, mac
from extauth.model import Identity, Reason

_XCAUTH = re.compile(r"[A-HJ-NP-Za-km-z0-9+/$%\-OIl]{31}").fullmatch
_SIGNATURE = re.compile(r"[0-9A-Fa-f]{64}").fullmatch
_MAC = slice(1, 17)
_SIGNED = slice(17, 23)  # key id and expiry
_KEY_ID = slice(17, 19)
_EXPIRY = slice(19, 23)


class Format(Protocol):
    """One kind of token."""

    def judge(self, text: str, identity: Identity, now: float) -> Reason | None:
        """Return `OK`, or why it is refused; None: no token by the look of it. `now` is Unix time in seconds."""
        ...


class Xcauth:
    """The time-limited token of xcauth and JSXC. Its marks are the length, the version, and the id of a key that we have."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._secrets: Mapping[bytes, bytes] = {hashlib.sha256(secret).digest()[:2]: secret for secret in secrets}

    def judge(self, text: str, identity: Identity, now: float) -> Reason | None:
        """See `Format`."""
        if not _XCAUTH(text):
            return None
        try:
            # Letters that look like digits are not sent.
            readable = text.replace("-", "O").replace("$", "I").replace("%", "l")
            token = binascii.a2b_base64(f"{readable}=", strict_mode=True)
        except binascii.Error:
            return None
        secret = self._secrets.get(token[_KEY_ID])
        if token[0] or secret is None:
            return None
        expected = mac(secret, b"\0" + token[_SIGNED] + str(identity).encode(), SHA256)
        if not compare_digest(expected[:16], token[_MAC]):
            return Reason.BAD_TOKEN
        return Reason.OK if now <= int.from_bytes(token[_EXPIRY]) else Reason.EXPIRED_TOKEN


class TalkJs:
    """TalkJS's signature of a user id. Nothing marks it, so that what does not verify may be a password; it has no expiry."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._secrets = tuple(secrets)

    def judge(self, text: str, identity: Identity, now: float) -> Reason | None:  # noqa: ARG002 - it has no expiry
        """See `Format`."""
        if not _SIGNATURE(text):
            return None
        signature, signed = bytes.fromhex(text), jid.unescape(identity.user).encode()
        fits = any(compare_digest(mac(secret, signed, SHA256), signature) for secret in self._secrets)
        return Reason.OK if fits else None
