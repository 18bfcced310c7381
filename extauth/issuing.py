"""The requests about tokens and sessions: they go to whoever keeps tokens, whosever the account is."""

from collections.abc import Mapping
from typing import ClassVar

from msgspec import Struct

from extauth.model import NOTHING, Request, Secret

LONGEST_LABEL = 1023  # octets, as of the resource of a JID (RFC 7622 section 3.4), which is a device's name often enough


def is_label(text: str) -> bool:
    """Tell whether a text may name a device or a credential; "" names none."""
    return len(text.encode("utf-8", "surrogatepass")) <= LONGEST_LABEL and "\0" not in text


class Login(Struct, frozen=True, gc=False):
    """A login that gets tokens. `at` is when it began, Unix time in milliseconds.

    `family` is what the tokens belong to: of a login by a token that token's, of a primary one (a password, a certificate) the
    id that the family will have if tokens are asked for.
    """

    at: int
    family: str
    primary: bool


class IssueTokens(Request, frozen=True, gc=False):
    """Give the user of a login an access and a refresh token: answered by `Tokens`. `device` is a name the client chose."""

    operation: ClassVar[str] = "issue-tokens"
    login: Login
    device: str = ""


class StartRelogin(Request, frozen=True, gc=False):
    """Begin a session of relogin keys after a primary login: answered by `Tokens`, the first key.

    `cookie`: the session is bound to it; None: to none.
    """

    operation: ClassVar[str] = "start-relogin"
    login: Login
    device: str = ""
    cookie: Secret | None = None


class Relogin(Request, frozen=True, gc=False):
    """Log in by a relogin key of the domain, which names the user: answered by `Tokens`, the next. `cookie` came with it."""

    operation: ClassVar[str] = "relogin"
    key: Secret
    cookie: Secret | None = None


class IssueToken(Request, frozen=True, gc=False):
    """Make one token of another kind, by order of an administrator; `lifetime` in seconds (0: as configured)."""

    operation: ClassVar[str] = "issue-token"
    kind: str
    fields: Mapping[str, str] = NOTHING
    lifetime: int = 0


class InspectToken(Request, frozen=True, gc=False):
    """What would a login by this token of the domain end in? It is not used up: answered by `Accept` with attributes."""

    operation: ClassVar[str] = "inspect-token"
    token: Secret


class ListSessions(Request, frozen=True, gc=False):
    """The token families of the user, or of everybody in the domain whose id comes after `after`, in order of id."""

    operation: ClassVar[str] = "list-sessions"
    after: str = ""
    limit: int = 1000


class EndSessions(Request, frozen=True, gc=False):
    """Revoke a family, those of a device, all tokens of the user, or (no user) of the domain; `cause` is a word for lists.

    It is durable when it is answered: by `Accept`, whose attribute `ended` counts the families.
    """

    operation: ClassVar[str] = "end-sessions"
    cause: str
    family: str = ""
    device: str = ""


class IssueCredential(Request, frozen=True, gc=False):
    """Give the user an app password or a temporary token: answered by `Tokens`.

    `lifetime` is in seconds (0: as configured); `mechanism` the one it is good for ("": any).
    """

    operation: ClassVar[str] = "issue-credential"
    kind: str
    label: str = ""
    lifetime: int = 0
    one_time: bool = False
    mechanism: str = ""


class ListCredentials(Request, frozen=True, gc=False):
    """The app passwords and temporary tokens of the user: answered by `Listing`."""

    operation: ClassVar[str] = "list-credentials"


class EndCredential(Request, frozen=True, gc=False):
    """Revoke what the user has with this id or label: answered by `Accept`, whose attribute `ended` counts."""

    operation: ClassVar[str] = "end-credential"
    which: str


ABOUT_TOKENS = (
    *(IssueTokens, StartRelogin, Relogin, IssueToken, InspectToken, ListSessions, EndSessions),
    *(IssueCredential, ListCredentials, EndCredential),
)

# Candidates of SCRAM and tokens of HT-* whose use has to be told to who has issued them: the beginnings of their ids.
ISSUED = ("app:", "temporary:", "fast:")
