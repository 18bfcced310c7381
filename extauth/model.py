"""The values that pass between front ends, the authority and the backends.

A front end makes a `Request`, the authority returns a `Verdict`. Both are immutable and cheap to make: they are created for
every login. "No" is a value (`Reject`); "I can't tell" is `Unavailable`, which only the authority makes, out of a backend's
`BackendDown`.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, NoReturn

from msgspec import Struct

NOTHING: Mapping[str, str] = MappingProxyType({})

VIA = (
    "login"  # the attribute that tells how somebody logged in; after a primary login (a password, a certificate) there is none
)


class Secret:
    """A text that must never be shown: it has no repr, can't be compared with `==`, pickled or formatted."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself, for the one line that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("compare secrets with hmac.compare_digest")

    def __hash__(self) -> NoReturn:
        raise TypeError("a secret is no key")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


class Identity(Struct, frozen=True, gc=False):
    """A canonical account name, made by `extauth.jid` only. `user` is "" where the credential itself names the user."""

    user: str
    domain: str

    def __str__(self) -> str:
        return f"{self.user}@{self.domain}"


class Origin(Struct, frozen=True, gc=False):
    """Where a request came in.

    `listener` is its name in the configuration; `peer` the process on the socket (the XMPP server), `client` the address of
    the person's own connection, where the server tells it; `secure` whether that connection is encrypted (None: not told);
    `patience` the seconds after which the peer no longer waits for an answer; `enforces` whether the server keeps a restricted
    login (a guest's) to what the attributes of its `Accept` allow.
    """

    listener: str
    peer: str = ""
    client: str = ""
    secure: bool | None = None
    mechanism: str = ""
    patience: float = 10.0
    enforces: bool = False


class Reason(StrEnum):
    """Stable reason codes of the audit line, the metrics and `extauth login`; docs/reasons.md explains each."""

    OK = "ok"
    BAD_PASSWORD = "bad-password"  # noqa: S105 - a reason code
    NO_USER = "no-user"
    NO_KEYS = "no-keys"
    DISABLED = "account-disabled"
    BAD_NAME = "bad-name"
    UNKNOWN_DOMAIN = "unknown-domain"
    MALFORMED = "malformed-request"
    RATE_LIMITED = "rate-limited"
    NOT_ALLOWED = "not-allowed"
    NOT_SUPPORTED = "not-supported"
    NOT_ENCRYPTED = "not-encrypted"
    BAD_CERTIFICATE = "bad-certificate"
    BAD_BINDING = "bad-channel-binding"
    ABORTED = "aborted"
    USER_EXISTS = "user-exists"
    PASSWORD_TOO_SHORT = "password-too-short"  # noqa: S105
    PASSWORD_TOO_LONG = "password-too-long"  # noqa: S105
    PASSWORD_COMMON = "password-common"  # noqa: S105
    PASSWORD_REFUSED = "password-refused"  # noqa: S105
    CREDENTIALS_EXPIRED = "credentials-expired"
    MUST_CHANGE_PASSWORD = "must-change-password"  # noqa: S105
    ACCOUNT_LOCKED = "account-locked"
    ACCOUNT_EXPIRED = "account-expired"
    LOGON_RESTRICTED = "logon-restricted"
    NOT_IN_GROUP = "not-in-group"
    AMBIGUOUS = "ambiguous-name"
    BAD_TOKEN = "bad-token"  # noqa: S105
    EXPIRED_TOKEN = "expired-token"  # noqa: S105
    WRONG_TOKEN = "wrong-token"  # noqa: S105
    FOREIGN_TOKEN = "foreign-token"  # noqa: S105
    WRONG_AUDIENCE = "wrong-audience"
    UNKNOWN_KEY = "unknown-key"
    NAME_TAKEN = "name-taken"
    UNKNOWN_FAMILY = "unknown-family"
    TOKEN_REVOKED = "token-revoked"  # noqa: S105
    TOKEN_REUSED = "token-reused"  # noqa: S105
    NOT_ENFORCED = "not-enforced"
    BACKEND_DOWN = "backend-down"
    BACKEND_TIMEOUT = "backend-timeout"
    BUG = "internal-error"


# Requests ---------------------------------------------------------------------------------------------------------------------


class Request(Struct, frozen=True, gc=False):
    """What is asked about `identity`. `operation` is its name in the audit line and the metrics."""

    operation: ClassVar[str]
    identity: Identity
    origin: Origin


class CheckPassword(Request, frozen=True, gc=False):
    """Is this the user's password (or a token in its place)?"""

    operation: ClassVar[str] = "check-password"
    password: Secret


class FindKeys(Request, frozen=True, gc=False):
    """The SCRAM keys of the user for `hash` ("SHA-256" ...): answered by `Keys`. A `Proof` tells afterwards how it ended."""

    operation: ClassVar[str] = "find-keys"
    hash: str


class FindHashedTokens(Request, frozen=True, gc=False):
    """The user's FAST tokens made for `mechanism` ("HT-SHA-256-NONE" ...): answered by `HashedTokens`; a `Proof` follows."""

    operation: ClassVar[str] = "find-hashed-tokens"
    mechanism: str


class Proof(Request, frozen=True, gc=False):
    """How a proof ended that the mechanism itself checked (SCRAM, HT-*): `ok`, or why not.

    `backend` is whose keys they were, `credential` the one that matched.
    """

    operation: ClassVar[str] = "check-proof"
    reason: Reason
    backend: str = ""
    credential: str = ""


class CheckToken(Request, frozen=True, gc=False):
    """Is this bearer token good? `identity.user` is "" where the client left it to the token to name the user."""

    operation: ClassVar[str] = "check-token"
    token: Secret


class CheckCertificate(Request, frozen=True, gc=False):
    """May the user log in, whose name a verified client certificate proves?"""

    operation: ClassVar[str] = "check-certificate"


class Anonymous(Request, frozen=True, gc=False):
    """May somebody unknown have the fresh name `identity`? `trace` is what the client said of itself (RFC 4505)."""

    operation: ClassVar[str] = "anonymous"
    trace: str = ""


class UserExists(Request, frozen=True, gc=False):
    """Is there such an account?"""

    operation: ClassVar[str] = "user-exists"


class Decoy(Request, frozen=True, gc=False):
    """Spend the time that a password check takes: nobody knew the user, and the answer's time must not tell so."""

    operation: ClassVar[str] = "decoy"
    password: Secret


class FindAccount(Request, frozen=True, gc=False):
    """Describe the account: answered by `Accept` with attributes."""

    operation: ClassVar[str] = "find-account"


class ListUsers(Request, frozen=True, gc=False):
    """The accounts of `identity.domain` whose name comes after `identity.user`, at most `limit`, in order of name."""

    operation: ClassVar[str] = "list-users"
    limit: int = 1000


class SetPassword(Request, frozen=True, gc=False):
    """Replace the password of an existing account."""

    operation: ClassVar[str] = "set-password"
    password: Secret


class CreateUser(Request, frozen=True, gc=False):
    """Make a new account; refused with `user-exists` if any backend knows the name."""

    operation: ClassVar[str] = "create-user"
    password: Secret


class ImportedKeys(Struct, frozen=True, gc=False):
    """SCRAM keys of one hash ("SHA-256" ...) that another server made."""

    hash: str
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return f"ImportedKeys({self.hash!r}, ...)"


class ImportUser(Request, frozen=True, gc=False):
    """Make an account with the SCRAM keys that it had at another server; in another's place only if `replace`."""

    operation: ClassVar[str] = "import-user"
    iterations: int
    keys: tuple[ImportedKeys, ...]
    enabled: bool = True
    replace: bool = False


class RemoveUser(Request, frozen=True, gc=False):
    """Remove the account and all of its credentials."""

    operation: ClassVar[str] = "remove-user"


class PurgeUser(Request, frozen=True, gc=False):
    """Remove the account wherever that can be done: answered by `Accept`, also if there was none.

    Its attributes name the backends: `removed` says where, `kept` where it is still known and has to be removed by other means.
    """

    operation: ClassVar[str] = "purge-user"


class SetEnabled(Request, frozen=True, gc=False):
    """Allow or refuse all logins of an account, keeping its credentials."""

    operation: ClassVar[str] = "set-enabled"
    enabled: bool


# Answers ----------------------------------------------------------------------------------------------------------------------


class Accept(Struct, frozen=True, gc=False):
    """Yes. `identity` is the backend's own canonical name of the user and must equal the one asked for.

    `payload` goes to the client together with the success (X-OAUTH: the next token). `via` is how it is known, if the backend
    was not asked: "cache" or "grace".
    """

    identity: Identity
    attributes: Mapping[str, str] = NOTHING
    payload: Secret | None = None
    via: str = ""


class Reject(Struct, frozen=True, gc=False):
    """No, for this reason. The reason is for the administrator; clients are told only that it was refused.

    `via` is how it is known, if the backend was not asked: "repeat".
    """

    reason: Reason
    via: str = ""


class Candidate(Struct, frozen=True, gc=False):
    """SCRAM keys of one credential (password, app password, temporary token)."""

    credential: str
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return f"Candidate({self.credential!r}, ...)"


class Keys(Struct, frozen=True, gc=False):
    """What SCRAM needs of a user: one salt and iteration count, shared by all of the user's credentials (at most 16).

    `backend` is the name of whose keys these are; `refusal` the reason to give to somebody who proves to know the password but
    may not log in; `attributes` are those of the login, as in `Accept`.
    """

    identity: Identity
    salt: bytes
    iterations: int
    candidates: tuple[Candidate, ...]
    backend: str = ""
    refusal: Reason | None = None
    attributes: Mapping[str, str] = NOTHING


class HashedTokens(Struct, frozen=True, gc=False):
    """The user's FAST tokens by credential id, the newest slot first (XEP-0484 section 3.4); the rest as in `Keys`."""

    identity: Identity
    tokens: tuple[tuple[str, Secret], ...]
    backend: str = ""
    refusal: Reason | None = None
    attributes: Mapping[str, str] = NOTHING


class Listing(Struct, frozen=True, gc=False):
    """Some accounts, in order of name."""

    accounts: tuple[Accept, ...]


class Tokens(Struct, frozen=True, gc=False):
    """Tokens by kind, as clients store them (base64). `attributes` tell of them what is no secret."""

    identity: Identity
    tokens: Mapping[str, Secret]
    attributes: Mapping[str, str] = NOTHING


class Unavailable(Struct, frozen=True, gc=False):
    """Nobody can tell at present: neither yes nor no, and nothing that may be remembered as either."""

    reason: Reason
    detail: str = ""


Answer = Accept | Reject | Keys | HashedTokens | Listing | Tokens
Verdict = Answer | Unavailable

# Tells a verdict from what has to be waited for, at a fraction of what isinstance(..., Awaitable) costs.
VERDICTS = (Accept, Reject, Keys, HashedTokens, Listing, Tokens, Unavailable)
