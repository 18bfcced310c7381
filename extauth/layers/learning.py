"""A layer that makes SCRAM keys of the passwords that a backend has accepted.

So people of a directory, which shows nobody their passwords, can log in by SCRAM the next time. The keys are derived after the
answer, one user at a time, in the threads of key derivation; what is too much to queue is left to the next login.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import structlog
import trio
from msgspec import Struct

from extauth.backend import Backend, Context
from extauth.changes import CHANGES
from extauth.errors import BackendDown, ConfigError
from extauth.keyring import LEARNED, Keyring, Ring
from extauth.layers.memory import Memory, fingerprint
from extauth.layers.rules import DAY, Layers
from extauth.layers.seen import Seen
from extauth.model import (
    NOTHING,
    Accept,
    Answer,
    CheckCertificate,
    CheckPassword,
    CheckToken,
    FindKeys,
    Identity,
    Keys,
    Reason,
    Reject,
    RemoveUser,
    Request,
    Secret,
    SetPassword,
)
from extauth.passwords.prepare import for_checking, for_storing
from extauth.soon import Soon, settle, then

QUEUE = 1000  # passwords that wait for their keys to be derived
REMEMBERED = 10_000  # passwords that need not be looked at again
RENEWALS = 10  # in the life of a user's keys, at most
PATIENCE = 600.0  # seconds that a password may wait; one that waits longer is not looked at

_log = structlog.get_logger("learning")


class Share(NamedTuple):
    """How many users of a domain logged in within the life of keys, and how many of these have keys."""

    active: int
    with_keys: int


class _Lesson(Struct, frozen=True, gc=False):
    """A password that the backend has accepted or refused, when it was asked at `asked` (trio's clock)."""

    identity: Identity
    password: Secret
    accepted: bool
    asked: float

    @property
    def fingerprint(self) -> bytes:
        """What stands for it in this process."""
        return fingerprint(self.identity.domain, self.identity.user, str(self.accepted), self.password.reveal())


class Learning:
    """A backend whose users get SCRAM keys. `offer`: by which they may log in."""

    def __init__(self, backend: Backend, rules: Layers, context: Context, seen: Seen) -> None:
        self._backend = backend
        self._name = context.name
        self._context = context
        self._credential = f"{LEARNED}{context.name}"
        self._life = rules.learn_days * DAY
        self._rechecks = rules.learn_recheck and CheckCertificate in backend.handles
        self._keyring = Keyring(context.store, context.hashing, context.now, rules.learn_iterations)
        self._seen = seen
        self._known: Memory[float] = Memory(REMEMBERED)  # until when a password need not be looked at again
        self._changing: list[Identity] = []
        self._dropped: dict[Identity, float] = {}  # when somebody's keys were dropped: what was asked before is of no use
        self._lessons, self._to_learn = trio.open_memory_channel[_Lesson](QUEUE)
        self.handles = backend.handles | {FindKeys} if rules.learn_scram == "offer" else backend.handles

    def answer(self, request: Request) -> Soon[Answer | None]:
        """Find keys among those learned; let the backend answer all else, and learn from it."""
        if isinstance(request, CheckPassword):
            asked = trio.current_time()
            return then(self._backend.answer(request), lambda answer: self._heed(request, answer, asked))
        if isinstance(request, FindKeys):
            return self._find(request)
        if isinstance(request, CHANGES):
            return self._change(request)
        return self._backend.answer(request)

    async def share(self) -> Mapping[str, Share]:
        """Return by domain how many users have keys.

        Raises:
            BackendDown: the store can't tell.
        """
        active = await self._seen.count(self._name, self._context.now() - self._life)
        with_keys = await self._keyring.count(self._credential)
        return {domain: Share(count, with_keys.get(domain, 0)) for domain, count in active.items()}

    def forget(self, identity: Identity) -> None:
        """Look at the user's passwords again, as the keys may be gone."""
        self._known.forget(identity)

    def forget_matching(self, mask: str) -> None:
        """Look at the passwords of these users again."""
        self._known.forget_matching(mask)

    # Logins ---------------------------------------------------------------------------------------------------------------

    def _heed(self, request: CheckPassword, answer: Answer | None, asked: float) -> Soon[Answer | None]:
        match answer:
            case Accept(identity, via="") if identity == request.identity:
                self._learn(_Lesson(request.identity, request.password, accepted=True, asked=asked))
            case Reject(Reason.BAD_PASSWORD, via=""):
                self._learn(_Lesson(request.identity, request.password, accepted=False, asked=asked))
            case Reject(reason, via="") if reason is not Reason.MALFORMED:
                return self._barred(request.identity, answer)
            case None:
                return self._unknown(request.identity)
            case _:
                pass
        return answer

    async def _barred(self, identity: Identity, answer: Answer) -> Answer:
        """Drop the keys of a user who may not log in, before that is told."""
        if await settle(self._keyring.held(identity, self._credential)) is not None:
            await self._drop(identity)
        return answer

    async def _unknown(self, identity: Identity) -> None:
        """Drop the keys of a user who is no more, before that is told."""
        if self._name in await settle(self._seen.by(identity)):
            await self._drop(identity)
            await self._seen.forget(identity, [self._name])

    def _find(self, request: FindKeys) -> Soon[Answer | None]:
        """Find keys, and whether their user may still log in. All are asked about alike: the time it takes tells nothing."""
        if not self._rechecks:
            return self._keys(request, Accept(request.identity))
        # Whoever proves by other means who that is: here, by the learned password.
        still = self._backend.answer(CheckCertificate(request.identity, request.origin))
        return then(still, lambda still: self._keys(request, still))

    def _keys(self, request: FindKeys, still: Answer | None) -> Soon[Answer | None]:
        identity = request.identity
        refusal: Reason | None = None
        attributes = NOTHING
        if isinstance(still, Reject):
            refusal = still.reason
        elif isinstance(still, Accept) and still.identity == identity:
            attributes = still.attributes
        else:
            return self._unknown(identity)
        ring = self._keyring.find(identity, request.hash)
        return then(ring, lambda ring: self._vouched(identity, ring, refusal, attributes))

    def _vouched(
        self, identity: Identity, ring: Ring | None, refusal: Reason | None, attributes: Mapping[str, str]
    ) -> Soon[Answer | None]:
        found = ring.vouched_by(self._credential) if ring else None
        if found is not None:
            return Keys(identity, found.salt, found.iterations, found.candidates, self._name, refusal, attributes)
        return then(self._seen.by(identity), lambda by: Reject(Reason.NO_KEYS) if self._name in by else None)

    # Changes --------------------------------------------------------------------------------------------------------------

    async def _change(self, request: Request) -> Answer | None:
        identity = request.identity
        self._changing.append(identity)
        changed = True  # for all we know, unless the backend says otherwise
        try:
            answer = await settle(self._backend.answer(request))
            changed = isinstance(answer, Accept)
        finally:
            self._changing.remove(identity)
            if changed:
                with trio.CancelScope(shield=True):
                    await self._drop(identity)
        if isinstance(request, RemoveUser) and changed:
            await self._seen.forget(identity, [self._name])
        if isinstance(request, SetPassword) and changed:
            self._learn(_Lesson(identity, request.password, accepted=True, asked=trio.current_time()))
        return answer

    def outdate(self, identity: Identity) -> None:
        """Learn nothing of the user from what was asked before now."""
        now = trio.current_time()
        self._dropped = {user: at for user, at in self._dropped.items() if at > now - PATIENCE}
        self._dropped[identity] = now
        self._known.forget(identity)

    async def _drop(self, identity: Identity) -> None:
        self.outdate(identity)
        await self._context.store.write(*self._keyring.dropping(identity, self._credential))

    def _is_stale(self, lesson: _Lesson) -> bool:
        oldest = max(self._dropped.get(lesson.identity, 0.0), trio.current_time() - PATIENCE)
        return lesson.asked < oldest or lesson.identity in self._changing

    # After the answer -----------------------------------------------------------------------------------------------------

    def _learn(self, lesson: _Lesson) -> None:
        if not self._is_known(lesson):
            try:
                self._lessons.send_nowait(lesson)
            except trio.WouldBlock:
                _log.warning("too many passwords at once to make SCRAM keys of all", backend=self._name)

    def _is_known(self, lesson: _Lesson) -> bool:
        return (self._known.get(lesson.fingerprint) or 0.0) > self._context.now()

    async def run(self) -> None:
        """Learn until cancelled."""
        async for lesson in self._to_learn:
            if self._is_known(lesson) or self._is_stale(lesson):
                continue
            try:
                await (self._take_in(lesson) if lesson.accepted else self._compare(lesson))
            except BackendDown as down:
                _log.warning("no SCRAM keys made", backend=self._name, problem=str(down))
            except Exception:
                _log.exception("bug", backend=self._name)

    async def _take_in(self, lesson: _Lesson) -> None:
        """Make keys of a password that was accepted, unless these are there and new."""
        identity, now = lesson.identity, self._context.now()
        prepared = for_storing(lesson.password.reveal())
        if prepared is None:
            return
        recording = self._seen.record(identity, self._name)
        if recording is not None:
            await recording
        held = await settle(self._keyring.held(identity, self._credential))
        renewed = self._life / RENEWALS
        is_new = held is not None and now + self._life - renewed <= held.expires <= now + self._life
        if held is None or not is_new or not await self._keyring.fits(held, (prepared,)):
            keys = await self._keyring.addition(identity, prepared)
            if self._is_stale(lesson):
                return
            self._known.forget(identity)
            expires = int(now + self._life)
            await self._context.store.write(*self._keyring.adding(identity, self._credential, keys, expires))
        self._known.put(lesson.fingerprint, identity, now + renewed)

    async def _compare(self, lesson: _Lesson) -> None:
        """Drop the keys of a password that the backend refuses by now."""
        held = await settle(self._keyring.held(lesson.identity, self._credential))
        if held is None:
            return
        if await self._keyring.fits(held, for_checking(lesson.password.reveal())):
            await self._drop(lesson.identity)
        else:
            self._known.put(lesson.fingerprint, lesson.identity, self._context.now() + self._life)


@asynccontextmanager
async def learning(backend: Backend, rules: Layers, context: Context, seen: Seen) -> AsyncGenerator[Learning, None]:
    """Lay a `Learning` around a backend, and let it learn until the end.

    Raises:
        ConfigError: the backend holds no passwords, or has keys itself.
    """
    if CheckPassword not in backend.handles or CheckToken in backend.handles:
        raise ConfigError([f"backend.{context.name}.learn_scram: this backend holds no passwords"])
    if FindKeys in backend.handles:
        raise ConfigError([f"backend.{context.name}.learn_scram: this backend has SCRAM keys already"])
    layer = Learning(backend, rules, context, seen)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(layer.run)
        try:
            yield layer
        except Exception as error:  # it is not the nursery's, which would make a group of it
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
