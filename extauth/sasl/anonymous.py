"""ANONYMOUS (RFC 4505, XEP-0175): a fresh name for everybody; what the client says of itself is for the audit line alone."""

import secrets

from extauth.model import VIA, Anonymous, Answer, Identity
from extauth.sasl.mechanism import Failure, Malformed, Mechanism, Session, Success, Talk, outcome, text

MAX_TRACE = 255  # characters: RFC 4505 section 2


def run(session: Session, initial: bytes) -> Talk[Success | Failure]:
    """[trace]. Never challenges: Strophe.js could not answer."""
    trace = text(initial)
    if len(trace) > MAX_TRACE:
        raise Malformed("a trace of more than 255 characters")
    identity = Identity(secrets.token_hex(16), session.domain)
    answer: Answer = yield Anonymous(identity, session.origin, trace)
    return outcome(answer, attributes={VIA: "anonymous"})


MECHANISMS = (Mechanism(name="ANONYMOUS", run=run, needs=Anonymous, priority=10, client_first=False),)
