"""What is remembered of passwords in one process, by fingerprints: never the passwords themselves."""

import hashlib
import secrets
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

from extauth.model import Identity

T = TypeVar("T")

_KEY = secrets.token_bytes(hashlib.blake2b.MAX_KEY_SIZE)  # of this process alone


def framed(*parts: str) -> bytes:
    """Return the parts as one sequence of octets that no other parts give: each has its length in front."""
    octets = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(len(part).to_bytes(8) + part for part in octets)


def fingerprint(*parts: str) -> bytes:
    """Return what stands for the parts in this process: a keyed hash (RFC 7693)."""
    return hashlib.blake2b(framed(*parts), digest_size=32, key=_KEY).digest()


class Memory(Generic[T]):
    """At most `size` things by fingerprint, each about a user; the oldest goes first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._things: dict[bytes, tuple[Identity, T]] = {}
        self._users: dict[Identity, set[bytes]] = {}

    def __len__(self) -> int:
        return len(self._things)

    def get(self, print_: bytes) -> T | None:
        """Return what is remembered under a fingerprint."""
        found = self._things.get(print_)
        return None if found is None else found[1]

    def put(self, print_: bytes, identity: Identity, thing: T) -> None:
        """Remember a thing, in the place of what was there."""
        self.drop(print_)
        if len(self._things) >= self._size:
            self.drop(next(iter(self._things)))
        self._things[print_] = (identity, thing)
        self._users.setdefault(identity, set()).add(print_)

    def drop(self, print_: bytes) -> None:
        """Forget one thing."""
        found = self._things.pop(print_, None)
        if found is not None:
            identity = found[0]
            self._users[identity].discard(print_)
            if not self._users[identity]:
                del self._users[identity]

    def forget(self, identity: Identity) -> int:
        """Forget all about a user, and return how much that was."""
        prints = self._users.pop(identity, set())
        for print_ in prints:
            del self._things[print_]
        return len(prints)

    def forget_matching(self, mask: str) -> int:
        """Forget all about the users whose bare JID matches a shell pattern, and return how much that was."""
        return sum(self.forget(identity) for identity in list(self._users) if fnmatchcase(str(identity), mask))
