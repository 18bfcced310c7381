"""Backend `file`: users in a file of lines, Dovecot's passwd-file or Apache's htpasswd; read again when it changes."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from extauth.backend import Backend, Context
from extauth.errors import ConfigError
from extauth.jid import InvalidName, domain_part
from extauth.model import Accept, Answer, CheckCertificate, CheckPassword, Decoy, FindKeys, Reject, Request, UserExists
from extauth.passwords.stored import WEAK
from extauth.soon import Soon, settle
from extauth.values import Checked
from extauth.verifier import Verifier
from extauth_file.table import Entry, Table, read, told
from extauth_file.watched import WatchedFile

_log = structlog.get_logger("file")

MOST_TOLD = 20  # lines that can't be used are logged one by one


@dataclass(frozen=True)
class Config(Checked):
    """[backend.NAME] of `type = "file"`."""

    path: str  # of the file
    domain: str = ""  # of the users whose line tells none; empty: they are users of every domain that asks
    weak_schemes: tuple[str, ...] = ()  # of docs/password-formats.md, that are allowed

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        for name in sorted({*self.weak_schemes} - WEAK):
            yield f"weak_schemes: {name!r} is not one of {', '.join(sorted(WEAK))}"
        if not self.path.startswith("/"):
            yield "path: must be an absolute path"
        try:
            if self.domain and domain_part(self.domain) != self.domain:
                yield f"domain: must be written {domain_part(self.domain)}"
        except InvalidName as error:
            yield f"domain: {error}"


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001 - the name every backend has
    """Read the file.

    Raises:
        ConfigError: it can't be read.
    """
    weak = frozenset(config.weak_schemes)
    known: tuple[str, ...] = ()

    def understand(data: bytes) -> Table:
        nonlocal known
        table = read(data, weak, config.domain)
        for problem in told(table.problems, MOST_TOLD) if table.problems != known else ():
            _log.warning("a line can't be used", backend=context.name, path=config.path, problem=problem)
        known = table.problems
        return table

    try:
        file = WatchedFile(config.path, understand)
    except OSError as error:
        raise ConfigError([f"backend.{context.name}.path: {config.path}: {error.strerror or error}"]) from None
    yield FileBackend(file, Verifier(context.name, context.hashing, weak))


class FileBackend:
    """Looks users up in the file.

    Whether it has SCRAM keys is decided when it is opened, since that decides which mechanisms are offered: `hashes` are those
    for which every user of the file had keys.
    """

    def __init__(self, file: WatchedFile[Table], verifier: Verifier) -> None:
        self._file = file
        self._verifier = verifier
        self.hashes = file.content.hashes
        self._answers: dict[type[Request], Callable[..., Soon[Answer | None]]] = {
            CheckPassword: self._check,
            CheckCertificate: _admit,
            UserExists: _exists,
        }
        if self.hashes:
            self._answers[FindKeys] = self._find_keys
        self.handles: frozenset[type[Request]] = frozenset({*self._answers, Decoy})

    def answer(self, request: Request) -> Soon[Answer | None]:
        """Answer a request of one of the kinds in `handles`."""
        if isinstance(request, Decoy):
            return self._verifier.decoy(request)
        return self._answer_now(request) if self._file.fresh else self._answer_later(request)

    async def _answer_later(self, request: Request) -> Answer | None:
        await self._file.refresh()
        return await settle(self._answer_now(request))

    def _answer_now(self, request: Request) -> Soon[Answer | None]:
        entry = self._file.content.find(request.identity)
        return None if entry is None else self._answers[type(request)](request, entry)

    async def _check(self, request: CheckPassword, entry: Entry) -> Answer:
        return await self._verifier.check(request, entry.values, refusal=entry.refusal)

    def _find_keys(self, request: FindKeys, entry: Entry) -> Answer | None:
        return self._verifier.keys(request, entry.values, refusal=entry.refusal)


def _admit(request: CheckCertificate, entry: Entry) -> Answer:
    return Reject(entry.refusal) if entry.refusal else Accept(request.identity)


def _exists(request: UserExists, _entry: Entry) -> Answer:
    return Accept(request.identity)
