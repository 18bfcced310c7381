"""The only place that parses or prepares names.

One canonical name keys everything: the cache, the limiter, tokens, the audit line and every backend query. Local parts are
prepared by Nodeprep (RFC 3920 Appendix A, Unicode 3.2), because ejabberd and Prosody send them so; a code point that Unicode
3.2 does not assign takes UsernameCaseMapped (RFC 8265 section 3.3) instead. Domains are compared as lower-case A-labels.
"""

import re
import stringprep
import unicodedata
from functools import lru_cache

import idna
from precis_i18n import get_profile

from extauth.model import Identity

CHARACTERS = 1 << 16  # whose properties are remembered: nearly all that Unicode 3.2 assigns
MAX_BYTES = 1023  # RFC 7622 section 3.1: of each part, in UTF-8

_FAST_USER = re.compile(r"[a-z0-9._\-+=~!#$%()*,;?\[\\\]^`{|}]{1,255}").fullmatch
_FAST_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?)(?:\.[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?)*").fullmatch
_FORBIDDEN_ASCII = frozenset("\"&'/:<>@ ")  # RFC 3920 A.5, and RFC 7622 section 3.3.1
_PROHIBITED = (
    stringprep.in_table_c11,
    stringprep.in_table_c12,
    stringprep.in_table_c21,
    stringprep.in_table_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)
_ESCAPES = {c: f"\\{ord(c):02x}" for c in " \"&'/:<>@\\"}  # XEP-0106 section 3.2
_ESCAPED = re.compile(r"\\(20|22|26|27|2f|3a|3c|3e|40|5c)")
_TO_ESCAPE = re.compile(r"""[ "&'/:<>@]|\\(?=20|22|26|27|2f|3a|3c|3e|40|5c)""")
_username_case_mapped = get_profile("UsernameCaseMapped")


class InvalidName(ValueError):  # noqa: N818 - "no" as a value would hide it from callers that configure names
    """The text is no valid local part or domain."""


@lru_cache(maxsize=4096)
def identity(user: str, domain: str) -> Identity:
    """Return the canonical identity of a local part and a domain as a server sends them.

    Raises:
        InvalidName: one of them can't be prepared (RFC 7622 section 3).
    """
    return Identity(local_part(user), domain_part(domain))


def parse(text: str) -> Identity:
    """Return the canonical identity of a bare JID as a person types it.

    Raises:
        InvalidName: `text` is not local@domain.
    """
    user, at, domain = text.partition("@")
    if not at:
        raise InvalidName("a JID is needed: user@domain")
    return identity(user, domain)


def local_part(text: str) -> str:
    """Prepare a local part.

    Raises:
        InvalidName: it is empty, too long, holds a forbidden character or does not stay the same when prepared again.
    """
    if _FAST_USER(text):
        return text
    return _prepare(text)


def _prepare(text: str) -> str:
    try:
        if len(text) > MAX_BYTES or len(text.encode()) > MAX_BYTES:
            raise InvalidName("a local part of more than 1023 bytes")
        prepared = _once(text)
        if _once(prepared) != prepared:
            raise InvalidName("a local part that changes when it is prepared again")
        size = len(prepared.encode())
    except InvalidName:
        raise
    except ValueError as error:  # also UnicodeEncodeError: precis-i18n raises it, and surrogates do
        raise InvalidName("a local part that no profile allows") from error
    if size > MAX_BYTES:
        raise InvalidName("a local part of more than 1023 bytes")
    return prepared


def _once(text: str) -> str:
    if any(stringprep.in_table_a1(c) for c in text):
        prepared = str(_username_case_mapped.enforce(text))
    else:
        prepared = _nodeprep(text)
    if not prepared:
        raise InvalidName("an empty local part")
    if not _FORBIDDEN_ASCII.isdisjoint(prepared):
        raise InvalidName("a local part with one of \"&'/:<>@ or a space")
    return prepared


def _nodeprep(text: str) -> str:
    mapped = "".join(_fold(c) for c in text if not stringprep.in_table_b1(c))
    mapped = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    for c in mapped:
        if _is_prohibited(c):
            raise InvalidName(f"a local part with U+{ord(c):04X}")
    characters = set(mapped)
    # RFC 3454 section 6: right-to-left text begins and ends with such a character and holds no left-to-right one.
    if any(map(stringprep.in_table_d1, characters)) and not (
        stringprep.in_table_d1(mapped[0])
        and stringprep.in_table_d1(mapped[-1])
        and not any(map(stringprep.in_table_d2, characters))
    ):
        raise InvalidName("a local part that mixes writing directions")
    return mapped


# The tables take 10 us a character: long names would keep everybody waiting.
@lru_cache(maxsize=CHARACTERS)
def _is_prohibited(c: str) -> bool:
    return any(prohibited(c) for prohibited in _PROHIBITED)


@lru_cache(maxsize=CHARACTERS)
def _fold(c: str) -> str:
    """Map by RFC 3454 table B.2. Python's own takes lower-case letters from today's Unicode, where 3.2 has none."""
    folded = stringprep.map_table_b2(c)
    return c if any(stringprep.in_table_a1(f) for f in folded) else folded


def escape(text: str) -> str:
    """Return a text as a local part can hold it (XEP-0106 section 4.2); it still has to be prepared.

    Raises:
        InvalidName: it begins or ends with a space.
    """
    if text.strip(" ") != text:
        raise InvalidName("a space at an end of what a local part stands for")
    return _TO_ESCAPE.sub(lambda found: _ESCAPES[found[0]], text)


def unescape(user: str) -> str:
    """Return the text that a local part stands for (XEP-0106 section 4.3)."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), user)


@lru_cache(maxsize=1024)
def domain_part(text: str) -> str:
    """Prepare a domain: lower-case A-labels, no trailing dot.

    Raises:
        InvalidName: it is no domain name (RFC 5890), nor an IPv4 address.
    """
    if len(text) <= MAX_BYTES and _FAST_DOMAIN(text):
        return text
    return _prepare_domain(text)


def _prepare_domain(text: str) -> str:
    if len(text) > MAX_BYTES:
        raise InvalidName("a domain of more than 1023 bytes")
    lowered = text.lower().removesuffix(".")
    if _FAST_DOMAIN(lowered):
        return lowered
    try:
        return idna.encode(text, uts46=True).decode("ascii").removesuffix(".")  # UTS 46 knows other dots, too
    except (idna.IDNAError, UnicodeError) as error:
        raise InvalidName("not a domain name") from error


def is_name(text: str, identity: Identity) -> bool:
    """Tell whether a directory or table means this user by `text`: the name, or user@domain, in any writing of it.

    The name may be one that a backend is asked by in place of a local part (`names`), such as a mail address.
    """
    if text.casefold() == identity.user.casefold():
        return True
    user, at, domain = text.partition("@")
    try:
        return local_part(user) == identity.user and (not at or domain_part(domain) == identity.domain)
    except InvalidName:
        return False
