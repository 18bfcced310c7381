"""The SCRAM credentials of users in the state store, whoever's users they are.

A user has one random salt per hash family and one iteration count, shared by all credentials: SCRAM sends them before it knows
which credential comes (RFC 5802 section 5). They are replaced together with the password alone. A credential has an id:
`PASSWORD`, or one that begins with the word of who issues it and a colon.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from msgspec import Struct

from extauth.model import Candidate, Identity
from extauth.passwords import scram
from extauth.soon import Soon, settle, then
from extauth.store import Row, Statement, Store
from extauth.threads import Threads

PASSWORD = "password"  # noqa: S105 - the id of the credential that the user's own password is
LEARNED = "learned:"  # the ids of the passwords that other backends know
COMPARED = scram.Hash.SHA_256  # of the four, what a plain password is compared by: the fastest that is sound
MAX_CANDIDATES = 16  # each costs every SCRAM login of the user some microseconds

_FIND = (
    "SELECT u.iterations, s.salt, k.credential, k.stored_key, k.server_key, k.added, k.expires, a.disabled FROM scram_user u "
    "JOIN scram_salt s ON s.domain = u.domain AND s.name = u.name AND s.hash = $3 "
    "JOIN scram_key k ON k.domain = u.domain AND k.name = u.name AND k.hash = $3 "
    "LEFT JOIN account a ON a.domain = u.domain AND a.name = u.name "
    "WHERE u.domain = $1 AND u.name = $2"
)
_GROUND = (
    "SELECT u.stamp, u.iterations, s.hash, s.salt FROM scram_user u "
    "JOIN scram_salt s ON s.domain = u.domain AND s.name = u.name WHERE u.domain = $1 AND u.name = $2"
)
_START = "INSERT INTO scram_user (domain, name, iterations, stamp) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"
_COMPLETE = "INSERT INTO scram_salt (domain, name, hash, salt) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"
_RESTART = (
    "INSERT INTO scram_user (domain, name, iterations, stamp, hashes) "
    "SELECT domain, name, $3, stamp, $5 FROM account WHERE domain = $1 AND name = $2 AND stamp = $4 "
    "ON CONFLICT (domain, name) DO UPDATE "
    "SET iterations = excluded.iterations, stamp = excluded.stamp, hashes = excluded.hashes"
)
_CLEAR_SALTS = (
    "DELETE FROM scram_salt WHERE domain = $1 AND name = $2 "
    "AND EXISTS (SELECT 1 FROM scram_user u WHERE u.domain = $1 AND u.name = $2 AND u.stamp = $3)"
)
_CLEAR_KEYS = (
    "DELETE FROM scram_key WHERE domain = $1 AND name = $2 "
    "AND EXISTS (SELECT 1 FROM scram_user u WHERE u.domain = $1 AND u.name = $2 AND u.stamp = $3)"
)
_HOLD = (  # so that a new password waits for the keys, or they for it
    "UPDATE scram_user SET stamp = stamp WHERE domain = $1 AND name = $2 AND stamp = $3 RETURNING stamp"
)
_ADD_SALT = (
    "INSERT INTO scram_salt (domain, name, hash, salt) SELECT domain, name, $4, $5 FROM scram_user "
    "WHERE domain = $1 AND name = $2 AND stamp = $3"
)
_ADD_KEY = (
    "INSERT INTO scram_key (domain, name, hash, credential, stored_key, server_key, added, expires) "
    "SELECT domain, name, $4, $5, $6, $7, $8, $9 FROM scram_user WHERE domain = $1 AND name = $2 AND stamp = $3 "
    "ON CONFLICT (domain, name, hash, credential) DO UPDATE SET stored_key = excluded.stored_key, "
    "server_key = excluded.server_key, added = excluded.added, expires = excluded.expires"
)
_HELD = (
    "SELECT u.iterations, s.salt, k.stored_key, k.expires FROM scram_user u "
    "JOIN scram_salt s ON s.domain = u.domain AND s.name = u.name AND s.hash = $4 "
    "JOIN scram_key k ON k.domain = u.domain AND k.name = u.name AND k.hash = $4 "
    "WHERE u.domain = $1 AND u.name = $2 AND k.credential = $3"
)
_COUNT = "SELECT domain, COUNT(*) FROM scram_key WHERE credential = $1 AND hash = $2 AND expires > $3 GROUP BY domain"
_PARTIAL = "SELECT DISTINCT hashes FROM scram_user WHERE hashes IS NOT NULL"
_FORGET = "DELETE FROM scram_key WHERE domain = $1 AND name = $2 AND expires <= $3"
_DROP = "DELETE FROM scram_key WHERE domain = $1 AND name = $2 AND credential = $3"
_DROP_ISSUED = (
    "DELETE FROM scram_key WHERE domain = $1 AND (name = $2 OR $2 = '') AND credential <> $3 AND credential NOT LIKE $4"
)
_DROP_USER = "DELETE FROM scram_user WHERE domain = $1 AND name = $2"
_DROP_SALTS = "DELETE FROM scram_salt WHERE domain = $1 AND name = $2"
_DROP_KEYS = "DELETE FROM scram_key WHERE domain = $1 AND name = $2 RETURNING credential"


class Ring(Struct, frozen=True, gc=False):
    """What SCRAM with one hash needs of a user: at least one candidate, at most `MAX_CANDIDATES`."""

    salt: bytes
    iterations: int
    candidates: tuple[Candidate, ...]

    def vouched_by(self, own: str) -> "Ring | None":
        """Return the ring without passwords that other backends know; None if there are such and that of `own` is not on it."""
        candidates = tuple(c for c in self.candidates if c.credential == own or not _is_password(c.credential))
        is_own = len(candidates) == len(self.candidates) or any(c.credential == own for c in candidates)
        return Ring(self.salt, self.iterations, candidates) if is_own else None


class Held(Struct, frozen=True, gc=False):
    """One credential that expires (Unix seconds), by its SHA-256 key."""

    salt: bytes
    iterations: int
    stored_key: bytes
    expires: int


class FamilyKeys(Struct, frozen=True, gc=False):
    """Keys of one password for one hash family."""

    hash: str
    salt: bytes
    keys: scram.ScramKeys


class PasswordKeys(Struct, frozen=True):
    """Keys of one password: for every hash family, unless another server made them.

    `stamp` names the salts: they are replaced under another stamp only.
    """

    stamp: str
    iterations: int
    families: tuple[FamilyKeys, ...]

    @property
    def hashes(self) -> str | None:
        """The hashes as the store keeps them: None if they are all."""
        found = sorted(family.hash for family in self.families)
        return None if len(found) == len(scram.Hash) else " ".join(found)


class Keyring:
    """The SCRAM credentials of users.

    Parameters:
        hashing: the threads that derive keys.
        now: returns Unix time in seconds.
        iterations: of PBKDF2, for users who have none yet and for new passwords.
    """

    def __init__(self, store: Store, hashing: Threads, now: Callable[[], float], iterations: int) -> None:
        self._store = store
        self._hashing = hashing
        self._now = now
        self._iterations = iterations

    def find(self, identity: Identity, family: str) -> Soon[Ring | None]:
        """Return the user's credentials for a hash ("SHA-256" ...) that have not expired; None if there is none.

        Raises:
            BackendDown: the store can't tell.
        """
        return then(self._store.read(_FIND, identity.domain, identity.user, family), self._ring)

    def find_of_account(self, identity: Identity, family: str) -> Soon[tuple[Ring, bool] | None]:
        """Return the same, and whether the user's account is disabled; None also if there is no account.

        Raises:
            BackendDown: the store can't tell.
        """
        return then(self._store.read(_FIND, identity.domain, identity.user, family), self._ring_of_account)

    def common(self) -> Soon[frozenset[str]]:
        """Return the hashes ("SHA-256" ...) that the passwords of all users have keys for.

        Raises:
            BackendDown: the store can't tell.
        """

        def intersection(rows: list[Row]) -> frozenset[str]:
            return frozenset(family.value for family in scram.Hash).intersection(*(str(hashes).split() for (hashes,) in rows))

        return then(self._store.read(_PARTIAL), intersection)

    async def replacement(self, prepared: str) -> PasswordKeys:
        """Derive the keys of a new password with new salts, to be kept by `replacing`.

        Raises:
            BackendDown: no thread came free in time.
        """
        return await self._derive(
            prepared, secrets.token_hex(16), self._iterations, [(h, scram.new_salt()) for h in scram.Hash]
        )

    def replacing(self, identity: Identity, keys: PasswordKeys) -> Sequence[Statement]:
        """Return what makes this the user's password, and ends all credentials of the user before.

        It is for a unit of work that has given the stamp of `keys` to the user's account; without such an account it does
        nothing.
        """
        user = (identity.domain, identity.user)
        stamped = (*user, keys.stamp)
        added = [(_ADD_SALT, (*stamped, family.hash, family.salt)) for family in keys.families]
        return [
            (_RESTART, (*user, keys.iterations, keys.stamp, keys.hashes)),
            (_CLEAR_SALTS, stamped),
            (_CLEAR_KEYS, stamped),
            *added,
            *self.adding(identity, PASSWORD, keys),
        ]

    async def addition(self, identity: Identity, prepared: str) -> PasswordKeys:
        """Derive the keys of one more password of the user, to be kept by `adding`. The user's salts are made if need be.

        Raises:
            BackendDown: the store can't tell, or no thread came free in time.
        """
        user = (identity.domain, identity.user)
        rows = await settle(self._store.read(_GROUND, *user))
        if len(rows) < len(scram.Hash):
            fresh = [(_COMPLETE, (*user, family.value, scram.new_salt())) for family in scram.Hash]
            await self._store.write((_START, (*user, self._iterations, secrets.token_hex(16))), *fresh)
            rows = await settle(self._store.read(_GROUND, *user))
        stamp, iterations, *_ = rows[0]
        assert isinstance(stamp, str)
        assert isinstance(iterations, int)
        salts = [(scram.Hash(str(family)), salt) for _, _, family, salt in rows if isinstance(salt, bytes)]
        return await self._derive(prepared, stamp, iterations, salts)

    def adding(
        self, identity: Identity, credential: str, keys: PasswordKeys, expires: int | None = None
    ) -> Sequence[Statement]:
        """Return what keeps a credential, in the place of the one of the same id.

        Its first statement returns no row, and all do nothing, if the salts have been replaced since the keys were derived.
        `expires` is in Unix seconds.
        """
        now = int(self._now())
        stamped = (identity.domain, identity.user, keys.stamp)
        added: list[Statement] = [
            (_ADD_KEY, (*stamped, f.hash, credential, f.keys.stored_key, f.keys.server_key, now, expires))
            for f in keys.families
        ]
        return [(_HOLD, stamped), *added, (_FORGET, (identity.domain, identity.user, now))]

    async def add(self, identity: Identity, credential: str, prepared: str, expires: int | None = None) -> bool:
        """Give the user a credential, made of a prepared password. False if the salts were replaced meanwhile.

        Raises:
            BackendDown: the store can't tell, or no thread came free in time.
        """
        keys = await self.addition(identity, prepared)
        added, *_ = await self._store.write(*self.adding(identity, credential, keys, expires))
        return bool(added)

    def held(self, identity: Identity, credential: str) -> Soon[Held | None]:
        """Return a credential that expires, also if it has expired; None if there is none.

        Raises:
            BackendDown: the store can't tell.
        """
        return then(self._store.read(_HELD, identity.domain, identity.user, credential, COMPARED.value), _held)

    async def fits(self, held: Held, forms: tuple[str, ...]) -> bool:
        """Tell whether one of these forms is the password of a credential.

        Raises:
            BackendDown: no thread came free in time.
        """

        def verify() -> int | None:
            return scram.verify(COMPARED, forms, held.salt, held.iterations, (held.stored_key,))

        return await self._hashing.run(verify) is not None

    async def count(self, credential: str) -> Mapping[str, int]:
        """Return how many users of each domain have a credential of this id that has not expired.

        Raises:
            BackendDown: the store can't tell.
        """
        rows = await settle(self._store.read(_COUNT, credential, COMPARED.value, int(self._now())))
        return {str(domain): count for domain, count in rows if isinstance(count, int)}

    def dropping(self, identity: Identity, credential: str) -> Sequence[Statement]:
        """Return what ends one credential."""
        return [(_DROP, (identity.domain, identity.user, credential))]

    def dropping_issued(self, identity: Identity) -> Sequence[Statement]:
        """Return what ends all credentials of the user, or (without one) of the domain, but the passwords."""
        return [(_DROP_ISSUED, (identity.domain, identity.user, PASSWORD, f"{LEARNED}%"))]

    def _ring(self, rows: list[Row]) -> Ring | None:
        now = self._now()
        return _ring(tuple([row for row in rows if _lasts(row, now)]))

    def _ring_of_account(self, rows: list[Row]) -> tuple[Ring, bool] | None:
        ring = self._ring(rows)
        return None if ring is None or rows[0][7] is None else (ring, bool(rows[0][7]))

    async def _derive(
        self, prepared: str, stamp: str, iterations: int, salts: Sequence[tuple[scram.Hash, bytes]]
    ) -> PasswordKeys:
        def derive() -> tuple[FamilyKeys, ...]:
            return tuple(FamilyKeys(h.value, salt, scram.make(h, prepared, salt, iterations)) for h, salt in salts)

        return PasswordKeys(stamp, iterations, await self._hashing.run(derive))


def dropping_all(identity: Identity) -> Sequence[Statement]:
    """Return what ends all credentials of the user, and forgets the salts. They return a row for each key."""
    user = (identity.domain, identity.user)
    return [(_DROP_USER, user), (_DROP_SALTS, user), (_DROP_KEYS, user)]


def _lasts(row: Row, now: float) -> bool:
    expires = row[6]
    return not isinstance(expires, int) or expires > now


@lru_cache(maxsize=1024)
def _ring(rows: tuple[Row, ...]) -> Ring | None:
    if not rows:
        return None
    iterations, salt, *_ = rows[0]
    assert isinstance(iterations, int)
    assert isinstance(salt, bytes)
    candidates = tuple(
        Candidate(str(credential), stored_key, server_key)
        for _, _, credential, stored_key, server_key, *_ in sorted(rows, key=_place)[:MAX_CANDIDATES]
        if isinstance(stored_key, bytes) and isinstance(server_key, bytes)
    )
    return Ring(salt, iterations, candidates)


def _place(row: Row) -> tuple[bool, int, str]:
    """Sort the candidates: the user's own password always has a place among them; of the others the newest have.

    Here and not by the database: nearly all users have one, and sorting it would be a quarter of the query's time.
    """
    credential, added = str(row[2]), row[5]
    assert isinstance(added, int)
    return not (credential == PASSWORD or credential.startswith(LEARNED)), -added, credential


def _held(rows: list[Row]) -> Held | None:
    for iterations, salt, stored_key, expires in rows:
        if (
            isinstance(iterations, int)
            and isinstance(salt, bytes)
            and isinstance(stored_key, bytes)
            and isinstance(expires, int)
        ):
            return Held(salt, iterations, stored_key, expires)
    return None


def _is_password(credential: str) -> bool:
    return credential == PASSWORD or credential.startswith(LEARNED)
