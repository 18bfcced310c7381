"""What a directory server says: its result codes, entries and controls, apart from how they came."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

SUCCESS, SIZE_LIMIT_EXCEEDED, REFERRAL, NO_SUCH_OBJECT = 0, 4, 10, 32  # RFC 4511 appendix A
_OPERATIONS_ERROR, _BUSY, _UNAVAILABLE, _OTHER = 1, 51, 52, 80
_OUTAGES = (_OPERATIONS_ERROR, _BUSY, _UNAVAILABLE, _OTHER)

# "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data 52e, v3839"; [MS-ERREF] 2.2 in hexadecimal
_SUB_CODE = re.compile(r"\bdata ([0-9a-f]+),", re.IGNORECASE)
POLICY = "1.3.6.1.4.1.42.2.27.8.5.1"  # draft-behera-ldap-password-policy section 6: both of the request and the response
_EXPIRED = "2.16.840.1.113730.3.4.4"  # of Netscape's heirs (draft-vchu-ldap-pwd-policy): expired, or has to be changed first
_ERROR_TAG = 0x81


class Outcome(NamedTuple):
    """What a server said to an operation.

    `code` and `name` are its result code, `message` is its diagnostic message, `policy` the error of the password policy's
    control, `expired` whether it sent Netscape's control, `referrals` the URLs of the servers to ask instead.
    """

    code: int
    name: str
    message: str = ""
    policy: int | None = None
    expired: bool = False
    referrals: tuple[str, ...] = ()

    @property
    def sub_code(self) -> str | None:
        """Active Directory's reason of a failed bind, hexadecimal in lower case; None if it gives none."""
        found = _SUB_CODE.search(self.message)
        return found[1].lower() if found else None

    @property
    def is_outage(self) -> bool:
        """Whether this server can't tell at present, and another one may."""
        return self.code in _OUTAGES


class Entry(NamedTuple):
    """An entry of the directory. Names of attributes are in lower case; values that are no text are left out."""

    dn: str
    attributes: Mapping[str, tuple[str, ...]]


class Answered(NamedTuple):
    """The answer to a search. Each of `references` is the URLs of one place where the search goes on."""

    outcome: Outcome
    entries: list[Entry]
    references: list[tuple[str, ...]]


def outcome(result: Mapping[str, Any]) -> Outcome:
    """Return the outcome out of a result as ldap3 gives it."""
    controls: Mapping[str, Any] = result.get("controls") or {}
    policy = parse_policy(controls[POLICY]["value"] or b"") if POLICY in controls else None
    referrals = tuple(result.get("referrals") or ())
    return Outcome(result["result"], result["description"], result["message"], policy, _EXPIRED in controls, referrals)


def parse_policy(value: bytes) -> int | None:
    """Return the error of a PasswordPolicyResponseValue, None if it holds none or is none.

    It is a SEQUENCE of an optional warning [0] and an optional error [1], each a few octets.
    """
    body = value[2:]
    while len(body) > 2:  # noqa: PLR2004 - tag, length, content
        tag, length = body[0], body[1]
        if tag == _ERROR_TAG:
            return int.from_bytes(body[2 : 2 + length])
        body = body[2 + length :]
    return None
