"""Threads that speak LDAP take turns, and give the turn away while they wait for a server."""

import socket
import threading

from extauth_ldap.turns import PoliteSocket, turn


def test_who_waits_for_a_server_lets_the_others_compute() -> None:
    ours, theirs = socket.socketpair()
    received: list[bytes] = []
    begun = threading.Event()

    def wait() -> None:
        with turn:
            begun.set()
            received.append(PoliteSocket(ours).recv(10))
            assert turn.locked()

    with ours, theirs:
        thread = threading.Thread(target=wait)
        thread.start()
        assert begun.wait(20)
        assert turn.acquire(timeout=20)
        theirs.sendall(b"answer")
        turn.release()
        thread.join(20)
        assert received == [b"answer"]
    assert not turn.locked()


def test_the_turn_is_taken_back_after_a_failure() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, turn:
        for attempt in (lambda: PoliteSocket(ours).sendall(b"x" * 10_000_000), lambda: PoliteSocket(ours).recv(1)):
            try:
                attempt()
            except OSError:
                assert turn.locked()
        assert turn.locked()
