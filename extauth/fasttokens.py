"""FAST tokens of devices (XEP-0484) for the HT-* mechanisms: the one place that writes them.

The text of such a token is the key of a MAC, so a digest of it would not do. It is derived instead: from a key of the domain,
the user, the device and a counter. The store holds the counters: the newest, and the one that is in use until the newest is.
"""

import base64
import hmac
from collections.abc import Callable

import structlog

from extauth.keystore import Keystore
from extauth.model import Identity, Reason, Secret
from extauth.soon import settle
from extauth.store import Row, Statement, Store
from extauth.tokens.kinds import FAST_SECRET

_log = structlog.get_logger("fast")

PREFIX = "fast:"  # of credential ids

_ISSUE = (
    "INSERT INTO fast_token (domain, name, device, mechanism, counter, expires, in_use, in_use_expires) "
    "VALUES ($1, $2, $3, $4, 1, $5, 0, 0) ON CONFLICT (domain, name, device) DO UPDATE SET "
    # Until one has been used, the client may have either of the last two.
    "in_use = CASE WHEN fast_token.mechanism <> $4 THEN 0 WHEN fast_token.in_use = 0 THEN fast_token.counter "
    "ELSE fast_token.in_use END, "
    "in_use_expires = CASE WHEN fast_token.in_use = 0 THEN fast_token.expires ELSE fast_token.in_use_expires END, "
    "mechanism = $4, counter = fast_token.counter + 1, expires = $5 RETURNING counter"
)
_CAP = (
    "DELETE FROM fast_token WHERE domain = $1 AND name = $2 AND device <> $3 AND device NOT IN (SELECT device FROM fast_token "
    "WHERE domain = $1 AND name = $2 AND device <> $3 ORDER BY expires DESC, device LIMIT $4) RETURNING device"
)
_SWEEP = "DELETE FROM fast_token WHERE expires <= $1"
_FIND = (
    "SELECT device, counter, expires, in_use, in_use_expires FROM fast_token "
    "WHERE domain = $1 AND name = $2 AND mechanism = $3 AND expires > $4 ORDER BY device"
)
_STATE = "SELECT counter, in_use FROM fast_token WHERE domain = $1 AND name = $2 AND device = $3"
_USE = (
    "UPDATE fast_token SET in_use = counter, in_use_expires = expires "
    "WHERE domain = $1 AND name = $2 AND device = $3 AND counter = $4 RETURNING counter"
)
_END_DEVICE = "DELETE FROM fast_token WHERE domain = $1 AND name = $2 AND device = $3 RETURNING device"
_END_USER = "DELETE FROM fast_token WHERE domain = $1 AND name = $2 RETURNING device"
_END_DOMAIN = "DELETE FROM fast_token WHERE domain = $1 RETURNING device"


class FastTokens:
    """The tokens of all devices. `lifetime` is in seconds, `cap` is of devices per user.

    Everything raises BackendDown if the store can't tell.
    """

    def __init__(self, store: Store, keys: Keystore, now: Callable[[], float], lifetime: int, cap: int) -> None:
        self._store = store
        self._keys = keys
        self._now = now
        self._lifetime = lifetime
        self._cap = cap

    async def issue(self, identity: Identity, device: str, mechanism: str) -> tuple[Secret, int]:
        """Return a new token of a device for a mechanism, and its expiry. The one in use stays good until this one is used.

        A device too many ends those of the device that got its token first.
        """
        now = int(self._now())
        expires = now + self._lifetime
        key = await self._keys.signing(identity.domain, FAST_SECRET, expires)
        values = (identity.domain, identity.user, device, mechanism, expires)
        cap = (_CAP, (identity.domain, identity.user, device, self._cap - 1))
        ((counter,),), _, ended = await self._store.write((_ISSUE, values), (_SWEEP, (now,)), cap)
        if ended:
            _log.info("a device too many ended the FAST tokens of the oldest", user=str(identity), max_sessions=self._cap)
        return _derive(key, identity, device, counter), expires

    async def find(self, identity: Identity, mechanism: str) -> tuple[tuple[str, Secret], ...]:
        """Return the tokens that are good for a mechanism, by credential id; of each device the newest first."""
        now = int(self._now())
        rows = await settle(self._store.read(_FIND, identity.domain, identity.user, mechanism, now))
        keys = await settle(self._keys.keys(identity.domain, FAST_SECRET)) if rows else ()
        return tuple(
            (f"{PREFIX}{counter}:{device}", _derive(key.value, identity, device, counter))
            for row in rows
            for device, counter in _slots(row, now)
            for key in keys
        )

    async def use(self, identity: Identity, credential: str) -> Reason:
        """Log in by the token whose credential id this is: `ok`, or why not. Its use ends the one before it."""
        count, _, device = credential.removeprefix(PREFIX).partition(":")
        user = (identity.domain, identity.user, device)
        rows = await settle(self._store.read(_STATE, *user))
        if not rows:
            return Reason.TOKEN_REVOKED
        counter, in_use = rows[0]
        if int(count) == in_use:
            return Reason.OK
        if int(count) != counter:
            return Reason.TOKEN_REUSED
        (used,) = await self._store.write((_USE, (*user, int(count))))
        return Reason.OK if used else Reason.TOKEN_REVOKED

    async def end(self, identity: Identity, device: str = "") -> int:
        """Revoke the tokens of a device, of the user, or (without one) of the domain; return of how many devices."""
        domain, user = identity.domain, identity.user
        if device:
            statement: Statement = (_END_DEVICE, (domain, user, device))
        else:
            statement = (_END_USER, (domain, user)) if user else (_END_DOMAIN, (domain,))
        (ended,) = await self._store.write(statement)
        return len(ended)


def purging(identity: Identity) -> Statement:
    """Return what deletes the tokens of all of a user's devices."""
    return _END_USER, (identity.domain, identity.user)


def _slots(row: Row, now: int) -> list[tuple[str, int]]:
    device, counter, _, in_use, in_use_expires = row
    assert isinstance(counter, int)
    assert isinstance(in_use, int)
    assert isinstance(in_use_expires, int)
    older = [(str(device), in_use)] if 0 < in_use < counter and in_use_expires > now else []
    return [(str(device), counter), *older]


def _derive(key: bytes, identity: Identity, device: str, counter: object) -> Secret:
    text = "\0".join(("fast", identity.domain, identity.user, device, str(counter)))
    return Secret(base64.urlsafe_b64encode(hmac.digest(key, text.encode(), "sha256")).decode().rstrip("="))
