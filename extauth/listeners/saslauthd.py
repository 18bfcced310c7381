"""The saslauthd protocol: password checks for Cyrus SASL (Postfix, OpenLDAP, Prosody's mod_auth_cyrus).

One connection a request: login, password, service and realm, each as a length of two bytes, big-endian, and that many bytes;
the answer is one such string that begins with "OK" or "NO" (cyrus-sasl saslauthd/ipc_unix.c, lib/checkpw.c). Newer clients send
the client's address as a fifth string, in the same write.
"""

from collections.abc import Awaitable, Iterator
from dataclasses import dataclass

from extauth import jid
from extauth.dialogue import Last
from extauth.engine import Engine
from extauth.errors import ProtocolError
from extauth.model import Accept, CheckPassword, Identity, Origin, Reason, Secret, Unavailable, Verdict
from extauth.server import Server
from extauth.service import Service
from extauth.sockets import SocketConfig, domain_problems
from extauth.soon import Soon

STRINGS = 4
MAX_STRING = 1024  # bytes; the real saslauthd takes 256, which is too few for tokens


@dataclass(frozen=True)
class Config(SocketConfig):
    """[listener.NAME] with protocol = "saslauthd"."""

    address: str = "unix:/run/extauth/saslauthd/mux"
    domain: str = ""  # of users who come without a realm

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        yield from super().problems()
        yield from domain_problems(self.domain)


class Conversation:
    """One connection, one question."""

    ordered = True

    def __init__(self, service: Service, origin: Origin, config: Config) -> None:
        self._service = service
        self._origin = origin
        self._domain = config.domain
        self._rest = bytearray()

    def greet(self) -> bytes:
        """The client speaks first."""
        return b""

    @property
    def half(self) -> bool:
        """Whether a part of the question has arrived: an idle connection has no other purpose."""
        return True

    def requests(self, data: bytes) -> Iterator[tuple[bytes, ...]]:
        """Yield the question when it is complete; what comes with it or after it is ignored."""
        self._rest += data
        strings: list[bytes] = []
        position = 0
        while len(strings) < STRINGS:
            if len(self._rest) < position + 2:
                return
            size = self._rest[position] << 8 | self._rest[position + 1]
            if size > MAX_STRING:
                raise ProtocolError(f"a string of {size} bytes")
            position += 2 + size
            if len(self._rest) < position:
                return
            strings.append(bytes(self._rest[position - size : position]))
        self._rest.clear()
        yield tuple(strings)

    def answer(self, command: tuple[bytes, ...]) -> Soon[bytes]:
        """Answer the question and close."""
        verdict = self._ask(*command)
        return self._later(verdict) if isinstance(verdict, Awaitable) else self._reply(verdict)

    def closed(self) -> None:
        """Nothing is left open."""

    def _ask(self, login: bytes, password: bytes, _service: bytes, realm: bytes) -> Soon[Verdict]:
        try:
            user, domain = login.decode(), realm.decode()
            if not domain:
                user, at, domain = user.rpartition("@")
                if not at:
                    user, domain = domain, self._domain
            identity = jid.identity(user, domain)
            secret = Secret(password.decode())
        except (jid.InvalidName, UnicodeDecodeError):
            names = Identity(login.decode(errors="backslashreplace"), realm.decode(errors="backslashreplace"))
            return self._service.refuse("check-password", names, self._origin, Reason.BAD_NAME)
        return self._service.ask(CheckPassword(identity, self._origin, secret))

    async def _later(self, verdict: Awaitable[Verdict]) -> bytes:
        return self._reply(await verdict)

    def _reply(self, verdict: Verdict) -> bytes:
        if isinstance(verdict, Accept):
            text = b"OK"
        elif isinstance(verdict, Unavailable):
            text = b"NO temporary failure"
        else:
            text = b"NO authentication failed"
        return Last(len(text).to_bytes(2, "big") + text)


def server(name: str, config: Config, service: Service) -> Server:
    """Make the listener."""
    return Engine(name, config, service.journal, lambda origin: Conversation(service, origin, config))
