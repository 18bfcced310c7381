"""ejabberd's external authentication (`extauth_program`), and MongooseIM's, through the connector.

A frame is a length of two bytes, big-endian, and that many bytes; one request is answered by one frame, 00 01 for yes and 00 00
for no (ejabberd src/extauth.erl). A frame of any other content makes ejabberd log an error and refuse without remembering it,
which is how an outage is told.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from extauth.engine import Engine
from extauth.external import EJABBERD_VERBS, Conversation, ExternalConfig, Replies
from extauth.model import Origin
from extauth.server import Server
from extauth.service import Service

YES = b"\x00\x02\x00\x01"
NO = b"\x00\x02\x00\x00"
ERROR = b"\x00\x01\x00"  # no valid answer: "unexpected_response" in ejabberd's log


@dataclass(frozen=True)
class Config(ExternalConfig):
    """[listener.NAME] with protocol = "ejabberd"."""

    address: str = "unix:/run/extauth/ejabberd.sock"
    deadline: float = 25.0  # ejabberd itself waits 30 s

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        yield from super().problems()
        if self.deadline > 28:  # noqa: PLR2004
            yield "deadline: must be at most 28: ejabberd itself gives up after 30 seconds"


class Frames:
    """Bytes into frames."""

    def __init__(self) -> None:
        self.half = bytearray()  # what has arrived of a frame whose rest has not

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the payload of each complete frame."""
        if not self.half and len(data) >= 2 and len(data) == 2 + (data[0] << 8 | data[1]):  # noqa: PLR2004
            return iter((data[2:],))  # one whole frame, as nearly always
        return self._cut(data)

    def _cut(self, data: bytes) -> Iterator[bytes]:
        half = self.half
        half += data
        while len(half) >= 2:  # noqa: PLR2004
            end = 2 + (half[0] << 8 | half[1])
            if len(half) < end:
                return
            frame = bytes(half[2:end])
            del half[:end]
            yield frame


def server(name: str, config: Config, service: Service) -> Server:
    """Make the listener."""
    # ejabberd takes any valid answer to setpass for success, also a no, and caches the new password: that no is an error too.
    replies = Replies(YES, NO, not_set=ERROR, outage=ERROR if config.outage_reply == "error" else None)

    def converse(origin: Origin) -> Conversation:
        return Conversation(service, origin, Frames(), replies, EJABBERD_VERBS, allow_changes=config.allow_changes)

    return Engine(name, config, service.journal, converse)
