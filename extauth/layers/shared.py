"""What processes that share a store tell each other to forget: caches are each one's own, changes concern them all."""

import math
import time
from collections.abc import Callable, Mapping

from extauth.layers.compose import Layered
from extauth.layers.seen import Seen
from extauth.model import Identity
from extauth.store import SharedStore, announcing

RECENT = 300.0  # seconds, longer than anybody takes to log in

# What is announced begins with one of these; anything else is of a newer version, and taken for "everything".
_USER = "forget "  # user@domain
_MASK = "forget-matching "  # a shell pattern of bare JIDs


class Caches:
    """All that this process remembers of users beside the store. `layered` returns the backends in force."""

    def __init__(self, store: SharedStore, seen: Seen, layered: Callable[[], Mapping[str, Layered]]) -> None:
        self._store = store
        self._seen = seen
        self._layered = layered
        self._changed: dict[Identity, float] = {}  # when that was heard last, in monotonic seconds; the oldest first
        self._missed = -math.inf  # when it was heard last that somebody has changed, though not who
        store.subscribe(self._hear)

    async def forget(self, identity: Identity) -> None:
        """Forget a user about whom something has changed: here at once, elsewhere as soon as it is heard.

        Raises:
            BackendDown: the others may not hear it.
        """
        self._forget(identity)
        await self._store.write(announcing(f"{_USER}{identity}"))

    def changed_since(self, identity: Identity, when: float) -> bool:
        """Tell whether something may have changed about a user since then (monotonic seconds, at most `RECENT` ago)."""
        return max(self._changed.get(identity, -math.inf), self._missed) >= when

    async def forget_matching(self, mask: str) -> int:
        """Forget the users whose bare JID matches a shell pattern, everywhere. Returns how much that was here.

        Raises:
            BackendDown: the others may not hear it.
        """
        forgotten = self._forget_matching(mask)
        await self._store.write(announcing(f"{_MASK}{mask}"))
        return forgotten

    def _hear(self, text: str | None) -> None:
        if text is not None and text.startswith(_USER):
            user, _, domain = text.removeprefix(_USER).partition("@")
            self._forget(Identity(user, domain))
        elif text is not None and text.startswith(_MASK):
            self._forget_matching(text.removeprefix(_MASK))
        else:
            self._forget_matching("*")
            self._seen.doubt()
            self._missed = time.monotonic()

    def _forget(self, identity: Identity) -> None:
        layered = self._layered()
        for entry in layered.values():
            entry.forget(identity)
        self._seen.doubt([(identity, backend) for backend in layered])
        self._note(identity)

    def _note(self, identity: Identity) -> None:
        now = time.monotonic()
        self._changed.pop(identity, None)
        self._changed[identity] = now
        while self._changed[oldest := next(iter(self._changed))] < now - RECENT:
            del self._changed[oldest]

    def _forget_matching(self, mask: str) -> int:
        return sum(entry.forget_matching(mask) for entry in self._layered().values())
