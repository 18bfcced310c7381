"""The administrator's socket: one JSON object a line each way. The CLI speaks it; it is always on."""

from collections.abc import Awaitable
from dataclasses import dataclass

import msgspec

from extauth.admin import Command, perform
from extauth.engine import Engine
from extauth.errors import ProtocolError
from extauth.lines import Lines
from extauth.model import Origin
from extauth.server import Server
from extauth.service import Service
from extauth.sockets import SocketConfig

MAX_LINE = 65536


@dataclass(frozen=True)
class Config(SocketConfig):
    """[listener.NAME] with protocol = "admin"."""

    vouched = True

    address: str = "unix:/run/extauth/admin.sock"
    mode: str = "0600"
    deadline: float = 60.0


class Conversation:
    """One connection of an administrator."""

    ordered = True

    def __init__(self, service: Service, origin: Origin) -> None:
        self._service = service
        self._origin = origin
        lines = Lines(MAX_LINE)
        self.requests = lines.feed
        self.half = lines.half

    def greet(self) -> bytes:
        """The administrator speaks first."""
        return b""

    def answer(self, command: bytes) -> Awaitable[bytes]:
        """Perform one command."""
        try:
            parsed = msgspec.json.decode(command, type=Command)
        except msgspec.DecodeError as error:  # its text names places, not values
            raise ProtocolError(f"not a command: {error}") from None
        return self._perform(parsed)

    def closed(self) -> None:
        """Nothing is left open."""

    async def _perform(self, command: Command) -> bytes:
        return msgspec.json.encode(await perform(self._service, command, self._origin)) + b"\n"


def server(name: str, config: Config, service: Service) -> Server:
    """Make the listener."""
    return Engine(name, config, service.journal, lambda origin: Conversation(service, origin))
