"""Addresses of a host, by a deadline: the system's look-up takes none and may block for half a minute."""

import queue
import socket
import threading
import time


def left(deadline: float) -> float:
    """Return the seconds until a time of `time.monotonic()`.

    Raises:
        TimeoutError: there are none.
    """
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("no answer in time")
    return seconds


def addresses(host: str, port: int, deadline: float) -> list[str]:
    """Return the IP addresses of a host, the preferred one first, each once.

    Raises:
        OSError: it has none; TimeoutError: nobody told in time. The look-up is then left to itself, in its thread.
    """
    answer: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer.put(list(dict.fromkeys(str(address[0]) for *_, address in found)))
        except OSError as error:
            answer.put(error)
        except UnicodeError:
            answer.put(OSError("no host name"))

    threading.Thread(target=ask, name=f"look-up {host}", daemon=True).start()
    try:
        result = answer.get(timeout=left(deadline))
    except queue.Empty:
        raise TimeoutError(f"the address of {host} was not found in time") from None
    if isinstance(result, OSError):
        raise result
    return result
