"""Backend `signed`: tokens that a web application signs with a shared secret: those of xcauth and JSXC, and TalkJS's."""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import structlog

from extauth.backend import Backend, Context
from extauth.errors import ConfigError
from extauth.model import VIA, Accept, Answer, CheckPassword, CheckToken, Reason, Reject, Request
from extauth.secretfile import read_secret
from extauth.values import Checked
from extauth_signed.formats import Format, TalkJs, Xcauth

_log = structlog.get_logger("signed")


@dataclass(frozen=True, kw_only=True)
class Config(Checked):
    """[backend.NAME] of `type = "signed"`."""

    format: Literal["xcauth", "talkjs"]
    secret_files: tuple[str, ...]  # several while one takes the other's place

    def problems(self) -> Iterable[str]:
        """Return what is wrong, each with its key."""
        return [] if self.secret_files else ["secret_files: name at least one"]


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001 - the name every backend has
    """Read the secrets.

    Raises:
        ConfigError: one can't be used.
    """
    secrets: list[bytes] = []
    problems: list[str] = []
    for path in config.secret_files:
        try:
            secrets.append(read_secret(path, f"backend.{context.name}.secret_files").reveal().encode())
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    if config.format == "talkjs":
        _log.warning("TalkJS signatures never expire: whoever has seen one can log in for ever", backend=context.name)
    form: Format = Xcauth(secrets) if config.format == "xcauth" else TalkJs(secrets)
    yield SignedBackend(config.format, form, context.now)


class SignedBackend:
    """Judges tokens of one format."""

    handles: frozenset[type[Request]] = frozenset({CheckToken, CheckPassword})

    def __init__(self, name: str, form: Format, now: Callable[[], float]) -> None:
        self._attributes = {VIA: name}
        self._form = form
        self._now = now

    def answer(self, request: Request) -> Answer | None:
        """Judge what is a token by the look of it. It does not say whose it is: the client must."""
        identity = request.identity
        if isinstance(request, CheckPassword):
            token = request.password
        else:
            assert isinstance(request, CheckToken)
            token = request.token
        reason = self._form.judge(token.reveal(), identity, self._now())
        if reason is not Reason.OK:
            return None if reason is None else Reject(reason)
        return Accept(identity, self._attributes) if identity.user else Reject(Reason.WRONG_TOKEN)
