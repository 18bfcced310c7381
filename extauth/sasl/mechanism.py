"""What a mechanism is: a generator that talks with the client and asks the authority, and reads from top to bottom.

    def run(session: Session, initial: bytes) -> Talk[Success | Failure]:
        response: bytes = yield Challenge(b"...")
        ...
        answer: Answer = yield CheckPassword(identity, session.origin, password)
        return outcome(answer)

A challenge is answered by the client's response, a request by the authority's answer. It raises `Malformed` for what breaks its
grammar and `Refused` for any other no; an outage never reaches it: the `Exchange` closes it and fails. What it must undo if the
client goes away stands in a `finally`.
"""

from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, TypeVar

from msgspec import Struct

from extauth import jid
from extauth.model import (
    NOTHING,
    VIA,
    Accept,
    Answer,
    Identity,
    Origin,
    Reason,
    Reject,
    Request,
    UserExists,
)

T = TypeVar("T")

Condition: TypeAlias = Literal[
    "aborted",
    "account-disabled",
    "credentials-expired",
    "encryption-required",
    "incorrect-encoding",
    "invalid-authzid",
    "invalid-mechanism",
    "malformed-request",
    "mechanism-too-weak",
    "not-authorized",
    "temporary-auth-failure",
]
"""The failure conditions of RFC 6120 section 6.5."""

BY_PROXY: Mapping[str, str] = MappingProxyType({VIA: "proxy"})

NO_BINDINGS: Mapping[str, bytes] = MappingProxyType({})

_CONDITIONS: Mapping[Reason, Condition] = {
    Reason.DISABLED: "account-disabled",
    Reason.CREDENTIALS_EXPIRED: "credentials-expired",
    Reason.MUST_CHANGE_PASSWORD: "credentials-expired",
    Reason.MALFORMED: "malformed-request",
}


# Steps of an exchange ---------------------------------------------------------------------------------------------------------


class Challenge(Struct, frozen=True, gc=False):
    """Bytes for the client, whose response is awaited."""

    data: bytes


class Success(Struct, frozen=True, gc=False):
    """The client is `identity`. `data` goes to it together with the success (None: there is none)."""

    identity: Identity
    data: bytes | None = None
    attributes: Mapping[str, str] = NOTHING

    def __repr__(self) -> str:  # data may hold a token
        return f"Success({self.identity!r}, ...)"


class Failure(Struct, frozen=True):
    """The exchange failed. `temporary`: nobody could tell; it is no refusal. `text` is for logs, never for the client.

    `bug` is what a mechanism should not have raised: to be logged by whoever drives the exchange.
    """

    condition: Condition
    reason: Reason
    temporary: bool = False
    text: str = ""
    bug: Exception | None = None


class Refused(Exception):  # noqa: N818 - a refusal is no error
    """Raised by a mechanism to end its exchange with a failure."""

    def __init__(self, reason: Reason, condition: Condition = "not-authorized", text: str = "") -> None:
        super().__init__(text or reason.value)
        self.failure = Failure(condition, reason, text=text)


class Malformed(Refused):
    """Raised by a mechanism for a message that its grammar does not allow. The text holds nothing of the message."""

    def __init__(self, text: str) -> None:
        super().__init__(Reason.MALFORMED, "malformed-request", text)


# What a mechanism is told -----------------------------------------------------------------------------------------------------


class Stream(Struct, frozen=True, kw_only=True):
    """What the server tells of its client's stream.

    `domain` is the virtual host (prepared). `bindings` is channel binding data by type ("tls-exporter": RFC 9266, RFC 5929).
    `certificate` is the client's verified certificate (DER), `certificate_user` the name that the server itself found in it.
    `advertised` and `advertised_bindings` are the lists that the server has shown to the client (XEP-0474, XEP-0440), where
    it tells them.
    """

    domain: str
    origin: Origin
    secure: bool = False
    bindings: Mapping[str, bytes] = NO_BINDINGS
    certificate: bytes | None = None
    certificate_user: str | None = None
    advertised: tuple[str, ...] = ()
    advertised_bindings: tuple[str, ...] = ()

    @property
    def certified(self) -> bool:
        """Whether a verified client certificate is known."""
        return self.certificate is not None or bool(self.certificate_user)


class Options(Struct, frozen=True, kw_only=True):
    """The policy of a domain.

    `decoy_key` makes the salts of unknown users: secret, the same on all nodes. `iterations` is what such users are told.
    `proxies` may log in as anybody else of their domain. `hosts` (beside the domain and what is below it) and `ports` are where
    clients reach the server, to be compared with what OAUTHBEARER says (no ports: not known). `openid_configuration` (a URL)
    and `scope` tell clients where tokens are issued. `certificate_names` are the fields of a certificate that name accounts,
    in this order (`extauth.sasl.certificate` has the list); the users of `mail_domains` are accounts here, if a certificate
    names them by mail address.
    """

    decoy_key: bytes
    iterations: int = 10_000
    proxies: frozenset[Identity] = frozenset()
    hosts: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()
    openid_configuration: str = ""
    scope: str = ""
    certificate_names: tuple[str, ...] = ("xmppAddr",)
    mail_domains: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return "Options(...)"


class Session(Struct, frozen=True):
    """What one run of a mechanism may know. `offers_binding` tells whether the client was offered channel binding."""

    mechanism: str
    stream: Stream
    options: Options
    origin: Origin
    offers_binding: bool

    @property
    def domain(self) -> str:
        """The virtual host."""
        return self.stream.domain

    @property
    def nobody(self) -> Identity:
        """The identity to ask about where the credential itself names the user."""
        return Identity("", self.stream.domain)

    def account(self, name: str) -> Identity:
        """Return the account that a client calls `name`: a local part or a bare JID of this domain.

        Raises:
            InvalidName: it can't be prepared.
            Refused: it belongs to another domain.
        """
        user, at, domain = name.rpartition("@")
        if at and jid.domain_part(domain) != self.stream.domain:
            raise Refused(Reason.UNKNOWN_DOMAIN)
        return jid.identity(user if at else name, self.stream.domain)

    def target(self, identity: Identity, authzid: str) -> Identity:
        """Return whom `identity` wants to act as, who is somebody else only if `identity` is a proxy.

        Raises:
            Refused: it may not.
        """
        if not authzid:
            return identity
        try:
            wanted = self.account(authzid)
        except (jid.InvalidName, Refused):
            wanted = None
        if wanted is None or (wanted != identity and identity not in self.options.proxies):
            raise Refused(Reason.NOT_ALLOWED, "invalid-authzid")
        return wanted


# What it does -----------------------------------------------------------------------------------------------------------------

# What is sent in is the client's response (bytes) to a challenge, and an `Answer` to a request.
Talk: TypeAlias = Generator[Challenge | Request, Any, T]
Run: TypeAlias = Callable[[Session, bytes], Talk[Success | Failure]]
"""Takes the client's first message."""


class Mechanism(Struct, frozen=True, kw_only=True):
    """A mechanism as the registry knows it.

    `needs` is the request that a backend of the domain must be able to answer. Mechanisms are advertised by falling `priority`.
    `plaintext`: whoever reads the stream learns the credential, so it must be encrypted. `bindings` are the channel binding
    types of which the stream must have one. `certificate`: the stream must have a client certificate. `fast`: for the list of
    XEP-0484 only. `hash` is the hash whose keys it needs (SCRAM). `client_first`: the client begins, and is asked for its first
    message if it sent none (RFC 4422 section 5); otherwise that may be missing, and then is b"".
    """

    name: str
    run: Run
    needs: type[Request]
    priority: int
    plaintext: bool = False
    bindings: tuple[str, ...] = ()
    certificate: bool = False
    fast: bool = False
    hash: str = ""
    client_first: bool = True

    def fits(self, stream: Stream) -> bool:
        """Tell whether the server has passed what the mechanism needs of this stream."""
        return (
            (stream.secure or not self.plaintext)
            and (not self.bindings or any(kind in stream.bindings for kind in self.bindings))
            and (not self.certificate or stream.certified)
        )


def conclude(
    session: Session,
    answer: Answer,
    target: Identity,
    data: bytes | None = None,
    attributes: Mapping[str, str] = NOTHING,
) -> Talk[Success | Failure]:
    """Return how an exchange ends with this answer: for a proxy, after asking whether `target` exists.

    `attributes` are what an earlier answer told of the login.
    """
    if isinstance(answer, Accept) and target.user and target != answer.identity:
        answer, attributes = (yield UserExists(target, session.origin)), BY_PROXY
    return outcome(answer, data, attributes)


def outcome(answer: Answer, data: bytes | None = None, attributes: Mapping[str, str] = NOTHING) -> Success | Failure:
    """Return how an exchange ends with this answer."""
    if isinstance(answer, Accept):
        return Success(answer.identity, data, {**attributes, **answer.attributes} if attributes else answer.attributes)
    if isinstance(answer, Reject):
        return Failure(_CONDITIONS.get(answer.reason, "not-authorized"), answer.reason)
    raise TypeError(f"{type(answer).__name__} decides nothing")


def text(data: bytes) -> str:
    """Decode UTF-8 without NUL.

    Raises:
        Malformed: it is neither.
    """
    try:
        decoded = data.decode()
    except UnicodeDecodeError:
        raise Malformed("not UTF-8") from None
    if "\0" in decoded:
        raise Malformed("a NUL")
    return decoded
