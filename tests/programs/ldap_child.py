"""In the place of the LDAP process: does what the name says that it is to bind under, and notes what it was asked.

late    answers together with the next question, before that
die     ends without an answer
noise   says what is no message
liar    answers a question that nobody put
mute    never answers
print   answers, and says something on its standard error
bug     answers that it has a bug
other   answers at once
"""

import os
import socket
import sys
from pathlib import Path

from extauth_ldap.messages import LARGEST, Bind, Bug, Ready, Reply, Told, pack, read_asked, read_setup

from extauth.model import Reason


def main() -> None:
    """Serve one question after the other."""
    line = socket.socket(fileno=0)
    setup = read_setup(line.recv(LARGEST))
    record = Path(setup.name)
    with record.open("a") as file:
        file.write("start\n")
    line.send(pack(Ready()))
    late: list[int] = []
    while data := line.recv(LARGEST):
        asked = read_asked(data)
        name = asked.question.name if isinstance(asked.question, Bind) else "die"
        with record.open("a") as file:
            file.write(f"{type(asked.question).__name__} {name}\n")
        if name == "late":
            late.append(asked.number)
            continue
        if name == "die":
            os._exit(3)
        if name == "mute":
            continue
        if name == "noise":
            line.send(b"\xff\x00")
        elif name == "liar":
            line.send(pack(Reply(asked.number + 1000, Told(Reason.OK))))
        elif name == "bug":
            line.send(pack(Reply(asked.number, Bug("traceback of a bug"))))
        else:
            if name == "print":
                sys.stderr.write("a word\n")
            for number in late:
                line.send(pack(Reply(number, Told(Reason.DISABLED))))
            line.send(pack(Reply(asked.number, Told(Reason.OK))))


main()
