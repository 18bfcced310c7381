"""Token families: the one place that writes what tokens depend on.

A family is what one login of one device has begun: its refresh tokens follow each other, and all of its tokens end with it.
Each decision is one statement, so of two that come at once, from wherever, one is first. Nothing is remembered in memory.
"""

from collections.abc import Callable
from typing import NamedTuple

import structlog

from extauth.issuing import Login
from extauth.model import Identity, Reason
from extauth.soon import Soon, settle, then
from extauth.store import Row, Statement, Store, Value
from extauth.tokens.horizon import Horizon

_log = structlog.get_logger("sessions")

# A family that lives at $1 (Unix seconds), and that no revocation of its user or domain has overtaken.
_LIVES = (
    "ended = 0 AND ends > $1 AND NOT EXISTS (SELECT 1 FROM token_horizon h "
    "WHERE h.domain = family.domain AND h.name IN (family.name, '') AND h.not_before >= family.proven)"
)
_MINE = "id = $2 AND domain = $3 AND name = $4"
_USERS = "domain = $3 AND name = $4"

_BEGIN = (
    "INSERT INTO family (id, domain, name, device, proven, made, used, ends, seq, rotated, expires, ended, cause, cookie) "
    "SELECT $2, $3, $4, $5, $6, $7, $1, $8, 1, 0, $9, 0, '', $10 WHERE NOT EXISTS (SELECT 1 FROM token_horizon h "
    "WHERE h.domain = $3 AND h.name IN ($4, '') AND h.not_before >= $6) ON CONFLICT (id) DO NOTHING"
)
_RENEW = (
    "UPDATE family SET used = $1, expires = CASE WHEN expires > $1 THEN expires WHEN ends < $5 THEN ends ELSE $5 END "
    f"WHERE {_MINE} AND {_LIVES} RETURNING seq, expires, ends"
)
# $5 is the number presented. It is the one issued last: the next takes its place. It is the one before, whose successor was
# never used, and that was a moment ago: the successor is given again. Else two have it, and nobody can tell who is the thief.
_GOOD = "seq = $5 OR (seq - 1 = $5 AND rotated > $7 AND rotated < $8)"
_TURN = (
    f"UPDATE family SET ended = CASE WHEN {_GOOD} THEN ended ELSE $1 END, "
    f"cause = CASE WHEN {_GOOD} THEN cause ELSE 'reused' END, "
    "used = $1, rotated = CASE WHEN seq = $5 THEN $1 ELSE rotated END, "
    "seq = CASE WHEN seq = $5 THEN seq + 1 ELSE seq END"
)
_TURNED = f"WHERE {_MINE} AND {_LIVES}"
_TOLD = "RETURNING seq, expires, ends, ended"
_ROTATE = f"{_TURN}, expires = CASE WHEN seq <> $5 THEN expires WHEN ends < $6 THEN ends ELSE $6 END {_TURNED} {_TOLD}"
# Of relogin keys the family itself ends at $6, if it is not used before: but not later than $9 seconds after it was made. Who
# lacks the cookie has no turn, neither a good one nor a bad one.
_SLIDE = (
    f"{_TURN}, ends = CASE WHEN seq <> $5 THEN ends WHEN made / 1000 + $9 < $6 THEN made / 1000 + $9 ELSE $6 END "
    f"{_TURNED} AND (cookie IS NULL OR cookie = $10) {_TOLD}"
)
# What a new family ends of the same user, if it has begun.
_OTHERS = f"{_USERS} AND ended = 0 AND id <> $2 AND EXISTS (SELECT 1 FROM family f WHERE f.id = $2 AND f.ended = 0)"
_REPLACE = f"UPDATE family SET ended = $1, cause = 'replaced' WHERE {_OTHERS} AND device = $5"
_CAP = (
    f"UPDATE family SET ended = $1, cause = 'oldest' WHERE {_OTHERS} AND id NOT IN "
    f"(SELECT id FROM family WHERE {_USERS} AND {_LIVES} AND id <> $2 ORDER BY made DESC, id LIMIT $5) RETURNING id"
)
_PURGE = "DELETE FROM family WHERE domain = $1 AND name = $2 RETURNING id"
_SWEEP = "DELETE FROM family WHERE ends <= $1"
_STATE = "SELECT ended, cause, ends FROM family WHERE id = $1 AND domain = $2 AND name = $3"
_COLUMNS = "SELECT id, domain, name, device, made, used, ends, seq FROM family"
_OWNER = "SELECT name FROM family WHERE id = $1 AND domain = $2"
_FIND = f"{_COLUMNS} WHERE {_MINE} AND {_LIVES}"
_LIST = f"{_COLUMNS} WHERE {_USERS} AND id > $2 AND {_LIVES} ORDER BY id LIMIT $5"
_LIST_ALL = f"{_COLUMNS} WHERE domain = $3 AND id > $2 AND {_LIVES} ORDER BY id LIMIT $4"

_END = "UPDATE family SET ended = $1, cause = $2 WHERE ended = 0 AND domain = $3"
_HORIZON = (
    "INSERT INTO token_horizon (domain, name, not_before, seq, lifetime) "
    "SELECT $1, $2, $3, 2, COALESCE(MAX(seconds), 0) FROM token_lifetime WHERE latest > $4 "
    "ON CONFLICT (domain, name) DO UPDATE SET seq = token_horizon.seq + 1, "
    "lifetime = CASE WHEN token_horizon.not_before < excluded.not_before OR token_horizon.lifetime < excluded.lifetime "
    "THEN excluded.lifetime ELSE token_horizon.lifetime END, "
    "not_before = CASE WHEN token_horizon.not_before < excluded.not_before "
    "THEN excluded.not_before ELSE token_horizon.not_before END"
)
_BUMP_ALL = "UPDATE token_horizon SET seq = seq + 1 WHERE domain = $1 AND name <> ''"
_HORIZONS = "SELECT name, seq, not_before, lifetime FROM token_horizon WHERE domain = $1 AND name IN ($2, '')"
_NUMBER = (
    "INSERT INTO token_horizon (domain, name, not_before, seq) VALUES ($1, $2, 0, 1) ON CONFLICT (domain, name) DO UPDATE "
    "SET seq = token_horizon.seq RETURNING seq"
)
_LIFETIME = (
    "INSERT INTO token_lifetime (seconds, latest) VALUES ($1, $2) ON CONFLICT (seconds) DO UPDATE "
    "SET latest = CASE WHEN token_lifetime.latest < $2 THEN $2 ELSE token_lifetime.latest END"
)
_SWEEP_LIFETIMES = "DELETE FROM token_lifetime WHERE latest <= $1"
_SPEND = "INSERT INTO token_spent (mac, expires) VALUES ($1, $2) ON CONFLICT (mac) DO NOTHING RETURNING mac"
_SWEEP_SPENT = "DELETE FROM token_spent WHERE expires <= $1"


class Turn(NamedTuple):
    """The refresh token that a family has issued last: its number and expiry, and when the family ends (Unix seconds)."""

    number: int
    expires: int
    ends: int


class Session(NamedTuple):
    """A family as a person sees it. Times are Unix seconds; `ends` is when it ends whatever is done."""

    id: str
    identity: Identity
    device: str
    made: int
    used: int
    ends: int
    number: int


class Sessions:
    """The families in a store. `grace` is for how many seconds a lost successor is given once more; `cap` is per user.

    Everything raises BackendDown if the store can't tell.
    """

    def __init__(self, store: Store, now: Callable[[], float], *, grace: int, cap: int) -> None:
        self._store = store
        self._now = now
        self._grace = grace
        self._cap = cap
        self._admitted: dict[int, int] = {}  # what the store has of lifetimes: they only grow there

    # A family's life --------------------------------------------------------------------------------------------------------

    async def current(
        self, identity: Identity, login: Login, device: str, expires: int, ends: int, cookie: bytes | None = None
    ) -> Turn | Reason:
        """Return the refresh token that whoever made this login holds or is to hold; a primary login begins the family.

        `expires` is of the token if there has to be a new one, `ends` of the family if this begins it (Unix seconds);
        `cookie` is the digest of a cookie that `relogin` is bound to.
        """
        now = self._now()
        second = int(now)
        mine = (second, login.family, identity.domain, identity.user)
        renew: Statement = (_RENEW, (*mine, expires))
        if not login.primary:
            ([*renewed],) = await self._store.write(renew)
        else:
            begin: Statement = (_BEGIN, (*mine, device, login.at, int(now * 1000), ends, min(expires, ends), cookie))
            replace: list[Statement] = [(_REPLACE, (*mine, device))] if device else []
            cap: Statement = (_CAP, (*mine, self._cap - 1))  # among those that are left
            _, renewed, *_, ended, _ = await self._store.write(begin, renew, *replace, cap, (_SWEEP, (second,)))
            if ended:
                _log.info("a session too many ended the oldest", user=str(identity), ended=len(ended), max_sessions=self._cap)
        if renewed:
            return Turn(*map(_int, renewed[0]))
        why = await settle(self._why_not(identity, login.family))
        return Reason.TOKEN_REVOKED if login.primary and why is Reason.UNKNOWN_FAMILY else why  # it came too late

    async def rotate(self, identity: Identity, family: str, number: int, expires: int) -> Turn | Reason:
        """Use the refresh token `number` of a family. Returns its successor, or why there is none."""
        turn = await self._turn(_ROTATE, identity, family, number, expires)
        return await settle(self._why_not(identity, family)) if turn is None else turn

    async def relogin(
        self, identity: Identity, family: str, number: int, ends: int, lifetime: int, cookie: bytes
    ) -> Turn | Reason:
        """Use the relogin key `number` of a family: `rotate`, but it is the family that slides: it lives until `ends` now.

        `lifetime` is that of the family in all (seconds), `cookie` the digest of what came with the key.
        """
        turn = await self._turn(_SLIDE, identity, family, number, ends, lifetime, cookie)
        if turn is not None:
            return turn
        living = await settle(self.find(identity, family))
        return Reason.WRONG_TOKEN if living is not None else await settle(self._why_not(identity, family))

    async def _turn(
        self, sql: str, identity: Identity, family: str, number: int, until: int, *more: Value
    ) -> Turn | Reason | None:
        now = int(self._now())
        values = (now, family, identity.domain, identity.user, number, until, now - self._grace, now + self._grace)
        (rows,) = await self._store.write((sql, (*values, *more)))
        if not rows:
            return None
        *turn, ended = map(_int, rows[0])
        return Reason.TOKEN_REUSED if ended else Turn(*turn)

    def owner(self, domain: str, family: str) -> Soon[Identity | None]:
        """Return whose a family of the domain is, that there is or was not long ago."""
        rows = self._store.read(_OWNER, family, domain)
        return then(rows, lambda rows: Identity(str(rows[0][0]), domain) if rows else None)

    def find(self, identity: Identity, family: str) -> Soon[Session | None]:
        """Return a family; None: it has ended or been revoked, or there is none."""
        rows = self._store.read(_FIND, int(self._now()), family, identity.domain, identity.user)
        return then(rows, lambda rows: _session(rows[0]) if rows else None)

    def _why_not(self, identity: Identity, family: str) -> Soon[Reason]:
        rows = self._store.read(_STATE, family, identity.domain, identity.user)
        return then(rows, self._reason)

    def _reason(self, rows: list[Row]) -> Reason:
        if not rows:
            return Reason.UNKNOWN_FAMILY
        ended, cause, ends = rows[0]
        if ended:
            return Reason.TOKEN_REUSED if cause == "reused" else Reason.TOKEN_REVOKED
        return Reason.EXPIRED_TOKEN if _int(ends) <= self._now() else Reason.TOKEN_REVOKED

    # All of them ------------------------------------------------------------------------------------------------------------

    async def end(self, identity: Identity, cause: str, *, family: str = "", device: str = "") -> int:
        """Revoke one family, those of a device, or everything of the user, or (without one) of the domain.

        Returns how many families have ended by it.
        """
        now = self._now()
        second = int(now)
        domain, user = identity.domain, identity.user
        only: tuple[Value, ...] = (second, cause, domain)
        if family or device:
            column, value = ("id", family) if family else ("device", device)
            (ended,) = await self._store.write((f"{_END} AND {column} = $4 AND name = $5 RETURNING id", (*only, value, user)))
        elif user:
            # The horizon first: who begins a family at this moment is either before it and found, or sees it.
            horizon: Statement = (_HORIZON, (domain, user, int(now * 1000), second))
            _, ended = await self._store.write(horizon, (f"{_END} AND name = $4 RETURNING id", (*only, user)))
        else:
            horizon = (_HORIZON, (domain, "", int(now * 1000), second))
            _, _, ended = await self._store.write(horizon, (_BUMP_ALL, (domain,)), (f"{_END} RETURNING id", only))
        return len(ended)

    def living(self, identity: Identity, after: str, limit: int) -> Soon[list[Session]]:
        """Return the families that live of the user, or (without one) of the domain: after an id, in order of id."""
        start = (int(self._now()), after, identity.domain)
        if identity.user:
            rows = self._store.read(_LIST, *start, identity.user, limit)
        else:
            rows = self._store.read(_LIST_ALL, *start, limit)
        return then(rows, lambda rows: [_session(row) for row in rows])

    # Without families -------------------------------------------------------------------------------------------------------

    def horizon(self, identity: Identity) -> Soon[Horizon]:
        """Return what revocations left of the user's tokens."""
        return then(self._store.read(_HORIZONS, identity.domain, identity.user), _horizon)

    async def number(self, identity: Identity, login: Login, lifetime: int) -> int | Reason:
        """Return the user's sequence number for a refresh token; from now on the user has one.

        `lifetime` is that of access tokens (seconds): a login by one counts as made when that was issued.
        """
        ([[number]],) = await self._store.write((_NUMBER, (identity.domain, identity.user)))
        horizon = await settle(self.horizon(identity))
        void = any(login.at <= mark[0] for mark in horizon.marks) if login.primary else horizon.voids(login.at, lifetime)
        return Reason.TOKEN_REVOKED if void else _int(number)

    async def admit_lifetime(self, seconds: int, expires: int) -> None:
        """Keep that there may be an access token of this lifetime with this expiry, before there is.

        A revocation goes by it when that lifetime has long been changed in the configuration of whoever is asked.
        """
        if self._admitted.get(seconds, 0) < expires:
            latest = expires + seconds
            await self._store.write((_LIFETIME, (seconds, latest)), (_SWEEP_LIFETIMES, (int(self._now()),)))
            self._admitted[seconds] = latest

    async def spend(self, mac: str, expires: int) -> bool:
        """Use a one-time token up; False: it has been."""
        spent, _ = await self._store.write((_SPEND, (mac, expires)), (_SWEEP_SPENT, (int(self._now()),)))
        return bool(spent)


def purging(identity: Identity) -> Statement:
    """Return what deletes the user's families. What makes their tokens void stays, or they would be good again."""
    return _PURGE, (identity.domain, identity.user)


def _horizon(rows: list[Row]) -> Horizon:
    number = next((_int(row[1]) for row in rows if row[0] != ""), 1)
    return Horizon(number, tuple((_int(not_before), _int(lifetime)) for *_, not_before, lifetime in rows))


def _session(row: Row) -> Session:
    family, domain, name, device, made, *times = row
    used, ends, number = map(_int, times)
    return Session(str(family), Identity(str(name), str(domain)), str(device), _int(made) // 1000, used, ends, number)


def _int(value: Value) -> int:
    assert isinstance(value, int)
    return value
