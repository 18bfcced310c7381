"""What the store holds about a user, whichever part of the daemon has written it. The owners of the tables know how."""

from collections.abc import Mapping, Sequence

from extauth import credentials, fasttokens, keyring, sessions, subjects
from extauth.layers import seen
from extauth.model import Identity
from extauth.store import Statement, Store

# What is left is told, with why.
REMAINS = (
    "audit lines in the log",
    "where tokens are issued, the time before which they are void: those that are still out would be good again without it",
)


def _purging(identity: Identity) -> Mapping[str, Sequence[Statement]]:
    """Return for each kind of thing what deletes it, with a row returned for each."""
    return {
        "sessions": [sessions.purging(identity)],
        "devices": [fasttokens.purging(identity)],
        "credentials": [credentials.purging(identity)],
        "keys": keyring.dropping_all(identity),
        "logins": [seen.purging(identity)],
        "subjects": [subjects.purging(identity)],
    }


async def purge(store: Store, identity: Identity) -> Mapping[str, int]:
    """Delete all of a user, and return how much there was of each kind.

    Raises:
        BackendDown: the store did not take it.
    """
    purging = _purging(identity)
    results = iter(await store.write(*(statement for statements in purging.values() for statement in statements)))
    return {kind: sum(len(next(results)) for _ in statements) for kind, statements in purging.items()}
