"""Whose a name is of those whom issuers of tokens know.

It belongs to the first who logged in by it, as the issuer's own lasting name for that person has it (`iss` and `sub`): neither
another issuer nor a later bearer of the same nickname gets in by it.
"""

from extauth.model import Accept, Answer, Identity, Reason, Reject
from extauth.soon import Soon, settle, then
from extauth.store import Row, Statement, Store

_FIND = "SELECT issuer, subject FROM subject WHERE domain = $1 AND name = $2"
_CLAIM = (
    "INSERT INTO subject (domain, name, issuer, subject) VALUES ($1, $2, $3, $4) ON CONFLICT (domain, name) DO NOTHING "
    "RETURNING name"
)
_PURGE = "DELETE FROM subject WHERE domain = $1 AND name = $2 RETURNING subject"


def admit(store: Store, accepted: Accept, issuer: str, subject: str) -> Soon[Answer | None]:
    """Return `accepted` if its name is that of `issuer`'s `subject`, who now has it if nobody had.

    Raises (at once or when awaited):
        BackendDown: the store can't tell.
    """
    return then(_find(store, accepted.identity), lambda rows: _weigh(rows, store, accepted, issuer, subject))


def purging(identity: Identity) -> Statement:
    """Return what makes the name nobody's."""
    return _PURGE, (identity.domain, identity.user)


def _find(store: Store, identity: Identity) -> Soon[list[Row]]:
    return store.read(_FIND, identity.domain, identity.user)


def _weigh(rows: list[Row], store: Store, accepted: Accept, issuer: str, subject: str) -> Soon[Answer | None]:
    if not rows:
        return _claim(store, accepted, issuer, subject)
    return accepted if rows[0] == (issuer, subject) else Reject(Reason.NAME_TAKEN)


async def _claim(store: Store, accepted: Accept, issuer: str, subject: str) -> Answer:
    identity = accepted.identity
    (claimed,) = await store.write((_CLAIM, (identity.domain, identity.user, issuer, subject)))
    if claimed or (issuer, subject) in await settle(_find(store, identity)):
        return accepted
    return Reject(Reason.NAME_TAKEN)  # somebody came first
