"""HT-* (draft-schmaus-kitten-sasl-ht, XEP-0484): a token proved by its hash, in one message. The key is the token's text."""

import hmac
from collections.abc import Mapping

from extauth.model import Answer, FindHashedTokens, HashedTokens, Proof, Reason, Reject
from extauth.passwords.scram import Hash
from extauth.sasl.mechanism import (
    Failure,
    Malformed,
    Mechanism,
    Refused,
    Run,
    Session,
    Success,
    Talk,
    conclude,
    outcome,
    text,
)

BINDINGS: Mapping[str, str] = {
    "NONE": "",
    "UNIQ": "tls-unique",
    "ENDP": "tls-server-end-point",
    "EXPR": "tls-exporter",
}


def runner(family: Hash, binding: str) -> Run:
    """Return what runs HT with this hash and this type of channel binding ("": none)."""

    def run(session: Session, initial: bytes) -> Talk[Success | Failure]:
        """Authcid NUL HMAC(token, "Initiator" binding); with the success HMAC(token, "Responder" binding)."""
        name, nul, proof = initial.partition(b"\0")
        if not nul or not name:
            raise Malformed("not a name and a hash")
        identity = session.account(text(name))
        answer: Answer = yield FindHashedTokens(identity, session.origin, session.mechanism)
        if isinstance(answer, Reject) and answer.reason is not Reason.NO_USER:
            return outcome(answer)
        if not isinstance(answer, HashedTokens | Reject):
            raise TypeError(f"{type(answer).__name__} holds no tokens")

        data = session.stream.bindings.get(binding, b"")
        matched: tuple[str, bytes] | None = None
        for credential, token in answer.tokens if isinstance(answer, HashedTokens) else ():
            key = token.reveal().encode()
            if hmac.compare_digest(hmac.digest(key, b"Initiator" + data, family.digest), proof):
                matched = credential, hmac.digest(key, b"Responder" + data, family.digest)
        if matched is None or isinstance(answer, Reject):
            reason = answer.reason if isinstance(answer, Reject) else Reason.BAD_PASSWORD
            backend = answer.backend if isinstance(answer, HashedTokens) else ""
            verdict: Answer = yield Proof(identity, session.origin, reason, backend)
            raise Refused(verdict.reason if isinstance(verdict, Reject) else reason)
        credential, responder = matched
        reason = answer.refusal or Reason.OK
        verdict = yield Proof(answer.identity, session.origin, reason, answer.backend, credential)
        return (yield from conclude(session, verdict, identity, responder, answer.attributes))

    return run


MECHANISMS = tuple(
    Mechanism(
        name=f"HT-{family.value}-{suffix}",
        run=runner(family, binding),
        needs=FindHashedTokens,
        priority=70 + 2 * rank + bool(binding),
        bindings=(binding,) if binding else (),
        fast=True,
    )
    for rank, family in enumerate((Hash.SHA_256, Hash.SHA_384, Hash.SHA_512))
    for suffix, binding in BINDINGS.items()
)
