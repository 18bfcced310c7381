"""The LDAP process: what it does with the socket that it gets as its standard input, where each packet is a message.

ldap3 computes in Python, half a millisecond at a time. In a process of its own it holds up nobody but those who wait for the
directory. It is a child of the daemon, and ends as soon as nobody is at the other end of the socket, however that came about.
"""

import os
import signal
import socket
import threading
import traceback
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, NoReturn

import structlog

from extauth.errors import BackendDown, ConfigError
from extauth_ldap.desk import Desk
from extauth_ldap.messages import LARGEST, Asked, Bug, Logged, Outage, Ready, Reply, Told, pack, read_asked, read_setup

NICE = 10  # how much less of the processor it asks for than the daemon: what needs no directory is answered first


def main() -> None:
    """Answer until the other end is closed."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # may be for all processes of the daemon, which drains first
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):  # forbidden by a filter of system calls
        os.nice(NICE)
    line = socket.socket(fileno=0)

    def log(_logger: object, level: Any, event: MutableMapping[str, Any]) -> NoReturn:  # noqa: ANN401
        line.send(pack(Logged(level, event.pop("event"), dict[Any, str](event))))
        raise structlog.DropEvent

    structlog.configure(processors=[log])
    setup = read_setup(line.recv(LARGEST))
    try:
        desk = Desk(setup)
    except ConfigError as error:
        line.send(pack(Ready(error.problems)))
        return
    line.send(pack(Ready()))
    over = threading.Event()
    for _ in range(setup.config.threads):
        threading.Thread(target=_work, args=(line, desk, over), daemon=True).start()
    over.wait()
    desk.close()


def _work(line: socket.socket, desk: Desk, over: threading.Event) -> None:
    """Take one question after the other. Other threads do the same: the socket is the queue."""
    try:
        while data := line.recv(LARGEST):
            asked = read_asked(data)
            reply = pack(Reply(asked.number, _answer(desk, asked)))
            if len(reply) > LARGEST:
                reply = pack(Reply(asked.number, Outage("the directory's answer is too large")))
            line.send(reply)
    except OSError:  # nobody is there to hear it
        pass
    finally:
        over.set()


def _answer(desk: Desk, asked: Asked) -> Told | Outage | Bug:
    try:
        return desk.answer(asked.question, asked.deadline)
    except BackendDown as down:
        return Outage(str(down))
    except Exception:
        return Bug(traceback.format_exc())


if __name__ == "__main__":
    main()
