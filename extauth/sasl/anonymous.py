"""ANONYMOUS (RFC 4505, XEP-0175): a fresh name for everybody; what the client says of itself is for the audit line alone."""

import secrets

from extauth.model import VIA, Anonymous, Identity
from extauth.sasl.mechanism import Failure, Malformed, Mechanism, Session, Success, Talk, ask, outcome, text

MAX_TRACE = 255  # characters: RFC 4505 section 2


def run(session: Session, initial: bytes | None) -> Talk[Success | Failure]:
    """[trace]. Never challenges: Strophe.js could not answer."""
    trace = text(initial or b"")
    if len(trace) > MAX_TRACE:
        raise Malformed("a trace of more than 255 characters")
    identity = Identity(secrets.token_hex(16), session.domain)
    return outcome((yield from ask(Anonymous(identity, session.origin, trace))), attributes={VIA: "anonymous"})


MECHANISMS = (Mechanism(name="ANONYMOUS", run=run, needs=Anonymous, priority=10),)
