"""Prosody's mod_auth_external, protocol "generic": a line is asked, a line "1" or "0" is answered.

The module takes any other line for an internal error, which is how an outage is told. Lines arrive through the connector, or
from the variant of the module that opens a TCP connection for each question (`@host:port`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from extauth.engine import Engine
from extauth.external import PROSODY_VERBS, Conversation, ExternalConfig, Replies
from extauth.lines import Lines
from extauth.model import Origin
from extauth.server import Server
from extauth.service import Service

YES = b"1\n"
NO = b"0\n"
ERROR = b"error: temporarily unavailable\n"  # the module logs what begins with "error:"
MAX_LINE = 8192  # bytes; Prosody's module itself sends at most 1000


@dataclass(frozen=True)
class Config(ExternalConfig):
    """[listener.NAME] with protocol = "prosody"."""

    address: str = "unix:/run/extauth/prosody.sock"
    deadline: float = 4.0  # Prosody itself waits 5 s, and takes a late answer for that to its next question

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        yield from super().problems()
        if self.deadline > 4.5:  # noqa: PLR2004
            yield "deadline: must be at most 4.5: Prosody itself gives up after 5 seconds"


def server(name: str, config: Config, service: Service) -> Server:
    """Make the listener."""
    replies = Replies(YES, NO, not_set=NO, outage=ERROR if config.outage_reply == "error" else None)

    def converse(origin: Origin) -> Conversation:
        return Conversation(service, origin, Lines(MAX_LINE), replies, PROSODY_VERBS, allow_changes=config.allow_changes)

    return Engine(name, config, service.journal, converse)
