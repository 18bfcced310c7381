"""What the `local` backend answers."""

import secrets
import time
from collections.abc import Callable

from extauth.backend import Context
from extauth.model import (
    Accept,
    Answer,
    Candidate,
    CheckCertificate,
    CheckPassword,
    CreateUser,
    Decoy,
    FindAccount,
    FindKeys,
    Identity,
    Keys,
    Listing,
    ListUsers,
    Reason,
    Reject,
    RemoveUser,
    Request,
    Secret,
    SetEnabled,
    SetPassword,
    UserExists,
)
from extauth.passwords import scram
from extauth.passwords.prepare import for_checking
from extauth.passwords.rules import Rules
from extauth.soon import Soon, then
from extauth.store import Row, Statement

Reply = Soon[Answer | None]

CHECKED = scram.Hash.SHA_256  # of the four, the one a plain password is checked with: the fastest that is sound
PASSWORD = "password"  # noqa: S105 - the name of the credential that the user's own password is

_EXISTS = "SELECT name FROM account WHERE domain = $1 AND name = $2"
_DESCRIBE = "SELECT name, disabled, iterations, created, changed FROM account WHERE domain = $1 AND name = $2"
_LIST = (
    "SELECT name, disabled, iterations, created, changed FROM account WHERE domain = $1 AND name > $2 ORDER BY name LIMIT $3"
)
_KEYS = (
    "SELECT a.disabled, a.iterations, s.salt, k.credential, k.stored_key, k.server_key FROM account a "
    "LEFT JOIN scram_salt s ON s.domain = a.domain AND s.name = a.name AND s.hash = $3 "
    "LEFT JOIN scram_key k ON k.domain = a.domain AND k.name = a.name AND k.hash = $3 "
    "WHERE a.domain = $1 AND a.name = $2"
)
_CREATE = (
    "INSERT INTO account (domain, name, disabled, iterations, stamp, created, changed) "
    "VALUES ($1, $2, 0, $3, $4, $5, $5) ON CONFLICT DO NOTHING RETURNING name"
)
_CHANGE = "UPDATE account SET iterations = $3, stamp = $4, changed = $5 WHERE domain = $1 AND name = $2 RETURNING name"
_ENABLE = "UPDATE account SET disabled = $3 WHERE domain = $1 AND name = $2 RETURNING name"
_REMOVE = "DELETE FROM account WHERE domain = $1 AND name = $2 RETURNING name"
_DROP_SALTS = "DELETE FROM scram_salt WHERE domain = $1 AND name = $2"
_DROP_KEYS = "DELETE FROM scram_key WHERE domain = $1 AND name = $2"
_ADD_SALT = (
    "INSERT INTO scram_salt (domain, name, hash, salt) SELECT domain, name, $4, $5 FROM account "
    "WHERE domain = $1 AND name = $2 AND stamp = $3"
)
_ADD_KEY = (
    "INSERT INTO scram_key (domain, name, hash, credential, stored_key, server_key) "
    "SELECT domain, name, $4, $5, $6, $7 FROM account WHERE domain = $1 AND name = $2 AND stamp = $3"
)


class LocalBackend:
    """Accounts in the state store."""

    def __init__(self, context: Context, rules: Rules, iterations: int) -> None:
        self._name = context.name
        self._store = context.store
        self._hashing = context.hashing
        self._now = context.now
        self._rules = rules
        self._iterations = iterations
        self._decoy_salt = scram.new_salt()
        self._answers: dict[type[Request], Callable[..., Reply]] = {
            CheckPassword: self._check,
            FindKeys: self._find_keys,
            CheckCertificate: self._check_certificate,
            UserExists: self._exists,
            Decoy: self._waste,
            FindAccount: self._describe,
            ListUsers: self._list,
            SetPassword: self._set_password,
            CreateUser: self._create,
            RemoveUser: self._remove,
            SetEnabled: self._enable,
        }
        self.handles = frozenset(self._answers)

    def answer(self, request: Request) -> Reply:
        """Answer a request of one of the kinds in `handles`."""
        return self._answers[type(request)](request)

    # Questions ------------------------------------------------------------------------------------------------------------

    def _exists(self, request: UserExists) -> Reply:
        identity = request.identity
        rows = self._store.read(_EXISTS, identity.domain, identity.user)
        return then(rows, lambda rows: Accept(identity) if rows else None)

    def _describe(self, request: FindAccount) -> Reply:
        identity = request.identity
        rows = self._store.read(_DESCRIBE, identity.domain, identity.user)
        return then(rows, lambda rows: _account(identity.domain, rows[0]) if rows else None)

    def _list(self, request: ListUsers) -> Reply:
        identity = request.identity
        rows = self._store.read(_LIST, identity.domain, identity.user, request.limit)
        return then(rows, lambda rows: Listing(tuple(_account(identity.domain, row) for row in rows)))

    def _check(self, request: CheckPassword) -> Reply:
        identity = request.identity
        rows = self._store.read(_KEYS, identity.domain, identity.user, CHECKED.value)
        return then(rows, lambda rows: self._verify(identity, request.password, rows) if rows else None)

    async def _verify(self, identity: Identity, password: Secret, rows: list[Row]) -> Answer:
        disabled, iterations, salt, *_ = rows[0]
        stored = tuple(row[4] for row in rows if isinstance(row[4], bytes))
        if not isinstance(salt, bytes) or not isinstance(iterations, int):
            salt, iterations = self._decoy_salt, self._iterations  # an account that has no password
        found = await self._derive(password, salt, iterations, stored)
        if found is None:
            return Reject(Reason.BAD_PASSWORD)
        return Reject(Reason.DISABLED) if disabled else Accept(identity)

    def _find_keys(self, request: FindKeys) -> Reply:
        identity = request.identity
        rows = self._store.read(_KEYS, identity.domain, identity.user, request.hash)
        return then(rows, lambda rows: _keys(self._name, identity, rows) if rows else None)

    def _check_certificate(self, request: CheckCertificate) -> Reply:
        identity = request.identity
        rows = self._store.read(_DESCRIBE, identity.domain, identity.user)
        return then(rows, lambda rows: _admit(identity, rows[0]) if rows else None)

    async def _waste(self, request: Decoy) -> Answer:
        await self._derive(request.password, self._decoy_salt, self._iterations, ())
        return Reject(Reason.NO_USER)

    async def _derive(self, password: Secret, salt: bytes, iterations: int, stored: tuple[bytes, ...]) -> int | None:
        return await self._hashing.run(lambda: scram.verify(CHECKED, for_checking(password.reveal()), salt, iterations, stored))

    # Changes --------------------------------------------------------------------------------------------------------------

    async def _set_password(self, request: SetPassword) -> Answer | None:
        return await self._write_password(request.identity, request.password, _CHANGE, None)

    async def _create(self, request: CreateUser) -> Answer | None:
        return await self._write_password(request.identity, request.password, _CREATE, Reject(Reason.USER_EXISTS))

    async def _write_password(
        self, identity: Identity, password: Secret, claim: str, unclaimed: Reject | None
    ) -> Answer | None:
        """Give the account that `claim` makes or changes its one new password, or answer `unclaimed`."""
        prepared = self._rules.judge(password.reveal())
        if isinstance(prepared, Reason):
            return Reject(prepared)
        name = (identity.domain, identity.user)
        stamp = secrets.token_hex(16)
        fresh = await self._hashing.run(lambda: _fresh_keys(prepared, self._iterations))
        statements: list[Statement] = [(claim, (*name, self._iterations, stamp, int(self._now())))]
        if claim is _CHANGE:
            statements += [(_DROP_SALTS, name), (_DROP_KEYS, name)]
        for hash_, salt, keys in fresh:
            statements.append((_ADD_SALT, (*name, stamp, hash_, salt)))
            statements.append((_ADD_KEY, (*name, stamp, hash_, PASSWORD, keys.stored_key, keys.server_key)))
        claimed, *_ = await self._store.write(*statements)
        return Accept(identity) if claimed else unclaimed

    async def _remove(self, request: RemoveUser) -> Answer | None:
        name = (request.identity.domain, request.identity.user)
        removed, *_ = await self._store.write((_REMOVE, name), (_DROP_SALTS, name), (_DROP_KEYS, name))
        return Accept(request.identity) if removed else None

    async def _enable(self, request: SetEnabled) -> Answer | None:
        identity = request.identity
        (changed,) = await self._store.write((_ENABLE, (identity.domain, identity.user, int(not request.enabled))))
        return Accept(identity) if changed else None


def _fresh_keys(prepared: str, iterations: int) -> list[tuple[str, bytes, scram.ScramKeys]]:
    salts = [(hash_, scram.new_salt()) for hash_ in scram.Hash]
    return [(hash_.value, salt, scram.make(hash_, prepared, salt, iterations)) for hash_, salt in salts]


def _keys(backend: str, identity: Identity, rows: list[Row]) -> Keys | None:
    """Return the account's keys; None if it has none for this hash (an imported one may not)."""
    disabled, iterations, salt, *_ = rows[0]
    candidates = tuple(
        Candidate(str(credential), stored_key, server_key)
        for _, _, _, credential, stored_key, server_key in rows
        if isinstance(stored_key, bytes) and isinstance(server_key, bytes)
    )
    if not candidates or not isinstance(salt, bytes) or not isinstance(iterations, int):
        return None
    return Keys(identity, salt, iterations, candidates, backend, Reason.DISABLED if disabled else None)


def _admit(identity: Identity, row: Row) -> Answer:
    return Reject(Reason.DISABLED) if row[1] else Accept(identity)


def _account(domain: str, row: Row) -> Accept:
    name, disabled, iterations, created, changed = row
    return Accept(
        Identity(str(name), domain),
        {
            "enabled": "no" if disabled else "yes",
            "iterations": str(iterations),
            "created": _time(created),
            "password-changed": _time(changed),
        },
    )


def _time(seconds: object) -> str:
    assert isinstance(seconds, int)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
