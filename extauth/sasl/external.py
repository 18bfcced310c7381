"""EXTERNAL (RFC 4422 Appendix A, XEP-0178): the client's TLS certificate, which the server has verified."""

from extauth import jid
from extauth.model import Answer, CheckCertificate, Identity, Reason
from extauth.sasl import certificate
from extauth.sasl.mechanism import Failure, Mechanism, Refused, Session, Success, Talk, conclude, text


def run(session: Session, initial: bytes) -> Talk[Success | Failure]:
    """[authzid]. Empty: whoever the certificate names, if that is one account."""
    authzid = text(initial)
    named = certificate.accounts(session.stream, session.options)
    if not named:
        raise Refused(Reason.BAD_CERTIFICATE, text="it names no account of this domain")
    identity, *others = named
    if authzid and others:
        identity = _choose(session, named, authzid)
    elif others:
        raise Refused(Reason.BAD_CERTIFICATE, "invalid-authzid", "it names several accounts and the client none")
    target = session.target(identity, authzid)
    answer: Answer = yield CheckCertificate(identity, session.origin)
    return (yield from conclude(session, answer, target))


def _choose(session: Session, named: tuple[Identity, ...], authzid: str) -> Identity:
    """Return which of several accounts the client wants to be."""
    try:
        wanted = session.account(authzid)
    except (jid.InvalidName, Refused):
        wanted = None
    if wanted is None or wanted not in named:
        raise Refused(Reason.NOT_ALLOWED, "invalid-authzid")
    return wanted


MECHANISMS = (Mechanism(name="EXTERNAL", run=run, needs=CheckCertificate, priority=100, certificate=True),)
