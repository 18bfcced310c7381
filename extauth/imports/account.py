"""An account as another server keeps it, before anything is made of it here."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from msgspec import Struct

from extauth.model import Identity, Secret
from extauth.passwords.format import ScramEntry
from extauth.passwords.scram import MAX_ITERATIONS, Hash

FAMILIES = {family.length: family for family in Hash}  # by the length of a key


class Found(Struct, frozen=True):
    """An account: its password if it is known, else its SCRAM keys, all of one iteration count."""

    identity: Identity
    password: Secret | None = None
    keys: tuple[ScramEntry, ...] = ()
    enabled: bool = True


class Problem(Struct, frozen=True):
    """What can't be imported: where it stands, and why. No password is in it. `lost`: an account is, not only keys."""

    where: str
    why: str
    lost: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


def scram_keys(salt: bytes, iterations: int, stored_key: bytes, server_key: bytes) -> ScramEntry:
    """Return the keys; their hash is told by their length.

    Raises:
        ValueError: they are none.
    """
    family = FAMILIES.get(len(stored_key))
    if family is None or len(server_key) != len(stored_key) or not salt:
        raise ValueError("no SCRAM keys")
    if not 1 <= iterations <= MAX_ITERATIONS:
        raise ValueError(f"an iteration count that is not 1 to {MAX_ITERATIONS}")
    return ScramEntry(family, salt, iterations, stored_key, server_key)


def merged(found: Iterable[Found | Problem]) -> Iterator[Found | Problem]:
    """Make one account of all that was found about a user.

    A password makes keys needless. Of keys with several iteration counts those are kept whose count is that of the strongest
    hash, since here a user has one count.
    """
    users: defaultdict[Identity, list[Found]] = defaultdict(list)
    for item in found:
        if isinstance(item, Problem):
            yield item
        else:
            users[item.identity].append(item)
    for identity, parts in users.items():
        enabled = all(part.enabled for part in parts)
        password = next((part.password for part in parts if part.password is not None), None)
        by_hash = {keys.hash: keys for part in parts for keys in part.keys}
        if password is not None:
            yield Found(identity, password, enabled=enabled)
            continue
        strongest = max(by_hash.values(), key=lambda keys: keys.hash.length)
        kept = tuple(keys for keys in by_hash.values() if keys.iterations == strongest.iterations)
        if left := sorted(keys.hash.value for keys in by_hash.values() if keys not in kept):
            why = f"keys of {', '.join(left)} left out: another iteration count than those of {strongest.hash.value}"
            yield Problem(str(identity), why, lost=False)
        yield Found(identity, keys=kept, enabled=enabled)
