"""The contender "plain trio streams": our own ejabberd front end, authority, audit and counters, without our engine.

    python -m bench.streams_server CONFIGURATION SOCKET

One task a connection reads a `SocketStream`, answers by the same `Conversation` of the same `Service`, and writes.
"""

import os
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from extauth.configuration import load
from extauth.daemon import open_service
from extauth.external import EJABBERD_VERBS, Conversation, Replies
from extauth.journal import Journal
from extauth.listeners.ejabberd import ERROR, NO, YES, Frames
from extauth.model import Origin
from extauth.plugins import InstalledKinds
from extauth.service import Service
from extauth.sockets import peer_credentials

REPLIES = Replies(YES, NO, ERROR, ERROR)
READ = 65536


async def serve(configuration: Path, path: str) -> None:
    """Serve until ended."""
    settings = load(configuration, InstalledKinds())
    async with open_service(settings.daemon, Journal()) as service, AsyncExitStack() as stack:
        service.adopt(await service.open_generation(settings, stack))
        listening = trio.socket.socket(socket.AF_UNIX)
        await listening.bind(path)
        listening.listen(1024)

        async def converse(stream: trio.SocketStream) -> None:
            await _converse(service, stream)

        await trio.serve_listeners(converse, [trio.SocketListener(listening)])


async def _converse(service: Service, stream: trio.SocketStream) -> None:
    # What one process asked is in its audit lines, as in the engine's.
    with socket.socket(fileno=os.dup(stream.socket.fileno())) as sock:
        pid, uid = peer_credentials(sock) or (0, 0)
    origin = Origin("ejabberd", f"uid:{uid}/pid:{pid}", patience=25.0)
    conversation = Conversation(service, origin, Frames(), REPLIES, EJABBERD_VERBS, allow_changes=False)
    while data := await stream.receive_some(READ):
        out = b""
        for question in conversation.requests(data):
            reply = conversation.answer(question)
            out += reply if isinstance(reply, bytes) else await reply
        await stream.send_all(out)


if __name__ == "__main__":
    trio.run(serve, Path(sys.argv[1]), sys.argv[2])
