"""A tiny authority and a client's end of an exchange, for the tests of the SASL engine."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from extauth.model import (
    Accept,
    Anonymous,
    Candidate,
    CheckCertificate,
    CheckPassword,
    CheckToken,
    FindHashedTokens,
    FindKeys,
    HashedTokens,
    Identity,
    Keys,
    Origin,
    Proof,
    Reason,
    Reject,
    Request,
    Secret,
    UserExists,
    Verdict,
)
from extauth.passwords import scram
from extauth.passwords.scram import Hash
from extauth.sasl import registry
from extauth.sasl.exchange import TURNS, Challenge, Exchange, Failure, Options, Stream, Terms, Turn, terms
from extauth.sasl.mechanism import Mechanism
from extauth.soon import Soon

DOMAIN = "example.com"
ITERATIONS = 4096
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
BINDINGS: Mapping[str, bytes] = {"tls-exporter": bytes(range(32)), "tls-server-end-point": b"e" * 32, "tls-unique": b"u" * 12}

MECHANISMS = registry.find()
STREAM = Stream(domain=DOMAIN, origin=Origin("test", client="192.0.2.1"), secure=True)
BOUND = Stream(domain=DOMAIN, origin=Origin("test"), secure=True, bindings=BINDINGS)
OPTIONS = Options(decoy_key=b"a test's decoy key", iterations=ITERATIONS)

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors.json").read_text())


@cache
def _made(family: Hash, password: str, salt: bytes) -> scram.ScramKeys:
    return scram.make(family, password, salt, ITERATIONS)


@dataclass
class People:
    """Accounts in memory. `tokens` are bearer tokens and whose they are, `hashed` FAST tokens by user."""

    passwords: dict[str, str] = field(default_factory=lambda: {"user": "pencil"})
    tokens: dict[str, str] = field(default_factory=dict[str, str])
    hashed: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    payload: str | None = None
    salt: bytes = SALT
    refusal: Reason | None = None
    asked: list[Request] = field(default_factory=list[Request])

    def __call__(self, request: Request) -> Verdict:
        """Decide a request."""
        self.asked.append(request)
        identity = request.identity
        known = identity.user in self.passwords
        match request:
            case CheckPassword(password=password):
                if not known:
                    return Reject(Reason.NO_USER)
                return self._judge(request, right=password.reveal() == self.passwords[identity.user])
            case FindKeys(hash=name):
                return self._keys(identity, Hash(name)) if known else Reject(Reason.NO_USER)
            case FindHashedTokens():
                tokens = self.hashed.get(identity.user)
                if tokens is None:
                    return Reject(Reason.NO_USER)
                named = tuple((f"slot{slot}", Secret(token)) for slot, token in enumerate(tokens))
                return HashedTokens(identity, named, "", self.refusal, {"from": "tokens"})
            case Proof(reason=reason):
                return Accept(identity, {"role": "member"}) if reason is Reason.OK else Reject(reason)
            case CheckToken(token=token):
                user = self.tokens.get(token.reveal())
                if user is None or identity.user not in {"", user}:
                    return Reject(Reason.BAD_PASSWORD)
                return Accept(Identity(user, identity.domain), payload=Secret(self.payload) if self.payload else None)
            case CheckCertificate() | UserExists():
                return Accept(identity) if known else Reject(Reason.NO_USER)
            case Anonymous():
                return Accept(identity, {"anonymous": "yes"})
            case _:
                raise AssertionError(request)

    def _judge(self, request: Request, *, right: bool) -> Verdict:
        if not right:
            return Reject(Reason.BAD_PASSWORD)
        return Reject(self.refusal) if self.refusal else Accept(request.identity, {"role": "member"})

    def _keys(self, identity: Identity, family: Hash) -> Keys:
        made = _made(family, self.passwords[identity.user], self.salt)
        other = _made(family, "an app password", self.salt)
        candidates = (
            Candidate("password", made.stored_key, made.server_key),
            Candidate("app", other.stored_key, other.server_key),
        )
        return Keys(identity, self.salt, ITERATIONS, candidates, "", self.refusal, {"from": "keys"})


class Bench:
    """A court that asks `decide`, and writes down which failures it was told of."""

    def __init__(self, decide: Callable[[Request], Soon[Verdict]]) -> None:
        self.ask = decide
        self.failures: list[Failure] = []

    def ask_proven(self, proof: Proof, finding: Request, found: Keys, began: float) -> Soon[Verdict]:  # noqa: ARG002
        """Nothing changes here meanwhile."""
        return self.ask(proof)

    def failed(self, terms: Terms, failure: Failure, last: object) -> None:  # noqa: ARG002
        """Keep it."""
        self.failures.append(failure)


class Client:
    """The client's end of one exchange: what it sends is answered by a challenge or the end.

    `decide` answers the mechanism's requests in place of `people`.
    """

    def __init__(
        self,
        name: str,
        people: People | None = None,
        *,
        stream: Stream = STREAM,
        options: Options = OPTIONS,
        mechanisms: Mapping[str, Mechanism] = MECHANISMS,
        offered: tuple[str, ...] | None = None,
        decide: Callable[[Request], Soon[Verdict]] | None = None,
    ) -> None:
        self.people = people or People()
        self.court = Bench(decide or self.people)
        self.exchange = Exchange(terms(name, stream, options, mechanisms, offered), self.court)

    def begin(self, initial: bytes | None = None) -> Turn:
        """Send the first message, if there is one."""
        return known(self.exchange.begin(initial))

    def respond(self, data: bytes) -> Turn:
        """Answer a challenge."""
        return known(self.exchange.respond(data))

    def play(self, *messages: bytes | None) -> Turn:
        """Send messages one after another, as long as the server asks for them."""
        step = self.begin(messages[0] if messages else None)
        for message in messages[1:]:
            if not isinstance(step, Challenge):
                break
            step = self.respond(message or b"")
        return step


def known(turn: Soon[Turn]) -> Turn:
    """Return a turn that has not to be waited for."""
    assert isinstance(turn, TURNS), turn
    return turn


def is_refused(step: Turn, condition: str, reason: Reason) -> bool:
    """Tell whether this is a refusal of that kind, and no outage and no bug."""
    return isinstance(step, Failure) and (step.condition, step.reason, step.temporary, step.bug) == (
        condition,
        reason,
        False,
        None,
    )


def is_malformed(step: Turn) -> bool:
    """Tell whether the client's message was refused as malformed."""
    return is_refused(step, "malformed-request", Reason.MALFORMED)
