"""App passwords and temporary tokens in the state store: the one place that writes them.

Each has a row; where SCRAM is wanted it has SCRAM keys beside the user's password, too (`extauth.keyring`). A login by either
is one use of the row, and that is one statement: of two that use a one-time token at once, one is first.
"""

import hmac
from collections.abc import Callable, Sequence
from typing import NamedTuple

from extauth.keyring import Keyring
from extauth.model import Identity, Reason, Secret
from extauth.soon import settle
from extauth.store import Row, Statement, Store, Value
from extauth.tokens import credential
from extauth.tokens.credential import APP, Claim

REMEMBERED = 60  # seconds between two writes of when a credential was last used

_ADD = (
    "INSERT INTO credential (id, domain, name, kind, label, digest, mechanism, one_time, made, expires, used) "
    "SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0 "
    "WHERE $4 <> 'app' OR (SELECT COUNT(*) FROM credential WHERE domain = $2 AND name = $3 AND kind = 'app') < $11 RETURNING id"
)
_SWEEP = "DELETE FROM credential WHERE expires <= $1"
_FIND = "SELECT domain, name, kind, label, digest, mechanism, one_time, expires, used FROM credential WHERE id = $1"
_USE = "UPDATE credential SET used = $2 WHERE id = $1 AND (one_time = 0 OR used = 0) RETURNING id"
_LIST = (
    "SELECT id, kind, label, mechanism, one_time, made, expires, used FROM credential "
    "WHERE domain = $1 AND name = $2 AND (expires IS NULL OR expires > $3) ORDER BY made, id"
)
_END = "DELETE FROM credential WHERE domain = $1 AND name = $2 AND (id = $3 OR label = $3) RETURNING id, kind"
_END_USER = "DELETE FROM credential WHERE domain = $1 AND name = $2 RETURNING id"
_END_DOMAIN = "DELETE FROM credential WHERE domain = $1 RETURNING id"


class Terms(NamedTuple):
    """What a credential is for. `lifetime` is in seconds (None: for ever); `mechanism` "": any."""

    kind: str
    label: str = ""
    lifetime: int | None = None
    one_time: bool = False
    mechanism: str = ""


class Issued(NamedTuple):
    """A credential as a person sees it. Times are Unix seconds; `expires` None: never; `used` 0: never."""

    id: str
    kind: str
    label: str
    mechanism: str
    one_time: bool
    made: int
    expires: int | None
    used: int


class Used(NamedTuple):
    """A login by a credential."""

    identity: Identity
    kind: str
    label: str


class Credentials:
    """The credentials in a store. Without a `keyring` they are no candidates of SCRAM. `cap` is of app passwords per user.

    Everything raises BackendDown if the store can't tell.
    """

    def __init__(self, store: Store, keyring: Keyring | None, now: Callable[[], float], cap: int) -> None:
        self._store = store
        self._keyring = keyring
        self._now = now
        self._cap = cap

    async def issue(self, identity: Identity, terms: Terms) -> tuple[str, Secret, int | None] | Reason:
        """Issue a credential to a user. Returns its id, its text, shown this once, and its expiry; or why there is none."""
        claim = credential.make(terms.kind)
        now = int(self._now())
        expires = None if terms.lifetime is None else now + terms.lifetime
        what: tuple[Value, ...] = (terms.kind, terms.label, credential.digest(claim.text), terms.mechanism, int(terms.one_time))
        values = (claim.id, identity.domain, identity.user, *what, now, expires, self._cap)
        added, _ = await self._store.write((_ADD, values), (_SWEEP, (now,)))
        if not added:
            return Reason.NOT_ALLOWED
        keys = self._keyring
        if keys is not None and not await keys.add(identity, f"{terms.kind}:{claim.id}", claim.text.reveal(), expires):
            await self.end(identity, claim.id)  # the password was changed meanwhile, which ends what was issued before
            return Reason.TOKEN_REVOKED
        return claim.id, claim.text, expires

    async def check(self, claim: Claim, mechanism: str) -> Used | Reason:
        """Log in by a text."""
        rows = await settle(self._store.read(_FIND, claim.id))
        known = rows[0][4] if rows else b""
        assert isinstance(known, bytes)
        if not hmac.compare_digest(known, credential.digest(claim.text)):
            return Reason.BAD_TOKEN
        return await self._use(claim.id, rows[0], mechanism)

    async def proven(self, name: str, mechanism: str) -> Used | Reason:
        """Log in by the candidate `name` of SCRAM, whose text the client has proven to know."""
        word = name.partition(":")[2]
        rows = await settle(self._store.read(_FIND, word))
        return await self._use(word, rows[0], mechanism) if rows else Reason.TOKEN_REVOKED

    async def _use(self, word: str, row: Row, mechanism: str) -> Used | Reason:
        domain, name, kind, label, _, bound, one_time, expires, used = row
        now = int(self._now())
        if isinstance(expires, int) and expires <= now:
            return Reason.EXPIRED_TOKEN
        if bound not in ("", mechanism):
            return Reason.WRONG_TOKEN
        assert isinstance(used, int)
        if one_time or now - used >= REMEMBERED:
            (first,) = await self._store.write((_USE, (word, now)))
            if not first:
                return Reason.TOKEN_REUSED if one_time else Reason.TOKEN_REVOKED
        return Used(Identity(str(name), str(domain)), str(kind), str(label))

    async def issued(self, identity: Identity) -> list[Issued]:
        """Return what a user has, in order of age."""
        rows = await settle(self._store.read(_LIST, identity.domain, identity.user, int(self._now())))
        return [_issued(row) for row in rows]

    async def end(self, identity: Identity, which: str) -> int:
        """Revoke the credentials of a user with this id or label; return how many there were."""
        (ended,) = await self._store.write((_END, (identity.domain, identity.user, which)))
        if self._keyring is not None and ended:
            drops = [self._keyring.dropping(identity, f"{kind!s}:{word!s}") for word, kind in ended]
            await self._store.write(*(statement for statements in drops for statement in statements))
        return len(ended)

    async def end_all(self, identity: Identity) -> int:
        """Revoke everything of a user, or (without one) of the domain; return how much there was."""
        statement: Statement = (_END_DOMAIN, (identity.domain,))
        if identity.user:
            statement = (_END_USER, (identity.domain, identity.user))
        drops: Sequence[Statement] = self._keyring.dropping_issued(identity) if self._keyring else ()
        ended, *_ = await self._store.write(statement, *drops)
        return len(ended)


def purging(identity: Identity) -> Statement:
    """Return what deletes all credentials of a user, but for their SCRAM keys."""
    return _END_USER, (identity.domain, identity.user)


def _issued(row: Row) -> Issued:
    word, kind, label, mechanism, one_time, made, expires, used = row
    assert isinstance(made, int)
    assert isinstance(used, int)
    assert expires is None or isinstance(expires, int)
    return Issued(str(word), str(kind), str(label), str(mechanism), bool(one_time), made, expires, used)


__all__ = ["APP", "Credentials", "Issued", "Terms", "Used"]
