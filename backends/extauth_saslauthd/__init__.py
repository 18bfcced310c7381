"""Backend `saslauthd`: passwords checked by an existing saslauthd, and so by PAM, Kerberos, IMAP or shadow.

One connection a question: login, password, service and realm, each as a length of two bytes, big-endian, and that many bytes;
the answer is one such string that begins with "OK" or "NO" (cyrus-sasl saslauthd/ipc_unix.c, lib/checkpw.c). The service does
not tell an unknown user from a wrong password, so every "NO" is a wrong password.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import trio

from extauth.backend import Backend, Context
from extauth.errors import BackendDown
from extauth.model import Accept, CheckPassword, Reason, Reject, Request
from extauth.values import Checked

MAX_STRING = 256  # bytes; saslauthd refuses more (MAX_REQ_LEN)
MAX_ANSWER = 1024


@dataclass(frozen=True)
class Config(Checked):
    """[backend.NAME] of `type = "saslauthd"`."""

    path: str = "/run/saslauthd/mux"
    service: str = "xmpp"  # as PAM knows it: /etc/pam.d/xmpp
    realm: Literal["domain", "none"] = "domain"  # what is said beside the user's name
    connections: int = 16  # at a time: saslauthd works on as many as it has processes
    timeout: float = 8.0  # seconds that an answer may take, the wait for a connection included

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        if not self.path.startswith("/"):
            yield "path: must be absolute"
        if not 1 <= len(self.service.encode()) <= MAX_STRING:
            yield f"service: must have 1 to {MAX_STRING} bytes"
        yield from self.not_positive("connections", "timeout")


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001, ARG001 - what every backend has
    """Prepare to ask; the socket is looked for when it is needed."""
    yield SaslauthdBackend(config)


class SaslauthdBackend:
    """Asks the daemon behind one socket."""

    handles: frozenset[type[Request]] = frozenset({CheckPassword})

    def __init__(self, config: Config) -> None:
        self._config = config
        self._places = trio.CapacityLimiter(config.connections)

    async def answer(self, request: Request) -> Accept | Reject:
        """Ask whether the password is right.

        Raises:
            BackendDown: no answer, or none that can be understood.
        """
        assert isinstance(request, CheckPassword)
        identity, password = request.identity, request.password.reveal()
        realm = identity.domain if self._config.realm == "domain" else ""
        question = [text.encode() for text in (identity.user, password, self._config.service, realm)]
        # A NUL would end the string early there.
        if any(len(text) > MAX_STRING or b"\0" in text for text in question):
            return Reject(Reason.BAD_PASSWORD)
        try:
            with trio.fail_after(self._config.timeout):
                async with self._places:
                    answer = await self._ask(b"".join(len(text).to_bytes(2, "big") + text for text in question))
        except trio.TooSlowError as error:
            raise BackendDown(f"{self._config.path}: no answer within {self._config.timeout:g} s") from error
        except (OSError, trio.BrokenResourceError) as error:
            raise BackendDown(f"{self._config.path}: {error.__cause__ or error}") from error
        if answer.startswith(b"OK"):
            return Accept(identity)
        if answer.startswith(b"NO"):
            return Reject(Reason.BAD_PASSWORD)
        raise BackendDown(f"{self._config.path}: an answer that is neither OK nor NO")

    async def _ask(self, question: bytes) -> bytes:
        """Return the answer's string; what is not whole is no answer."""
        async with await trio.open_unix_socket(self._config.path) as stream:
            await stream.send_all(question)
            data = b""
            while len(data) < MAX_ANSWER and (more := await stream.receive_some(MAX_ANSWER)):
                data += more
        size = int.from_bytes(data[:2], "big")
        return data[2:] if len(data) == 2 + size else b""
