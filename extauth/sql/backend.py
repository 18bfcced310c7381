"""What the backends of SQL answer."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import structlog
import trio

from extauth.backend import Context
from extauth.background import background
from extauth.errors import BackendDown
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
    Reason,
    Reject,
    RemoveUser,
    Request,
    Secret,
    SetPassword,
    UserExists,
)
from extauth.passwords.prepare import LONGEST, for_storing
from extauth.passwords.rules import Rules
from extauth.passwords.stored import UnsupportedHash, make, needs_update, parse
from extauth.sql import account
from extauth.sql.account import Account, Ambiguous
from extauth.sql.config import SqlConfig
from extauth.sql.database import Conflict, Connection, Database, ThreadedDatabase
from extauth.sql.patience import PatientDatabase
from extauth.sql.presets import PRESETS, Preset
from extauth.sql.statement import Statement
from extauth.threads import Threads
from extauth.verifier import Verifier

_log = structlog.get_logger("sql")

PATIENCE_SHARE = 0.8  # of the peer's patience: below the authority's own share, so that the reason of an outage is told


class SqlBackend:
    """Accounts in a database's tables.

    Args:
        nursery: where old formats are replaced, after the answer.
    """

    def __init__(self, config: SqlConfig, context: Context, database: Database, nursery: trio.Nursery) -> None:
        self._database = PatientDatabase(context.name, database)
        self._hashing = context.hashing
        self._nursery = nursery
        self._config = config
        self._preset = PRESETS[config.preset] if config.preset else Preset(query="")
        self._weak = self._preset.weak | frozenset(config.weak)
        self._verifier = Verifier(context.name, context.hashing, self._weak)
        self._rules = Rules(config.min_length, LONGEST, frozenset())
        self._question = config.question()
        self._rehash = config.change(config.rehash) if config.rehash else None
        self._rehashing = False
        self.hashes = frozenset(config.scram)
        self._answers: dict[type[Request], Callable[..., Awaitable[Answer | None]]] = {
            CheckPassword: self._check,
            UserExists: self._exists,
            CheckCertificate: self._admit,
            FindAccount: self._describe,
            Decoy: self._verifier.decoy,
        }
        if config.scram:
            self._answers[FindKeys] = self._find_keys
        for kind, text, answer in (
            (SetPassword, config.set_password, self._set_password),
            (CreateUser, config.create_user, self._create),
            (RemoveUser, config.remove_user, self._remove),
        ):
            if text is not None:
                self._answers[kind] = _with(answer, config.change(text))
        self.handles = frozenset(self._answers)

    def answer(self, request: Request) -> Awaitable[Answer | None]:
        """Answer a request of one of the kinds in `handles`."""
        return self._answers[type(request)](request)

    # Questions ------------------------------------------------------------------------------------------------------------

    async def _check(self, request: CheckPassword) -> Answer | None:
        found = await self._find(request)
        if not isinstance(found, Account):
            return found
        answer = await self._verifier.check(request, found.values, found.attributes, _refusal(found))
        if self._rehash is not None and isinstance(answer, Accept) and len(found.values) == 1 and not self._rehashing:
            self._nursery.start_soon(self._store_anew, request.identity, request.password, found.values[0])
        return answer

    async def _find_keys(self, request: FindKeys) -> Answer | None:
        found = await self._find(request)
        if not isinstance(found, Account):
            return found
        return self._verifier.keys(request, found.values, found.attributes, _refusal(found))

    async def _exists(self, request: UserExists) -> Answer | None:
        found = await self._find(request)
        return Accept(request.identity) if isinstance(found, Account) else found

    async def _admit(self, request: CheckCertificate) -> Answer | None:
        found = await self._find(request)
        if not isinstance(found, Account):
            return found
        return Accept(request.identity, found.attributes) if found.enabled else Reject(Reason.DISABLED)

    async def _describe(self, request: FindAccount) -> Answer | None:
        found = await self._find(request)
        if not isinstance(found, Account):
            return found
        return Accept(request.identity, {"enabled": "yes" if found.enabled else "no", **found.attributes})

    async def _find(self, request: Request) -> Account | Reject | None:
        """Return the user's account; None if there is none of exactly that name."""
        values = self._question.bind(_names(request.identity))
        rows = await self._database.read(self._question, values, self._deadline(request))
        try:
            translated = [self._preset.translate(row) for row in account.pivot(rows)]
            return account.read(translated, request.identity, self._config.attributes)
        except Ambiguous:
            return Reject(Reason.AMBIGUOUS)

    def _deadline(self, request: Request) -> float:
        return time.monotonic() + min(self._config.timeout, PATIENCE_SHARE * request.origin.patience)

    # Changes --------------------------------------------------------------------------------------------------------------

    async def _set_password(self, request: SetPassword, statement: Statement) -> Answer | None:
        found = await self._find(request)
        return await self._write_password(request, statement) if isinstance(found, Account) else found

    async def _create(self, request: CreateUser, statement: Statement) -> Answer | None:
        if await self._find(request) is not None:
            return Reject(Reason.USER_EXISTS)
        return await self._write_password(request, statement) or Reject(Reason.USER_EXISTS)

    async def _remove(self, request: RemoveUser, statement: Statement) -> Answer | None:
        found = await self._find(request)
        return await self._change(request, statement, _names(request.identity)) if isinstance(found, Account) else found

    async def _write_password(self, request: SetPassword | CreateUser, statement: Statement) -> Answer | None:
        prepared = self._rules.judge(request.password.reveal())
        if isinstance(prepared, Reason):
            return Reject(prepared)
        try:
            stored = await self._hashing.run(lambda: make(self._config.scheme, prepared))
        except ValueError:
            return Reject(Reason.PASSWORD_TOO_LONG)
        return await self._change(request, statement, {**_names(request.identity), "password": stored})

    async def _change(self, request: Request, statement: Statement, values: Mapping[str, str]) -> Answer | None:
        try:
            count = await self._database.change(statement, statement.bind(values), self._deadline(request))
        except Conflict:
            return Reject(Reason.USER_EXISTS)
        if count > 1:
            return Reject(Reason.AMBIGUOUS)
        return Accept(request.identity) if count else None

    async def _store_anew(self, identity: Identity, password: Secret, stored: str) -> None:
        """Replace a stored value of an old format, if it is still there; one at a time, since nobody waits for it."""
        assert self._rehash is not None
        prepared = for_storing(password.reveal())
        try:
            if prepared is None or not needs_update(parse(stored, self._weak), self._config.scheme):
                return
            self._rehashing = True
            fresh = await self._hashing.run(lambda: make(self._config.scheme, prepared))
            values = {**_names(identity), "password": fresh, "stored": stored}
            await self._database.change(self._rehash, self._rehash.bind(values), time.monotonic() + self._config.timeout)
        except (BackendDown, Conflict, UnsupportedHash, ValueError) as error:
            _log.warning("rehash_failed", user=str(identity), problem=type(error).__name__)
        finally:
            self._rehashing = False


def _with(
    answer: Callable[..., Awaitable[Answer | None]], statement: Statement
) -> Callable[[Request], Awaitable[Answer | None]]:
    return lambda request: answer(request, statement)


def _names(identity: Identity) -> dict[str, str]:
    return {"user": identity.user, "domain": identity.domain, "jid": str(identity)}


def _refusal(found: Account) -> Reason | None:
    return None if found.enabled else Reason.DISABLED


@asynccontextmanager
async def open_in_threads(
    what: str, config: SqlConfig, context: Context, connect: Callable[[float, bool], Connection]
) -> AsyncGenerator[SqlBackend, None]:
    """Give the backend of a driver that blocks.

    `what` is the database, for errors; `connect` is as of `ThreadedDatabase`.
    """
    with Threads(what, config.connections, config.queue_patience) as threads:
        database = ThreadedDatabase(threads, connect)
        try:
            async with background() as nursery:
                yield SqlBackend(config, context, database, nursery)
        finally:
            database.close()
