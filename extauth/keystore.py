"""Named keys of each domain, in the state store: the role of MongooseIM's mod_keystore.

Every key that is there verifies, the one made last signs. So rotation invalidates nothing; a key goes when it is retired, which
is refused while something it has signed may still be valid.
"""

import math
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from extauth.soon import Soon, settle, then
from extauth.store import Row, Store
from extauth.tokens.kinds import DAY

KEY_BYTES = 64
LIFE = 1.0  # seconds that a copy holds of what a remote store said: a key retired by force is good for so long there
SLACK = DAY  # `latest` is written so much later than it must be, so that it is not written for every token

_KEYS = "SELECT id, value, latest FROM token_key WHERE domain = $1 AND name = $2 ORDER BY made DESC, id"
_LIST = "SELECT domain, name, id, imported, made, latest FROM token_key WHERE domain = $1 ORDER BY name, made DESC, id"
_ADD = (
    "INSERT INTO token_key (domain, name, id, value, imported, made, latest) "
    "SELECT $1, $2, $3, $4, $5, CASE WHEN COALESCE(MAX(made), 0) < $6 THEN $6 ELSE MAX(made) + 1 END, 0 "
    "FROM token_key WHERE domain = $1 AND name = $2"
)
_USE = "UPDATE token_key SET latest = CASE WHEN latest < $4 THEN $4 ELSE latest END WHERE domain = $1 AND name = $2 AND id = $3"
_RETIRE = "DELETE FROM token_key WHERE domain = $1 AND name = $2 AND id = $3 AND latest < $4 RETURNING id"


class Key(NamedTuple):
    """One key. `latest` is no earlier than the last expiry of what it has signed, Unix time in seconds."""

    id: str
    value: bytes
    latest: int

    def __repr__(self) -> str:
        return f"Key({self.id!r}, ...)"


class KeyInfo(NamedTuple):
    """What may be shown of a key. `made` and `latest` are Unix time in seconds (0: it has signed nothing)."""

    domain: str
    name: str
    id: str
    imported: bool
    made: int
    latest: int


class _Copy(NamedTuple):
    """Keys as the store had them in `rows`; a remote store when it was `asked` (monotonic seconds)."""

    rows: list[Row]
    keys: tuple[Key, ...]
    values: list[bytes]
    asked: float = -math.inf


_NOTHING = _Copy([], (), [])


class Keystore:
    """The keys of all domains. `files` are keys by name that were read from files: those sign, and those of the store verify.

    Everything raises BackendDown if the store can't tell.
    """

    def __init__(self, store: Store, now: Callable[[], float], files: Mapping[str, bytes] | None = None) -> None:
        self._store = store
        self._now = now
        self._files = {name: Key("file", value, 1 << 62) for name, value in (files or {}).items()}
        self._copies: dict[tuple[str, str], _Copy] = {}

    def keys(self, domain: str, name: str, *, fresh: bool = False) -> Soon[tuple[Key, ...]]:
        """Return the keys of a name, the one that signs first. `fresh`: as they are this moment in the store."""
        return then(self._copy(domain, name, fresh=fresh), lambda copy: copy.keys)

    def verify(self, domain: str, name: str, is_by: Callable[[list[bytes]], bool]) -> Soon[bool]:
        """Tell whether `is_by` holds for any of the keys; if not, also of keys that were made a moment ago."""
        return then(
            self._copy(domain, name), lambda copy: is_by(copy.values) or self._verify_anew(domain, name, is_by, copy.values)
        )

    def _verify_anew(self, domain: str, name: str, is_by: Callable[[list[bytes]], bool], tried: list[bytes]) -> Soon[bool]:
        return then(self._copy(domain, name, fresh=True), lambda copy: copy.values != tried and is_by(copy.values))

    async def signing(self, domain: str, name: str, expires: int) -> bytes:
        """Return the key to sign what expires then; it is made if there is none."""
        keys = await settle(self.keys(domain, name)) or await settle(self.keys(domain, name, fresh=True))
        while not keys or keys[0].latest < expires:
            if keys:
                await self._store.write((_USE, (domain, name, keys[0].id, expires + SLACK)))
            else:
                await self.add(domain, name)
            keys = await settle(self.keys(domain, name, fresh=True))  # it may have been retired meanwhile
        return keys[0].value

    async def add(self, domain: str, name: str, value: bytes | None = None) -> str:
        """Add a key, a new random one if none is given, and return its id. From now on it signs."""
        key_id = secrets.token_hex(4)
        imported = int(value is not None)
        made = int(self._now() * 1000)
        await self._store.write((_ADD, (domain, name, key_id, value or secrets.token_bytes(KEY_BYTES), imported, made)))
        self._copies.pop((domain, name), None)
        return key_id

    async def retire(self, domain: str, name: str, key_id: str, *, force: bool = False) -> bool:
        """Forget a key; False: there is none, or something it has signed may still be valid and there was no `force`."""
        before = 1 << 62 if force else int(self._now())
        (gone,) = await self._store.write((_RETIRE, (domain, name, key_id, before)))
        self._copies.pop((domain, name), None)
        return bool(gone)

    async def described(self, domain: str) -> list[KeyInfo]:
        """Return what may be shown of a domain's keys; of each name the one that signs first."""
        rows = await settle(self._store.read(_LIST, domain))
        return [_info(row) for row in rows]

    def _copy(self, domain: str, name: str, *, fresh: bool = False) -> Soon[_Copy]:
        copy = self._copies.get((domain, name), _NOTHING)
        if not fresh and time.monotonic() - copy.asked < LIFE:
            return copy
        rows = self._store.read(_KEYS, domain, name)
        if not isinstance(rows, list):
            return self._keep(domain, name, rows)
        return copy if rows is copy.rows else self._note(domain, name, rows)

    async def _keep(self, domain: str, name: str, rows: Awaitable[list[Row]]) -> _Copy:
        """Keep a copy of what had to be waited for."""
        asked = time.monotonic()
        return self._note(domain, name, await rows, asked)

    def _note(self, domain: str, name: str, rows: list[Row], asked: float = -math.inf) -> _Copy:
        from_file = self._files.get(name)
        keys = (*((from_file,) if from_file else ()), *(_key(row) for row in rows))
        copy = self._copies[domain, name] = _Copy(rows, keys, [key.value for key in keys], asked)
        return copy


def _key(row: Row) -> Key:
    key_id, value, latest = row
    assert isinstance(value, bytes)
    assert isinstance(latest, int)
    return Key(str(key_id), value, latest)


def _info(row: Row) -> KeyInfo:
    domain, name, key_id, imported, made, latest = row
    assert isinstance(made, int)
    assert isinstance(latest, int)
    return KeyInfo(str(domain), str(name), str(key_id), bool(imported), made // 1000, latest)
