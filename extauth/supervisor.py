"""What a daemon tells systemd (sd_notify(3)), by a datagram of our own: no library is worth a login that fails without it."""

import os
import socket
import time
from contextlib import suppress


def notify(*states: str) -> None:
    """Tell the service manager, if there is one: "READY=1", "STOPPING=1", "STATUS=...", "WATCHDOG=1" ..."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address[0] == "@":
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.setblocking(False)
        sock.sendto("\n".join(states).encode(), address)


def notify_reloading() -> None:
    """Tell that the configuration is read again; without the time stamp a Type=notify-reload unit would fail."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_interval() -> float | None:
    """Return how often to send "WATCHDOG=1", in seconds: half of what the service manager waits. None: it doesn't."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000
