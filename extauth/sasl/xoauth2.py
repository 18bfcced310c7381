"""Google's two framings of a bearer token: X-OAUTH2 in XMPP, like PLAIN; XOAUTH2 in mail, like OAUTHBEARER."""

import json
import re

from extauth.model import Answer, CheckToken, Reject, Secret
from extauth.sasl.mechanism import (
    Challenge,
    Failure,
    Malformed,
    Mechanism,
    Session,
    Success,
    Talk,
    conclude,
    outcome,
    text,
)

_MAIL = re.compile(r"user=([^\0\x01]+)\x01auth=bearer +([\x21-\x7e]+)\x01\x01", re.IGNORECASE | re.ASCII).fullmatch


def xmpp(session: Session, initial: bytes) -> Talk[Success | Failure]:
    """[authzid] NUL [user] NUL token."""
    fields = initial.split(b"\0")
    if len(fields) != 3 or not fields[2]:  # noqa: PLR2004
        raise Malformed("not two NULs, or no token")
    authzid, user, token = (text(field) for field in fields)
    identity = session.account(user or authzid) if user or authzid else session.nobody
    target = session.target(identity, authzid)
    answer: Answer = yield CheckToken(identity, session.origin, Secret(token))
    return (yield from conclude(session, answer, target))


def mail(session: Session, initial: bytes) -> Talk[Success | Failure]:
    """user=USER ^A auth=Bearer TOKEN ^A ^A; after a refusal the client's next message ends the exchange."""
    found = _MAIL(text(initial))
    if found is None:
        raise Malformed("not user= and auth=Bearer")
    identity = session.account(found[1])
    answer: Answer = yield CheckToken(identity, session.origin, Secret(found[2]))
    if isinstance(answer, Reject):
        yield Challenge(json.dumps({"status": "401", "schemes": "bearer", "scope": session.options.scope}).encode())
    return outcome(answer)


MECHANISMS = (
    Mechanism(name="X-OAUTH2", run=xmpp, needs=CheckToken, priority=59, plaintext=True),
    Mechanism(name="XOAUTH2", run=mail, needs=CheckToken, priority=58, plaintext=True),
)
