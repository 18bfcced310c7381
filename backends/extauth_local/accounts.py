"""What the `local` backend answers."""

import secrets
import time
from collections.abc import Callable

import structlog

from extauth.backend import Context
from extauth.errors import BackendDown
from extauth.keyring import COMPARED, PASSWORD, FamilyKeys, Keyring, PasswordKeys, Ring, dropping_all
from extauth.model import (
    Accept,
    Answer,
    CheckCertificate,
    CheckPassword,
    CreateUser,
    Decoy,
    FindAccount,
    FindKeys,
    Identity,
    ImportUser,
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
from extauth.soon import Soon, settle, then
from extauth.store import Row

_log = structlog.get_logger("local")

ALL = frozenset(family.value for family in scram.Hash)

Reply = Soon[Answer | None]

# The hash that a plain password is checked with is the first that the account has keys for: an imported one may have only one.
CHECKED = (COMPARED, *(family for family in reversed(tuple(scram.Hash)) if family is not COMPARED))

_STATE = "SELECT disabled, stamp FROM account WHERE domain = $1 AND name = $2"
_ACCOUNT = (
    "a.name, a.disabled, u.iterations, a.created, a.changed FROM account a "
    "LEFT JOIN scram_user u ON u.domain = a.domain AND u.name = a.name"
)
_DESCRIBE = f"SELECT {_ACCOUNT} WHERE a.domain = $1 AND a.name = $2"
_LIST = f"SELECT {_ACCOUNT} WHERE a.domain = $1 AND a.name > $2 ORDER BY a.name LIMIT $3"
_CREATE = (
    "INSERT INTO account (domain, name, disabled, stamp, created, changed) "
    "VALUES ($1, $2, 0, $3, $4, $4) ON CONFLICT DO NOTHING RETURNING name"
)
_IMPORT = (
    "INSERT INTO account (domain, name, disabled, stamp, created, changed) "
    "VALUES ($1, $2, $5, $3, $4, $4) ON CONFLICT DO NOTHING RETURNING name"
)
_IMPORT_OVER = (
    "INSERT INTO account (domain, name, disabled, stamp, created, changed) VALUES ($1, $2, $5, $3, $4, $4) "
    "ON CONFLICT (domain, name) DO UPDATE SET disabled = excluded.disabled, stamp = excluded.stamp, changed = excluded.changed "
    "RETURNING name"
)
_CHANGE = "UPDATE account SET stamp = $3, changed = $4 WHERE domain = $1 AND name = $2 RETURNING name"
_ENABLE = "UPDATE account SET disabled = $3 WHERE domain = $1 AND name = $2 RETURNING name"
_REMOVE = "DELETE FROM account WHERE domain = $1 AND name = $2 RETURNING name"


class LocalBackend:
    """Accounts in the state store."""

    keyring = True

    def __init__(self, context: Context, rules: Rules, iterations: int) -> None:
        self._name = context.name
        self._store = context.store
        self._hashing = context.hashing
        self._now = context.now
        self._rules = rules
        self._iterations = iterations
        self._keyring = Keyring(context.store, context.hashing, context.now, iterations)
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
            ImportUser: self._import,
            RemoveUser: self._remove,
            SetEnabled: self._enable,
        }
        self.handles = frozenset(self._answers)
        self.hashes = ALL

    async def prepare(self) -> None:
        """Find out for which hashes every account has keys: once, since it decides which mechanisms are offered."""
        try:
            self.hashes = await settle(self._keyring.common())
        except BackendDown as down:
            _log.warning("SCRAM is offered for all hashes, though imported accounts may lack some", reason=str(down))

    def answer(self, request: Request) -> Reply:
        """Answer a request of one of the kinds in `handles`."""
        return self._answers[type(request)](request)

    # Questions ------------------------------------------------------------------------------------------------------------

    def _exists(self, request: UserExists) -> Reply:
        identity = request.identity
        rows = self._store.read(_STATE, identity.domain, identity.user)
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
        rows = self._store.read(_STATE, identity.domain, identity.user)
        return then(rows, lambda rows: self._verify(identity, request.password, rows[0]) if rows else None)

    async def _verify(self, identity: Identity, password: Secret, account: Row) -> Answer | None:
        for family in CHECKED:
            ring = await settle(self._keyring.find(identity, family.value))
            own = tuple(candidate for candidate in ring.candidates if candidate.credential == PASSWORD) if ring else ()
            if ring is not None and own:
                right = await self._derive(password, family, Ring(ring.salt, ring.iterations, own)) is not None
                return await self._confirm(identity, account) if right else Reject(Reason.BAD_PASSWORD)
        await self._decoy(password)  # an account that has no password
        return Reject(Reason.BAD_PASSWORD)

    async def _confirm(self, identity: Identity, before: Row) -> Answer | None:
        """Let in whose password was right, if it still is: to find out has taken its time."""
        rows = await settle(self._store.read(_STATE, identity.domain, identity.user))
        if not rows:
            return None
        return _admit(identity, rows[0]) if rows[0][1] == before[1] else Reject(Reason.BAD_PASSWORD)

    def _find_keys(self, request: FindKeys) -> Reply:
        found = self._keyring.find_of_account(request.identity, request.hash)
        return then(found, lambda found: self._keys(request.identity, found))

    def _keys(self, identity: Identity, found: tuple[Ring, bool] | None) -> Keys | None:
        if found is None:
            return None  # an imported account may have no keys of this hash
        ring, disabled = found
        refusal = Reason.DISABLED if disabled else None
        return Keys(identity, ring.salt, ring.iterations, ring.candidates, self._name, refusal)

    def _check_certificate(self, request: CheckCertificate) -> Reply:
        identity = request.identity
        rows = self._store.read(_STATE, identity.domain, identity.user)
        return then(rows, lambda rows: _admit(identity, rows[0]) if rows else None)

    async def _waste(self, request: Decoy) -> Answer:
        await self._decoy(request.password)
        return Reject(Reason.NO_USER)

    async def _decoy(self, password: Secret) -> None:
        await self._derive(password, CHECKED[0], Ring(self._decoy_salt, self._iterations, ()))

    async def _derive(self, password: Secret, family: scram.Hash, ring: Ring) -> int | None:
        stored = tuple(candidate.stored_key for candidate in ring.candidates)

        def verify() -> int | None:
            return scram.verify(family, for_checking(password.reveal()), ring.salt, ring.iterations, stored)

        return await self._hashing.run(verify)

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
        keys = await self._keyring.replacement(prepared)
        claiming = (claim, (identity.domain, identity.user, keys.stamp, int(self._now())))
        claimed, *_ = await self._store.write(claiming, *self._keyring.replacing(identity, keys))
        return Accept(identity) if claimed else unclaimed

    async def _import(self, request: ImportUser) -> Answer | None:
        identity = request.identity
        families = tuple(FamilyKeys(k.hash, k.salt, scram.ScramKeys(k.stored_key, k.server_key)) for k in request.keys)
        keys = PasswordKeys(secrets.token_hex(16), request.iterations, families)
        claim = _IMPORT_OVER if request.replace else _IMPORT
        claiming = (claim, (identity.domain, identity.user, keys.stamp, int(self._now()), int(not request.enabled)))
        claimed, *_ = await self._store.write(claiming, *self._keyring.replacing(identity, keys))
        return Accept(identity) if claimed else Reject(Reason.USER_EXISTS)

    async def _remove(self, request: RemoveUser) -> Answer | None:
        identity = request.identity
        removing = (_REMOVE, (identity.domain, identity.user))
        removed, *_ = await self._store.write(removing, *dropping_all(identity))
        return Accept(identity) if removed else None

    async def _enable(self, request: SetEnabled) -> Answer | None:
        identity = request.identity
        (changed,) = await self._store.write((_ENABLE, (identity.domain, identity.user, int(not request.enabled))))
        return Accept(identity) if changed else None


def _admit(identity: Identity, row: Row) -> Answer:
    return Reject(Reason.DISABLED) if row[0] else Accept(identity)


def _account(domain: str, row: Row) -> Accept:
    name, disabled, iterations, created, changed = row
    return Accept(
        Identity(str(name), domain),
        {
            "enabled": "no" if disabled else "yes",
            "iterations": str(iterations or "none"),
            "created": _time(created),
            "password-changed": _time(changed),
        },
    )


def _time(seconds: object) -> str:
    assert isinstance(seconds, int)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
