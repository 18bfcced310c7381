"""X-MY-MECHANISM of the Strophe.js manual: the client's one message is a token."""

from extauth.model import Answer, CheckToken, Secret
from extauth.sasl.mechanism import Failure, Mechanism, Session, Success, Talk, outcome, text


def run(session: Session, initial: bytes) -> Talk[Success | Failure]:
    """One message: the token."""
    answer: Answer = yield CheckToken(session.nobody, session.origin, Secret(text(initial)))
    return outcome(answer)


MECHANISMS = (Mechanism(name="X-MY-MECHANISM", run=run, needs=CheckToken, priority=65, plaintext=True),)
