"""The lines of the Dovecot authentication protocol: fields separated by TAB, ids, base64, escapes. No dialogue, no I/O."""

import base64
import binascii

from extauth.errors import ProtocolError
from extauth.sasl.exchange import Failure

MAX_ID = (1 << 32) - 1

_CODES = {
    "account-disabled": "user_disabled",
    "credentials-expired": "pass_expired",
    "incorrect-encoding": "invalid_base64",
}

_UNESCAPE = {b"0": b"\0", b"1": b"\1", b"t": b"\t", b"r": b"\r", b"n": b"\n"}


def failure_line(number: int, failure: Failure) -> bytes:
    """Return the line for a failure: both in the words of old peers and of new ones."""
    if failure.temporary:
        words = "temp\tcode=temp_fail\treason=Temporary authentication failure"
    elif failure.condition == "invalid-authzid":
        words = "authz\tcode=authz_fail\treason=Authentication failed"
    else:
        code = _CODES.get(failure.condition)
        words = (f"code={code}\t" if code else "") + "reason=Authentication failed"
    return f"FAIL\t{number}\t{words}\n".encode()


def binary(parameters: dict[str, str], prefix: str) -> dict[str, bytes]:
    """Return the parameters whose name begins with `prefix`, by the rest of it, decoded from base64.

    Raises:
        ValueError: one is no base64.
    """
    found = [name for name in parameters if name.startswith(prefix)]
    return {name.removeprefix(prefix): base64.b64decode(parameters[name], validate=True) for name in found}


def names(parameters: dict[str, str], key: str) -> tuple[str, ...]:
    """Return a parameter's value as a list: names separated by commas."""
    value = parameters.get(key)
    return tuple(filter(None, value.split(","))) if value else ()


def parse_id(field: bytes) -> int:
    """Return the id in a field.

    Raises:
        ProtocolError: it is none.
    """
    if not field.isdigit() or len(field) > len(str(MAX_ID)) or not 0 < int(field) <= MAX_ID:
        raise ProtocolError("not an id")
    return int(field)


def decode(field: bytes) -> bytes | None:
    """Decode base64 strictly; "=" stands for empty data. None: it is no base64."""
    try:
        return b"" if field == b"=" else base64.b64decode(field, validate=True)
    except binascii.Error:
        return None


def encode(data: bytes) -> str:
    """Encode in base64; "=" stands for empty data."""
    return base64.b64encode(data).decode() or "="


def escape(value: str) -> str:
    """Escape a value as Dovecot does (lib/strescape.c)."""
    return value.translate({0: "\x010", 1: "\x011", 9: "\x01t", 13: "\x01r", 10: "\x01n"})


def unescape(value: bytes) -> bytes:
    """Undo `escape`."""
    if b"\1" not in value:
        return value
    first, *rest = value.split(b"\1")
    return first + b"".join(_UNESCAPE.get(part[:1], part[:1]) + part[1:] for part in rest)
