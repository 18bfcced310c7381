"""X-OAUTH (MongooseIM's token reconnection): one of its serialised tokens, which names the user itself."""

from extauth.model import Accept, Answer, CheckToken, Secret
from extauth.sasl.mechanism import Failure, Malformed, Mechanism, Session, Success, Talk, outcome


def run(session: Session, initial: bytes) -> Talk[Success | Failure]:
    """token; a refresh token gets the next token with the success."""
    try:
        token = initial.decode()  # its fields are separated by NULs
    except UnicodeDecodeError:
        raise Malformed("not UTF-8") from None
    if not token:
        raise Malformed("no token")
    answer: Answer = yield CheckToken(session.nobody, session.origin, Secret(token))
    payload = answer.payload if isinstance(answer, Accept) else None
    return outcome(answer, payload.reveal().encode() if payload is not None else None)


MECHANISMS = (Mechanism(name="X-OAUTH", run=run, needs=CheckToken, priority=57, plaintext=True),)
