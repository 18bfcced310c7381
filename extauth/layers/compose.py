"""Lays layers around backends, from the inside: watch, names, cache, learned keys; around members of a chain: the record."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal, NamedTuple

from extauth.backend import Backend, Context, Insight, no_insight
from extauth.changes import Member
from extauth.errors import ConfigError
from extauth.issuing import EndSessions
from extauth.layers.cache import Caching, Remembered
from extauth.layers.learning import Learning, learning
from extauth.layers.names import Naming
from extauth.layers.rules import Layers
from extauth.layers.seen import Recording, Seen, SeenUsers
from extauth.layers.watch import Condition, Watched
from extauth.model import CheckToken, Identity, UserExists

SEEN = "seen"  # how the audit line calls the record


class Layered(NamedTuple):
    """A backend with all that is around it, and the hashes that it has SCRAM keys for (None: all).

    `condition` is what was seen of it, `insight` gives what it knows of itself, `keyring` is whether its SCRAM keys are in the
    state store beside those of app passwords.
    """

    backend: Backend
    hashes: frozenset[str] | None
    remembered: Remembered
    learning: Learning | None
    condition: Condition
    insight: Callable[[], Insight]
    keyring: bool

    def forget(self, identity: Identity) -> None:
        """Forget what the process remembers of a user; what is in the store stays."""
        self.remembered.forget(identity)
        if self.learning is not None:
            self.learning.forget(identity)

    def outdate(self, identity: Identity) -> None:
        """Forget a user, and learn nothing from what was asked before now."""
        self.remembered.forget(identity)
        if self.learning is not None:
            self.learning.outdate(identity)

    def forget_matching(self, mask: str) -> int:
        """Forget the users whose bare JID matches a shell pattern, and return how much the cache had of them."""
        if self.learning is not None:
            self.learning.forget_matching(mask)
        return self.remembered.forget_matching(mask)


@asynccontextmanager
async def surround(
    backend: Backend,
    rules: Layers,
    context: Context,
    seen: Seen,
    remembered: Remembered | None,
    condition: Condition | None = None,
) -> AsyncGenerator[Layered, None]:
    """Lay around a backend what its table asks for. `remembered` and `condition` are what is to be kept from before, if any.

    Raises:
        ConfigError: a layer does not fit the backend.
    """
    hashes: frozenset[str] | None = getattr(backend, "hashes", None)
    memory = Remembered(rules.cache.entries) if remembered is None else remembered
    condition = condition or Condition(context.now)
    insight: Callable[[], Insight] = getattr(backend, "insight", no_insight)
    keyring = bool(getattr(backend, "keyring", False)) and not rules.names.used  # under the names that users have here
    backend = Watched(backend, condition)
    async with AsyncExitStack() as stack:
        if rules.names.used:
            backend = Naming(backend, rules.names)
        if rules.cache.used:
            if CheckToken in backend.handles:
                raise ConfigError([f"backend.{context.name}.cache: this backend takes tokens, whose end a cache would miss"])
            backend = Caching(context.name, backend, rules.cache, memory)
        layer: Learning | None = None
        if rules.learn_scram != "off":
            backend = layer = await stack.enter_async_context(learning(backend, rules, context, seen))
        yield Layered(
            backend, hashes if layer is None else None, memory, layer, condition, insight, keyring or layer is not None
        )


def with_record(members: Sequence[Member], exists: Literal["seen", "always", "never"], seen: Seen) -> list[Member]:
    """Return the members of a chain, able to tell whether somebody exists who is known only by tokens of others.

    Who has tokens of ours is known to the backend for which they were issued.
    """
    silent = [member.name for member in members if {UserExists, EndSessions}.isdisjoint(member.backend.handles)]
    if not silent or exists == "never":
        return list(members)
    last = Member(SEEN, SeenUsers(seen, silent, always=exists == "always"))
    if exists == "always":
        return [*members, last]
    recording: Mapping[str, Backend] = {m.name: Recording(m.name, m.backend, seen) for m in members if m.name in silent}
    return [*(Member(m.name, recording.get(m.name, m.backend), m.on_reject) for m in members), last]
