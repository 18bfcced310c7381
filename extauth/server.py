"""What a front end gives the daemon to run."""

from collections.abc import Callable
from typing import Any, Protocol

import trio

from extauth.service import Service
from extauth.sockets import Listening, SocketConfig


class Server(Protocol):
    """Serves one listening socket."""

    async def run(self, listening: Listening, task_status: trio.TaskStatus[None] = ...) -> None:
        """Serve until cancelled. Ready when connections are accepted."""
        ...

    def stop_accepting(self) -> None:
        """Accept nothing more; the listening socket may then be closed."""
        ...

    async def drain(self) -> None:
        """Accept nothing more and return when everything begun is answered."""
        ...

    @property
    def connections(self) -> int:
        """How many are open."""
        ...


class ListenerModule(Protocol):
    """The module of a front end."""

    Config: type[SocketConfig]
    server: Callable[[str, Any, Service], Server]
