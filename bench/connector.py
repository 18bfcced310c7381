"""From spawn to first reply: our connector against the shortest relay that Python allows.

Run as a script: `python bench/connector.py [ROUNDS]`. The contestants take turns; medians in milliseconds.
"""

import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

CONNECT = Path(__file__).parents[1] / "extauth/connect.py"
PYTHON = ["/usr/bin/python3", "-SIE"]

BARE = {
    "ejabberd": """\
import os, {module} as socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.connect(sys.argv[1])
while request := os.read(0, 65537):
    s.sendall(request)
    os.write(1, s.recv(65537))
"""
}
BARE["prosody"] = BARE["ejabberd"]  # a relay without framing is the same for both
REQUESTS = {"ejabberd": b"\0\x13auth:u:localhost:pw", "prosody": b"auth:u:localhost:pw\n"}
REPLIES = {"ejabberd": b"\0\2\0\1", "prosody": b"1\n"}


def serve(listener: socket.socket, reply: bytes) -> None:
    """Answer one request of each connection."""
    with contextlib.suppress(OSError):
        while True:
            with listener.accept()[0] as connection:
                connection.recv(65537)
                connection.sendall(reply)
                connection.recv(1)


def first_reply(command: list[str], request: bytes, reply: bytes) -> float:
    """Milliseconds from spawning `command` to its first reply."""
    begun = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(request)
        got = process.stdout.read(len(reply))
        taken = time.perf_counter() - begun
        process.stdin.close()
    if got != reply:
        raise RuntimeError(f"{command} replied {got!r}")
    return taken * 1000


def main() -> None:
    """Print one table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print(f"{'spawn to first reply, median of ' + str(rounds):40} {'ms':>8} {'ratio':>8}")
    for protocol, request in REQUESTS.items():
        reply = REPLIES[protocol]
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            path = f"{folder}/s"
            listener.bind(path)
            listener.listen(16)
            threading.Thread(target=serve, args=(listener, reply), daemon=True).start()
            bare = Path(folder, "bare.py")
            bare.write_text(BARE[protocol].format(module="socket"))
            barest = Path(folder, "barest.py")
            barest.write_text(BARE[protocol].format(module="_socket"))
            commands = {
                "bare python3 -S -I -E": [*PYTHON, str(bare), path],
                "the same with _socket": [*PYTHON, str(barest), path],
                "extauth-connect": [*PYTHON, str(CONNECT), protocol, path],
            }
            times: dict[str, list[float]] = {name: [] for name in commands}
            for _ in range(rounds):
                for name, command in commands.items():
                    times[name].append(first_reply(command, request, reply))
            listener.shutdown(socket.SHUT_RDWR)
        medians = {name: statistics.median(values) for name, values in times.items()}
        base = medians["bare python3 -S -I -E"]
        for name, median in medians.items():
            print(f"{protocol + ': ' + name:40} {median:8.2f} {median / base:8.2f}")


if __name__ == "__main__":
    main()
