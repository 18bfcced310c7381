"""Performs the verbs of `extauth.admin`: by the running daemon, else (accounts only) on the store itself."""

import os
import socket
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, BinaryIO

import msgspec
import trio

from extauth.admin import Command, perform
from extauth.cli.common import EXITS, Choices, exit_with_problems, fail
from extauth.daemon import open_without_listeners
from extauth.errors import BackendDown, ConfigError
from extauth.model import Origin, Reason
from extauth.settings import Settings
from extauth.sockets import parse_address

TIMEOUT = 70.0  # seconds: longer than the daemon takes at most


class NoDaemon(Exception):  # noqa: N818 - it names a state of the world
    """No daemon answers at the admin socket. The message says what was tried."""


class Client:
    """A connection to the daemon's admin socket."""

    def __init__(self, sock: socket.socket, replies: BinaryIO) -> None:
        self._sock = sock
        self._replies = replies

    def perform(self, command: Command) -> dict[str, Any]:
        """Have one command performed."""
        try:
            self._sock.sendall(msgspec.json.encode(command) + b"\n")
            line = self._replies.readline()
        except OSError as error:
            fail(f"the daemon does not answer: {error.strerror or error}", os.EX_UNAVAILABLE)
        if not line:
            fail("the daemon closed the connection", os.EX_UNAVAILABLE)
        reply: dict[str, Any] = msgspec.json.decode(line)
        return reply


@contextmanager
def connect(settings: Settings) -> Generator[Client, None, None]:
    """Connect to the running daemon.

    Raises:
        NoDaemon: none is running, or it can't be reached.
    """
    listener = next(listener for listener in settings.listeners if listener.protocol == "admin")
    kind, path, _ = parse_address(listener.config.address)
    if kind == "systemd":
        fail(f"the address of listener {listener.name} is known to systemd only", os.EX_UNAVAILABLE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(TIMEOUT)
        try:
            sock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NoDaemon(f"no daemon is running (nobody listens at {path})") from error
        except OSError as error:
            fail(f"{path}: {error.strerror}", os.EX_NOPERM)
        with sock.makefile("rb") as replies:
            yield Client(sock, replies)


def need(settings: Settings, command: Command) -> Any:  # noqa: ANN401 - JSON
    """Have a command performed by the running daemon, or say that there is none and exit."""
    try:
        with connect(settings) as client:
            return result_of(client.perform(command))
    except NoDaemon as error:
        fail(str(error), os.EX_UNAVAILABLE)


def perform_anyhow(choices: Choices, command: Command) -> Any:  # noqa: ANN401 - JSON
    """Have a command performed by the running daemon, or on the store when none runs."""
    (result,) = perform_all(choices, [command])
    return result


def perform_all(choices: Choices, commands: Iterable[Command]) -> list[Any]:
    """Have commands performed, one after the other, by the running daemon, or on the store when none runs."""
    settings = choices.settings()
    try:
        with connect(settings) as client:
            return [result_of(client.perform(command)) for command in commands]
    except NoDaemon:
        try:
            return [result_of(reply) for reply in trio.run(_perform_here, settings, commands)]
        except ConfigError as error:
            exit_with_problems(error)
        except BackendDown as error:
            fail(str(error), os.EX_TEMPFAIL)


async def _perform_here(settings: Settings, commands: Iterable[Command]) -> list[dict[str, Any]]:
    async with open_without_listeners(settings) as service:
        return [await perform(service, command, Origin("cli")) for command in commands]


def result_of(reply: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """Return what a command gave, or say why it was refused and exit."""
    if reply["ok"]:
        return reply["result"]
    detail = f": {reply['detail']}" if reply.get("detail") else ""
    if reply.get("unavailable"):
        fail(f"{reply['reason']}{detail}", os.EX_TEMPFAIL)
    reason = Reason(reply["reason"])
    fail(f"{_WORDS.get(reason, 'refused')} ({reason}){detail}", EXITS.get(reason, os.EX_DATAERR))


_WORDS = {
    Reason.NO_USER: "there is no such account",
    Reason.USER_EXISTS: "there is such an account already",
    Reason.BAD_NAME: "not a valid name",
    Reason.UNKNOWN_DOMAIN: "this domain is not configured",
    Reason.NOT_SUPPORTED: "no backend of this domain can do that",
    Reason.BAD_TOKEN: "no token that is good for anything here",
    Reason.PASSWORD_TOO_SHORT: "the password is too short",
    Reason.PASSWORD_TOO_LONG: "the password is too long",
    Reason.PASSWORD_COMMON: "the password is on the list of common ones",
    Reason.MALFORMED: "the password is empty or holds characters that no password may have",
}
