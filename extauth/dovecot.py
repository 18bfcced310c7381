"""The lines of the Dovecot authentication protocol: fields separated by TAB, ids, base64, escapes. No dialogue, no I/O."""

from binascii import a2b_base64, b2a_base64

from extauth.errors import ProtocolError
from extauth.model import Tokens, Unavailable, Verdict
from extauth.sasl.exchange import Failure

MAX_ID = (1 << 32) - 1
_ID_DIGITS = len(str(MAX_ID))

_CODES = {
    "account-disabled": "user_disabled",
    "credentials-expired": "pass_expired",
    "incorrect-encoding": "invalid_base64",
}

_UNESCAPE = {"0": "\0", "1": "\1", "t": "\t", "r": "\r", "n": "\n"}


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


def tokens_line(number: int, verdict: Verdict) -> bytes:
    """Return the line that answers a request for tokens."""
    if not isinstance(verdict, Tokens):
        words = "temp\tcode=temp_fail\treason=Temporary failure" if isinstance(verdict, Unavailable) else "reason=Refused"
        return f"FAIL\t{number}\t{words}\n".encode()
    fields = {**verdict.attributes, **{kind: token.reveal() for kind, token in verdict.tokens.items()}}
    return "\t".join([f"TOKENS\t{number}", *(f"{key}={escape(value)}" for key, value in fields.items())]).encode() + b"\n"


def parse(fields: list[str]) -> dict[str, str]:
    """Return the parameters in fields by name; one without a value has the value ""."""
    found: dict[str, str] = {}
    for field in fields:
        name, _, value = field.partition("=")
        found[name] = unescape(value) if "\1" in value else value
    return found


def binary(parameters: dict[str, str], prefix: str) -> dict[str, bytes]:
    """Return the parameters whose name begins with `prefix`, by the rest of it, decoded from base64; not those that are empty.

    Raises:
        ValueError: one is no base64.
    """
    found = [name for name, value in parameters.items() if value and name.startswith(prefix)]
    return {name.removeprefix(prefix): a2b_base64(parameters[name], strict_mode=True) for name in found}


def names(parameters: dict[str, str], key: str) -> tuple[str, ...]:
    """Return a parameter's value as a list: names separated by commas."""
    value = parameters.get(key)
    return tuple(filter(None, value.split(","))) if value else ()


def parse_id(field: str) -> int:
    """Return the id in a field.

    Raises:
        ProtocolError: it is none.
    """
    if not (field.isascii() and field.isdigit()) or len(field) > _ID_DIGITS or not 0 < (number := int(field)) <= MAX_ID:
        raise ProtocolError("not an id")
    return number


def decode(field: str) -> bytes | None:
    """Decode base64 strictly; "=" stands for empty data. None: it is no base64."""
    try:
        return b"" if field == "=" else a2b_base64(field, strict_mode=True)
    except ValueError:
        return None


def encode(data: bytes) -> str:
    """Encode in base64; "=" stands for empty data."""
    return b2a_base64(data, newline=False).decode() or "="


def escape(value: str) -> str:
    """Escape a value as Dovecot does (lib/strescape.c)."""
    return value if value.isprintable() else value.translate({0: "\x010", 1: "\x011", 9: "\x01t", 13: "\x01r", 10: "\x01n"})


def unescape(value: str) -> str:
    """Undo `escape`."""
    first, *rest = value.split("\1")
    return first + "".join(_UNESCAPE.get(part[:1], part[:1]) + part[1:] for part in rest)
