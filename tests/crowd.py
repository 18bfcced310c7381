"""A crowd that logs in at a steady rate, whatever happens to what is behind the daemon."""

from collections import Counter
from pathlib import Path

import trio

from tests.daemons import frame

RATE = 50  # logins per second


async def connect(path: str) -> trio.SocketStream:
    """Connect to a Unix socket, and wait for a place in its queue: trio takes a full queue for a connection."""
    while True:
        stream = await trio.open_unix_socket(path)
        try:
            stream.socket.getpeername()
        except OSError:
            await stream.aclose()
            await trio.sleep(0.05)
        else:
            return stream


class Crowd:
    """Logs alice in at RATE, on the daemon's ejabberd socket: every fifth time with a wrong password."""

    def __init__(self, path: Path, right: str, wrong: str) -> None:
        self._path = str(path)
        self._passwords = right, wrong
        self.replies = Counter[tuple[str, bytes]]()
        self.seconds: list[float] = []
        self.over = False

    async def run(self) -> None:
        """Begin a login at each tick until `over`, and end them all."""
        number = 0
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            while not self.over:
                nursery.start_soon(self.log_in, "alice", self._passwords[number % 5 == 0])
                number += 1
                await trio.sleep_until(begun + number / RATE)

    async def log_in(self, user: str, password: str) -> bytes:
        """Log in on a new connection; return and count the reply."""
        begun = trio.current_time()
        async with await connect(self._path) as stream:
            await stream.send_all(frame(f"auth:{user}:xmpp.test:{password}".encode()))
            reply = await stream.receive_some(100)
        self.seconds.append(trio.current_time() - begun)
        self.replies["right" if password == self._passwords[0] else "wrong", reply] += 1
        return reply
