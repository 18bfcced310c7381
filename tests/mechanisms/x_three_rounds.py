"""X-THREE-ROUNDS: the server speaks first, three times: it wants the name, the password and a word that it has just made up."""

import hmac
import secrets

from extauth.model import Answer, CheckPassword, Reason, Secret
from extauth.sasl.mechanism import Challenge, Failure, Malformed, Mechanism, Refused, Session, Success, Talk, outcome, text

waiting: set[str] = set()  # the words that a client still has to repeat


def run(session: Session, initial: bytes) -> Talk[Success | Failure]:
    """The name, the password, and the word of the third challenge again."""
    if initial:
        raise Malformed("the server speaks first")
    name: bytes = yield Challenge(b"who?")
    identity = session.account(text(name))
    password: bytes = yield Challenge(b"password?")
    word = secrets.token_hex(8)
    waiting.add(word)
    try:
        repeated: bytes = yield Challenge(word.encode())
    finally:  # also if the client goes away here
        waiting.discard(word)
    if not hmac.compare_digest(repeated, word.encode()):
        raise Refused(Reason.NOT_ALLOWED)
    answer: Answer = yield CheckPassword(identity, session.origin, Secret(text(password)))
    return outcome(answer)


MECHANISMS = (Mechanism(name="X-THREE-ROUNDS", run=run, needs=CheckPassword, priority=45, plaintext=True, client_first=False),)
