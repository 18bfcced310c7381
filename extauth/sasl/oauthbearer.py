"""OAUTHBEARER (RFC 7628): a bearer token, and JSON for a client that could get another one."""

import json
import re

from extauth.model import Answer, CheckToken, Reason, Reject, Secret
from extauth.sasl.mechanism import (
    Challenge,
    Failure,
    Malformed,
    Mechanism,
    Refused,
    Session,
    Success,
    Talk,
    outcome,
    text,
)

# RFC 7628 section 3.1. The authzid may hold what RFC 5801 wants escaped: Strophe.js sends bare JIDs as they are.
_MESSAGE = re.compile(
    r"(?:n|y),(?:a=(?P<authzid>[^\x01]+))?,\x01(?P<pairs>(?:[A-Za-z]+=[\x21-\x7e \t\r\n]*\x01)+)\x01"
).fullmatch
_ESCAPED = re.compile(r"(?:[^=,]|=2C|=3D)*").fullmatch
_BEARER = re.compile(r"bearer +([A-Za-z0-9\-._~+/]+=*)", re.IGNORECASE | re.ASCII).fullmatch


def run(session: Session, initial: bytes) -> Talk[Success | Failure]:
    """gs2-header kvpairs; after a refusal the client's next message, whatever it is, ends the exchange."""
    authzid, values = _parse(text(initial))
    _check_place(session, values.get("host"), values.get("port"))
    found = _BEARER(values["auth"])
    if found is None:  # also the empty one, by which a client asks where tokens are to be had
        refusal = Failure("not-authorized", Reason.BAD_PASSWORD, text="no bearer token")
    else:
        identity = session.account(authzid) if authzid else session.nobody
        answer: Answer = yield CheckToken(identity, session.origin, Secret(found[1]))
        if not isinstance(answer, Reject):
            return outcome(answer)
        refusal = Failure("not-authorized", answer.reason)
    yield Challenge(_error(session))
    return refusal


def _parse(message: str) -> tuple[str, dict[str, str]]:
    """Return the authzid and the key/value pairs; keys that are not known are left to whoever knows them."""
    found = _MESSAGE(message)
    if found is None:
        raise Malformed("not a gs2-header and key/value pairs")
    pairs = [pair.partition("=") for pair in found["pairs"].removesuffix("\x01").split("\x01")]
    values = {key: value for key, _, value in pairs}
    if len(values) != len(pairs) or "auth" not in values:
        raise Malformed("a key twice, or no auth")
    authzid = found["authzid"] or ""
    if _ESCAPED(authzid):
        authzid = authzid.replace("=2C", ",").replace("=3D", "=")
    return authzid, values


def _check_place(session: Session, host: str | None, port: str | None) -> None:
    """Refuse a message that was made for another server (RFC 7628 section 3.1)."""
    if host is not None:
        host = host.lower().removesuffix(".")
        domain = session.domain
        if host != domain and not host.endswith(f".{domain}") and host not in session.options.hosts:
            raise Refused(Reason.NOT_ALLOWED, text="for another host")
    if port is not None:
        if not (port.isascii() and port.isdigit()):
            raise Malformed("a port that is no number")
        if session.options.ports and int(port) not in session.options.ports:
            raise Refused(Reason.NOT_ALLOWED, text="for another port")


def _error(session: Session) -> bytes:
    """Return the error of RFC 7628 section 3.2.2."""
    options = session.options
    error = {
        "status": "invalid_token",
        "scope": options.scope,
        "openid-configuration": options.openid_configuration,
    }
    return json.dumps({key: value for key, value in error.items() if value}, separators=(",", ":")).encode()


MECHANISMS = (Mechanism(name="OAUTHBEARER", run=run, needs=CheckToken, priority=60, plaintext=True),)
