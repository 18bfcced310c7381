"""X-THREE-ROUNDS: the server speaks first, three times: it wants the name, the password and a word that it has just made up."""

import hmac
import secrets

from extauth.model import CheckPassword, Reason, Secret
from extauth.sasl.mechanism import Failure, Malformed, Mechanism, Refused, Session, Success, Talk, ask, challenge, outcome, text

waiting: set[str] = set()  # the words that a client still has to repeat


def run(session: Session, initial: bytes | None) -> Talk[Success | Failure]:
    """The name, the password, and the word of the third challenge again."""
    if initial:
        raise Malformed("the server speaks first")
    identity = session.account(text((yield from challenge(b"who?"))))
    password = text((yield from challenge(b"password?")))
    word = secrets.token_hex(8)
    waiting.add(word)
    try:
        repeated = yield from challenge(word.encode())
    finally:  # also if the client goes away here
        waiting.discard(word)
    if not hmac.compare_digest(repeated, word.encode()):
        raise Refused(Reason.NOT_ALLOWED)
    return outcome((yield from ask(CheckPassword(identity, session.origin, Secret(password)))))


MECHANISMS = (Mechanism(name="X-THREE-ROUNDS", run=run, needs=CheckPassword, priority=45, plaintext=True),)
