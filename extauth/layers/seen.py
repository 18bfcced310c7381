"""Who has logged in by which backend: a durable row for each, written at most once a day.

Of people known only by their tokens nobody else can tell whether they exist.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

import structlog

from extauth import subjects
from extauth.backend import Backend
from extauth.changes import is_about
from extauth.errors import BackendDown
from extauth.layers.rules import DAY
from extauth.model import (
    Accept,
    Answer,
    CheckCertificate,
    CheckPassword,
    CheckToken,
    Identity,
    RemoveUser,
    Request,
    UserExists,
)
from extauth.soon import Soon, settle, then
from extauth.store import Row, Statement, Store

LOGINS = (CheckPassword, CheckToken, CheckCertificate)
MOST = 100_000  # people of whom the process itself remembers that they have been seen today

_log = structlog.get_logger("seen")

_WHERE = "SELECT backend, last FROM seen WHERE domain = $1 AND name = $2"
_RECORD = (
    "INSERT INTO seen (domain, name, backend, last) VALUES ($1, $2, $3, $4) "
    "ON CONFLICT (domain, name, backend) DO UPDATE SET last = excluded.last"
)
_FORGET = "DELETE FROM seen WHERE domain = $1 AND name = $2 AND backend = $3 RETURNING backend"
_PURGE = "DELETE FROM seen WHERE domain = $1 AND name = $2 RETURNING backend"
_COUNT = "SELECT domain, COUNT(*) FROM seen WHERE backend = $1 AND last > $2 GROUP BY domain"


class Seen:
    """The rows. `now` returns Unix time in seconds."""

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._today: dict[tuple[Identity, str], int] = {}

    def by(self, identity: Identity) -> Soon[frozenset[str]]:
        """Return the names of the backends by which the user has logged in."""
        rows = self._store.read(_WHERE, identity.domain, identity.user)
        return then(rows, lambda rows: frozenset(str(backend) for backend, _ in rows))

    def record(self, identity: Identity, backend: str) -> Awaitable[None] | None:
        """Keep that the user has logged in; None if that is known of today.

        Raises:
            BackendDown: (when awaited) the store did not take it.
        """
        return None if self._today.get((identity, backend)) == int(self._now()) // DAY else self._record(identity, backend)

    async def _record(self, identity: Identity, backend: str) -> None:
        now = int(self._now())
        user = (identity.domain, identity.user)
        rows = await settle(self._store.read(_WHERE, *user))
        if not any(_is_recent(row, backend, now) for row in rows):
            await self._store.write((_RECORD, (*user, backend, now)))
        if len(self._today) >= MOST:
            self._today.clear()
        self._today[identity, backend] = now // DAY

    async def forget(self, identity: Identity, backends: Collection[str]) -> bool:
        """Forget the user's logins by these backends, and to which issuer the name belongs. False if there was nothing."""
        for backend in backends:
            self._today.pop((identity, backend), None)
        user = (identity.domain, identity.user)
        gone = await self._store.write(*((_FORGET, (*user, backend)) for backend in backends), subjects.purging(identity))
        return any(gone)

    def doubt(self, which: Iterable[tuple[Identity, str]] | None = None) -> None:
        """Look into the store again for these users of backends (None: for all): another process may have forgotten them."""
        if which is None:
            self._today.clear()
        else:
            for one in which:
                self._today.pop(one, None)

    async def count(self, backend: str, since: float) -> Mapping[str, int]:
        """Return how many users of each domain have logged in by a backend since then (Unix seconds)."""
        rows = await settle(self._store.read(_COUNT, backend, int(since)))
        return {str(domain): count for domain, count in rows if isinstance(count, int)}


def purging(identity: Identity) -> Statement:
    """Return what deletes all logins of a user."""
    return _PURGE, (identity.domain, identity.user)


def _is_recent(row: Row, backend: str, now: int) -> bool:
    name, last = row
    return name == backend and isinstance(last, int) and last > now - DAY


class Recording:
    """A backend whose logins are recorded before they are answered."""

    def __init__(self, name: str, backend: Backend, seen: Seen) -> None:
        self.handles = backend.handles
        self._name = name
        self._backend = backend
        self._seen = seen

    def answer(self, request: Request) -> Soon[Answer | None]:
        """Let the backend answer."""
        answer = self._backend.answer(request)
        return then(answer, lambda answer: self._note(request, answer)) if isinstance(request, LOGINS) else answer

    def _note(self, request: Request, answer: Answer | None) -> Soon[Answer | None]:
        if not isinstance(answer, Accept) or not is_about(answer.identity, request.identity):
            return answer
        recording = self._seen.record(answer.identity, self._name)
        return answer if recording is None else _after(recording, answer)


async def _after(recording: Awaitable[None], answer: Answer) -> Answer:
    try:
        await recording
    except BackendDown as down:  # no reason to refuse a good login
        _log.warning("a first login could not be recorded", problem=str(down))
    return answer


class SeenUsers:
    """The last member of a chain: says who exists of those whom its other members can't name (`backends`)."""

    def __init__(self, seen: Seen, backends: Collection[str], *, always: bool) -> None:
        self.handles: frozenset[type[Request]] = frozenset({UserExists} if always else {UserExists, RemoveUser})
        self._seen = seen
        self._backends = backends
        self._always = always

    def answer(self, request: Request) -> Soon[Answer | None]:
        """Tell whether the user has been seen, or forget that."""
        identity = request.identity
        if isinstance(request, RemoveUser):
            return self._remove(identity)
        if self._always:
            return Accept(identity)
        return then(self._seen.by(identity), lambda by: None if by.isdisjoint(self._backends) else Accept(identity))

    async def _remove(self, identity: Identity) -> Answer | None:
        return Accept(identity) if await self._seen.forget(identity, self._backends) else None
