"""What a line protocol is to the engine: a dialogue on each connection, and what is remembered of a connection."""

import math
import select
import socket
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import trio

from extauth.soon import Soon

Command = TypeVar("Command")

NEVER = math.inf  # a time in seconds


class Last(bytes):
    """A reply after which the connection is closed."""


class Dialogue(Protocol[Command]):
    """A protocol's side of one connection; it does no I/O."""

    ordered: bool  # replies go out in the order of the requests

    def greet(self) -> bytes:
        """Return what is sent before anything was received."""
        ...

    def requests(self, data: bytes) -> Iterator[Command]:
        """Take received bytes and yield the complete requests in them, lazily.

        Raises:
            ProtocolError: the rest can't be understood.
        """
        ...

    @property
    def half(self) -> bytearray | bool:
        """What has arrived of a request whose rest has not, or whether there is such."""
        ...

    def answer(self, command: Command) -> Soon[bytes]:
        """Return the reply; `Last` to close the connection after it.

        Raises (at once or when awaited):
            ProtocolError: there is no answer; the connection is closed.
        """
        ...

    def closed(self) -> None:
        """The connection is gone: end what was going on. Called once."""
        ...


class Slot:
    """The place of one reply that is being waited for."""

    __slots__ = ("reply", "scope")

    def __init__(self, deadline: float) -> None:
        self.reply: bytes | None = None
        self.scope = trio.CancelScope(deadline=deadline)


class Connection:
    """One connection and everything about it."""

    __slots__ = (
        "closing", "commands", "dialogue", "fd", "half_until", "is_open", "linger_until",
        "mask", "out", "sock", "stalled_until", "unserved", "waiting",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, dialogue: Dialogue[Any]) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.dialogue = dialogue
        self.commands: Iterator[Any] | None = None  # requests received and not yet begun
        self.waiting: deque[Slot] = deque()  # requests begun and not yet answered
        self.out = bytearray()
        self.mask = select.EPOLLIN
        self.unserved = False  # among those with requests left from the last pass
        self.is_open = True
        self.closing = False  # nothing more is read; closed when everything begun is answered
        self.half_until = NEVER  # for the rest of a request
        self.stalled_until = NEVER  # for replies to be read
        self.linger_until = NEVER  # for the peer to close, too
