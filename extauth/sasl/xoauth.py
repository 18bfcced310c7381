"""X-OAUTH (MongooseIM's token reconnection): one of its serialised tokens, which names the user itself."""

from extauth.model import Accept, CheckToken, Secret
from extauth.sasl.mechanism import Failure, Malformed, Mechanism, Session, Success, Talk, ask, first, outcome


def run(session: Session, initial: bytes | None) -> Talk[Success | Failure]:
    """token; a refresh token gets the next token with the success."""
    try:
        token = (yield from first(initial)).decode()  # its fields are separated by NULs
    except UnicodeDecodeError:
        raise Malformed("not UTF-8") from None
    if not token:
        raise Malformed("no token")
    answer = yield from ask(CheckToken(session.nobody, session.origin, Secret(token)))
    payload = answer.payload if isinstance(answer, Accept) else None
    return outcome(answer, payload.reveal().encode() if payload is not None else None)


MECHANISMS = (Mechanism(name="X-OAUTH", run=run, needs=CheckToken, priority=57, plaintext=True),)
