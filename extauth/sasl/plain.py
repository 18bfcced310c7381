"""PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login): the client sends the password."""

from extauth.model import Answer, CheckPassword, Identity, Secret
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
)


def plain(session: Session, initial: bytes) -> Talk[Success | Failure]:
    """[authzid] NUL authcid NUL password."""
    fields = _decode(initial).split("\0")
    if len(fields) != 3:  # noqa: PLR2004
        raise Malformed("not two NULs")
    authzid, authcid, password = fields
    identity = _account(session, authcid, password)
    target = session.target(identity, authzid)
    answer: Answer = yield CheckPassword(identity, session.origin, Secret(password))
    return outcome(answer) if target is identity else (yield from conclude(session, answer, target))


def login(session: Session, initial: bytes) -> Talk[Success | Failure]:
    """The name, then the password, each after a challenge that nobody reads."""
    first: bytes = initial or (yield Challenge(b"Username:"))
    second: bytes = yield Challenge(b"Password:")
    if b"\0" in first or b"\0" in second:
        raise Malformed("a NUL")
    password = _decode(second)
    identity = _account(session, _decode(first), password)
    answer: Answer = yield CheckPassword(identity, session.origin, Secret(password))
    return outcome(answer)


def _account(session: Session, name: str, password: str) -> Identity:
    if not name or not password:
        raise Malformed("an empty name or password")
    return session.account(name)


def _decode(data: bytes) -> str:
    """Decode UTF-8; or CESU-8, which Strophe.js makes of characters beyond U+FFFF.

    Raises:
        Malformed: it is neither.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass
    try:
        return data.decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise Malformed("not UTF-8") from None


MECHANISMS = (
    Mechanism(name="PLAIN", run=plain, needs=CheckPassword, priority=50, plaintext=True),
    Mechanism(name="LOGIN", run=login, needs=CheckPassword, priority=40, plaintext=True, client_first=False),
)
