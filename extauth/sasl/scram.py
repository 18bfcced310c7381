"""SCRAM (RFC 5802, RFC 7677), with channel binding (RFC 5929, RFC 9266) and the downgrade protection of XEP-0474."""

import hashlib
import hmac
import re
import secrets
from binascii import a2b_base64, b2a_base64
from functools import cache

from msgspec import Struct

from extauth.mac import mac
from extauth.model import Answer, Candidate, FindKeys, Identity, Keys, Proof, Reason, Reject
from extauth.passwords.scram import SALT_BYTES, Hash
from extauth.sasl.mechanism import (
    Challenge,
    Failure,
    Malformed,
    Mechanism,
    Options,
    Refused,
    Run,
    Session,
    Stream,
    Success,
    Talk,
    conclude,
    outcome,
    text,
)

BINDINGS = ("tls-exporter", "tls-server-end-point", "tls-unique")
PLUS = "-PLUS"

# RFC 5802 section 7: the order is fixed, "=" in a name stands only before 2C and 3D, and extensions that are not known are
# ignored; "m=" is the one that must not be.
_SASLNAME = r"(?:[^\0=,]|=2C|=3D)+"
_PRINTABLE = r"[\x21-\x2b\x2d-\x7e]+"
_EXTENSIONS = r"(?:,[A-Za-z]=[^\0,]+)*"
_FIRST = re.compile(
    rf"(?P<header>(?P<flag>n|y|p=(?P<binding>[A-Za-z0-9.\-]+)),(?:a=(?P<authzid>{_SASLNAME}))?,)"
    rf"(?P<bare>(?P<mandatory>m=[^\0,]+,)?n=(?P<user>{_SASLNAME}),r=(?P<nonce>{_PRINTABLE}){_EXTENSIONS})"
).fullmatch
_EXTENSION = re.compile(r"[A-Za-z]=[^\0,]+").fullmatch

_FOUND = (Keys, Reject)


class _First(Struct, frozen=True, gc=False):
    """The client's first message. `flag` says what it thinks of channel binding: n, y, or p with the type in `binding`."""

    header: str
    flag: str
    binding: str
    authzid: str
    user: str
    nonce: str
    bare: str


class _Final(Struct, frozen=True, gc=False):
    """The client's last message. `header` is that of the first again, with the channel binding data; `bare` has no proof."""

    header: bytes
    bare: str
    proof: bytes


def runner(family: Hash) -> Run:
    """Return what runs SCRAM with this hash. Whether with channel binding, the name in the session tells."""
    name, digest = family.value, family.digest
    algorithm = type(family.algorithm)

    def run(session: Session, initial: bytes) -> Talk[Success | Failure]:
        """Client-first, server-first, client-final; the server-final goes with the success (RFC 6120 section 6.3.10)."""
        client = _parse_first(initial)
        identity = session.account(client.user)
        target = session.target(identity, client.authzid)
        problem = _binding_problem(session, client)
        if problem:
            yield Proof(identity, session.origin, Reason.BAD_BINDING)
            raise Refused(Reason.BAD_BINDING, text=problem)

        answer: Answer = yield FindKeys(identity, session.origin, name)
        if isinstance(answer, Reject) and answer.reason is Reason.RATE_LIMITED:
            return outcome(answer)
        if not isinstance(answer, _FOUND):
            raise TypeError(f"{type(answer).__name__} holds no keys")
        keys = answer if isinstance(answer, Keys) else decoy(session.options, family, identity)

        nonce = client.nonce + new_nonce()
        server_first = f"r={nonce},s={_b64(keys.salt)},i={keys.iterations}{_downgrade_hash(digest, session.stream)}"
        response: bytes = yield Challenge(server_first.encode())
        final = _parse_final(response, nonce)

        message = f"{client.bare},{server_first},{final.bare}".encode()
        matched = _match(family, keys.candidates, message, final.proof)
        bound = hmac.compare_digest(final.header, client.header.encode() + session.stream.bindings.get(client.binding, b""))
        if matched is None or not bound:
            reason = answer.reason if isinstance(answer, Reject) else Reason.BAD_PASSWORD if bound else Reason.BAD_BINDING
            if isinstance(answer, Keys) or reason is Reason.NO_USER:  # another refusal has been written down already
                answer = yield Proof(keys.identity, session.origin, reason, keys.backend)
            raise Refused(answer.reason if isinstance(answer, Reject) else reason)
        reason = keys.refusal or Reason.OK
        answer = yield Proof(keys.identity, session.origin, reason, keys.backend, matched.credential)
        signature = mac(matched.server_key, message, algorithm)
        return (yield from conclude(session, answer, target, f"v={_b64(signature)}".encode(), keys.attributes))

    return run


def new_nonce() -> str:
    """Return what the server adds to the client's nonce."""
    return _b64(secrets.token_bytes(18))


def decoy(options: Options, family: Hash, identity: Identity) -> Keys:
    """Return what an unknown user is told: a salt that stays, as a real one does, and keys that no proof can match."""
    named = f"{identity.domain}\0{identity.user}\0{family.value}".encode()
    salt = hmac.digest(options.decoy_key, named, "sha256")[:SALT_BYTES]
    return Keys(identity, salt, options.iterations, (_nobody(family),))


@cache
def _nobody(family: Hash) -> Candidate:
    """Return the keys of unknown users. Always the same ones: judging by a key once more takes less time."""
    return Candidate("", secrets.token_bytes(family.length), b"")


def _parse_first(data: bytes) -> _First:
    found = _FIRST(text(data))
    if found is None:
        raise Malformed("not a client-first-message")
    header, flag, binding, authzid, bare, mandatory, user, nonce = found.groups("")
    if mandatory:
        raise Refused(Reason.NOT_SUPPORTED, "malformed-request", "extensions-not-supported")
    return _First(header, flag[0], binding, _unescape(authzid), _unescape(user), nonce, bare)


def _parse_final(data: bytes, nonce: str) -> _Final:
    message = text(data)
    fields = message.split(",")
    header, told, *extensions, proof = fields if len(fields) > 2 else ("", "", "")  # noqa: PLR2004
    if not (header.startswith("c=") and told.startswith("r=") and proof.startswith("p=") and all(map(_EXTENSION, extensions))):
        raise Malformed("not a client-final-message")
    if told[2:] != nonce:
        raise Malformed("another nonce")
    return _Final(_decode(header[2:]), message[: -len(proof) - 1], _decode(proof[2:]))


def _decode(field: str) -> bytes:
    """Decode base64 that has no other way to be written (RFC 4648 section 3.5) and is not empty."""
    try:
        data = a2b_base64(field, strict_mode=True)
    except ValueError:
        data = b""
    if not data or _b64(data) != field:
        raise Malformed("not base64")
    return data


def _binding_problem(session: Session, client: _First) -> str:
    """Return what is wrong with the client's idea of channel binding, by its name in RFC 5802 section 7; "" if nothing is."""
    plus = session.mechanism.endswith(PLUS)
    if plus != (client.flag == "p"):
        return "server-does-support-channel-binding" if plus else "channel-binding-not-supported"
    if plus and (client.binding not in BINDINGS or client.binding not in session.stream.bindings):
        return "unsupported-channel-binding-type"
    if client.flag == "y" and session.offers_binding:
        return "server-does-support-channel-binding"  # somebody took it out of the list on its way to the client
    return ""


def _match(family: Hash, candidates: tuple[Candidate, ...], message: bytes, proof: bytes) -> Candidate | None:
    """Return the candidate whose key the proof proves. All are tried, in the same time whichever it is."""
    algorithm = type(family.algorithm)
    matched = None
    for candidate in candidates:
        signature = mac(candidate.stored_key, message, algorithm)
        if len(proof) == len(signature):
            client_key = int.from_bytes(proof) ^ int.from_bytes(signature)
            stored_key = hashlib.new(family.digest, client_key.to_bytes(len(proof))).digest()
            if hmac.compare_digest(stored_key, candidate.stored_key):
                matched = candidate
    return matched


def _downgrade_hash(digest: str, stream: Stream) -> str:
    """Return the attribute that tells the client what it was offered, if we know it (XEP-0474 version 0.5.0 section 5)."""
    if not stream.advertised:
        return ""
    lists = "\x1e".join(sorted(stream.advertised))
    if stream.advertised_bindings:
        lists += "\x1f" + "\x1e".join(sorted(stream.advertised_bindings))
    return f",h={_b64(hashlib.new(digest, lists.encode()).digest())}"


def _unescape(name: str) -> str:
    return name.replace("=2C", ",").replace("=3D", "=") if "=" in name else name


def _b64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()


def _mechanisms() -> tuple[Mechanism, ...]:
    strongest_last = enumerate(Hash)
    return tuple(
        Mechanism(
            name=f"SCRAM-{family.value}{suffix}",
            run=runner(family),
            needs=FindKeys,
            priority=priority + rank,
            bindings=bindings,
            hash=family.value,
        )
        for rank, family in strongest_last
        for suffix, priority, bindings in (("", 80, ()), (PLUS, 90, BINDINGS))
    )


MECHANISMS = _mechanisms()
