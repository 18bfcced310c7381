"""X-MY-MECHANISM of the Strophe.js manual: the client's one message is a token."""

from extauth.model import CheckToken, Secret
from extauth.sasl.mechanism import Failure, Mechanism, Session, Success, Talk, ask, first, outcome, text


def run(session: Session, initial: bytes | None) -> Talk[Success | Failure]:
    """One message: the token."""
    token = text((yield from first(initial)))
    return outcome((yield from ask(CheckToken(session.nobody, session.origin, Secret(token)))))


MECHANISMS = (Mechanism(name="X-MY-MECHANISM", run=run, needs=CheckToken, priority=65, plaintext=True),)
