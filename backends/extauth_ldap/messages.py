"""What passes between the daemon and its LDAP process: each message is one packet, in MessagePack.

They are plain values, read back by their types. With pickle, a process that a directory has taken over could run code in the
daemon.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from extauth.model import NOTHING, Identity, Reason, Secret
from extauth_ldap.config import Config

LARGEST = 1 << 17  # octets of a packet; well below what a socket of the system takes

MessageError = msgspec.DecodeError  # a packet is no message


# To the process ---------------------------------------------------------------------------------------------------------------


class Setup(Struct, frozen=True):
    """The first message: the backend's name and configuration, and the searching account's password."""

    name: str
    config: Config
    password: Secret | None


class Bind(Struct, frozen=True, tag=True):
    """May one bind under this name? Answered by a reason alone."""

    name: str
    password: Secret


class Check(Struct, frozen=True, tag=True):
    """Is this the user's password?"""

    identity: Identity
    password: Secret


class Find(Struct, frozen=True, tag=True):
    """Is there such a user, in the required group?"""

    identity: Identity


class Admit(Struct, frozen=True, tag=True):
    """May the user log in, who proves by other means who that is?"""

    identity: Identity


class Read(Struct, frozen=True, tag=True):
    """What is stored as the user's password, and may the user log in?"""

    identity: Identity


class Change(Struct, frozen=True, tag=True):
    """Put this in the place of the user's password."""

    identity: Identity
    value: Secret


Question = Bind | Check | Find | Admit | Read | Change


class Asked(Struct, frozen=True):
    """A question on its way. `deadline` is a time of `time.monotonic()`, which all processes of a machine share."""

    number: int
    deadline: float
    question: Question


# From the process -------------------------------------------------------------------------------------------------------------


class Told(Struct, frozen=True, tag=True):
    """What the directory says: `Reason.OK`, why not, or None: there is no such user.

    `attributes` are those of the login. `values` are what is stored as the user's password; None if that was not asked.
    """

    reason: Reason | None
    attributes: Mapping[str, str] = NOTHING
    values: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return f"Told({self.reason!r}, ...)"


class Outage(Struct, frozen=True, tag=True):
    """It can't be told at present."""

    problem: str


class Bug(Struct, frozen=True, tag=True):
    """What should never happen, with its traceback."""

    traceback: str


class Reply(Struct, frozen=True, tag=True):
    """The answer to a question, by its number."""

    number: int
    answer: Told | Outage | Bug


class Ready(Struct, frozen=True):
    """The first message: it waits for questions. If there are problems with the configuration, it ends instead."""

    problems: tuple[str, ...] = ()


SERVER_DOWN, SERVER_UP = "directory_server_down", "directory_server_up"  # events of the log, and the state of a server


class Logged(Struct, frozen=True, tag=True):
    """A line for the log."""

    level: Literal["debug", "info", "warning"]
    event: str
    details: dict[Literal["server", "problem"], str]


# Packets ----------------------------------------------------------------------------------------------------------------------


def _plain(value: object) -> Any:  # noqa: ANN401 - whatever MessagePack has
    if isinstance(value, Secret):
        return value.reveal()
    if value is NOTHING:
        return {}
    raise NotImplementedError


def _secret(kind: type, value: object) -> Secret:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise NotImplementedError


pack = msgspec.msgpack.Encoder(enc_hook=_plain).encode
read_setup = msgspec.msgpack.Decoder(Setup, dec_hook=_secret).decode
read_asked = msgspec.msgpack.Decoder(Asked, dec_hook=_secret).decode
read_ready = msgspec.msgpack.Decoder(Ready).decode
read_said = msgspec.msgpack.Decoder(Reply | Logged).decode
