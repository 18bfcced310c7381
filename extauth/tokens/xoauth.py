"""The tokens of X-OAUTH in the bytes of MongooseIM's token reconnection (src/mod_auth_token.erl).

    body  = KIND NUL JID NUL EXPIRY [NUL FIELD]...          token = body NUL lower_hex(HMAC-SHA-384(key, body))

EXPIRY counts the seconds from the year 0. On the wire, and in a password's place, a token is base64 of that.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from hmac import compare_digest

from msgspec import Struct

from extauth import jid
from extauth.mac import SHA384, mac
from extauth.model import NOTHING, Identity
from extauth.tokens.kinds import KINDS

YEAR_ZERO = 62_167_219_200  # seconds from the year 0 to 1970: calendar:datetime_to_gregorian_seconds/1

MAC_BYTES = 48

_is_number = re.compile(r"[0-9]{1,15}").fullmatch  # what a 64-bit integer holds, with room to reckon


class Token(Struct, frozen=True):
    """What a token says. `jid` is bare or full, `expires` Unix time in seconds, `fields` are by name, as its kind has them."""

    kind: str
    jid: str
    expires: int
    fields: Mapping[str, str]

    @property
    def owner(self) -> Identity:
        """Whose it is.

        Raises:
            InvalidName: it names nobody.
        """
        return jid.parse(self.jid.partition("/")[0])

    @property
    def family(self) -> str:
        """The resource part of its JID: the family, in a token of ours; anything, in one of MongooseIM's."""
        return self.jid.partition("/")[2]

    @property
    def number(self) -> int:
        """The sequence number of a refresh token."""
        return int(self.fields["seq"])


class Sealed(Struct, frozen=True):
    """A token that was read and not yet verified."""

    token: Token
    body: bytes
    mac: bytes

    def is_by(self, keys: Iterable[bytes]) -> bool:
        """Tell whether one of these keys has made it."""
        for key in keys:
            expected = mac(key, self.body, SHA384)
            if compare_digest(expected, self.mac):
                return True
        return False

    def __repr__(self) -> str:
        return f"Sealed({self.token.kind!r}, ...)"


def seal(token: Token, key: bytes) -> str:
    """Return the token's text, which holds NULs."""
    expires = str(token.expires + YEAR_ZERO)
    body = "\0".join([token.kind, token.jid, expires, *(token.fields[name] for name in KINDS[token.kind].fields)])
    return f"{body}\0{mac(key, body.encode(), SHA384).hex()}"


def encode(text: str) -> str:
    """Return a token's text as clients store and send it."""
    return base64.b64encode(text.encode()).decode()


# What the base64 of each kind begins with: as far as it does not depend on what follows.
_BEGINNINGS = tuple(base64.b64encode(f"{kind}\0".encode()[: (len(kind) + 1) // 3 * 3]).decode() for kind in KINDS)
_WORDS = tuple(f"{kind}\0" for kind in KINDS)


def recognise(credential: str) -> str | None:
    """Return the text of what is a token by the look of it, as it stands or in base64; None: it is none of ours.

    A type word and a NUL: no password begins so, and no other token.
    """
    if credential.startswith(_WORDS):
        return credential
    if not credential.startswith(_BEGINNINGS):
        return None
    try:
        text = binascii.a2b_base64(credential, strict_mode=True).decode()
    except ValueError:  # neither ASCII, nor base64, nor UTF-8: each error is one
        return None
    return text if text.startswith(_WORDS) else None


def read(text: str) -> Sealed | None:
    """Read a token's text; None if it breaks the grammar."""
    try:
        word, *values, given = text.split("\0")
        code = binascii.unhexlify(given)
    except ValueError:  # there is no NUL, or no hexadecimal number after the last
        return None
    kind = KINDS.get(word)
    if kind is None or len(values) != 2 + len(kind.fields) or not _is_number(values[1]) or len(code) != MAC_BYTES:
        return None
    fields = dict(zip(kind.fields, values[2:], strict=True)) if kind.fields else NOTHING
    if "seq" in fields and not _is_number(fields["seq"]):
        return None
    body = text[: -1 - len(given)].encode()
    return Sealed(Token(word, values[0], int(values[1]) - YEAR_ZERO, fields), body, code)
