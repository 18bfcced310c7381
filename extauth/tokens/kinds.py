"""The kinds of token in MongooseIM's format: one entry each."""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from extauth.model import NOTHING

HOUR = 3600
DAY = 24 * HOUR

TOKEN_SECRET = "token_secret"  # noqa: S105 - the name of a key
FAST_SECRET = "fast_secret"  # noqa: S105 - another
RELOGIN_SECRET = "relogin_secret"  # noqa: S105 - a third


class Kind(Struct, frozen=True, kw_only=True):
    """A kind of token.

    `name` is its first field; `key` names the key that signs it; `fields` are those after the expiry; `lifetime` is in seconds,
    if the configuration says nothing. A `one_time` token logs in once. `mechanisms` are those it may come by (none: any, also
    in a password's place). `attributes` are those of a login by it, beside the fields named in `told`; `restricts`: they forbid
    something, so the XMPP server must be one that enforces them. `renews`: who logged in by it gets further tokens.
    """

    name: str
    key: str
    lifetime: int
    fields: tuple[str, ...] = ()
    one_time: bool = False
    mechanisms: frozenset[str] = frozenset()
    attributes: Mapping[str, str] = NOTHING
    told: tuple[str, ...] = ()
    restricts: bool = False
    renews: bool = False


# These may carry something back to the client together with the success.
REPLYING = frozenset({"X-OAUTH"})

ACCESS = Kind(name="access", key=TOKEN_SECRET, lifetime=HOUR, renews=True)
REFRESH = Kind(name="refresh", key=TOKEN_SECRET, lifetime=25 * DAY, fields=("seq",), mechanisms=REPLYING, renews=True)
PROVISION = Kind(
    name="provision", key="provision_pre_shared", lifetime=DAY, fields=("vcard",), mechanisms=frozenset({"X-OAUTH"})
)
GUEST = Kind(
    name="guest",
    key="guest_secret",
    lifetime=8 * HOUR,
    fields=("rooms",),
    attributes=MappingProxyType({"role": "guest", "may-change-account": "no"}),
    told=("rooms",),
    restricts=True,
)

KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in (ACCESS, REFRESH, PROVISION, GUEST)})

KEYS = tuple(sorted({FAST_SECRET, RELOGIN_SECRET, *(kind.key for kind in KINDS.values())}))
