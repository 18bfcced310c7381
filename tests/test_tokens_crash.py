"""Two daemons on one store, that rotate and revoke tokens while one of them is killed; and that share a refresh token."""

import base64
import json
import random
import signal
import socket
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.daemons import Daemon, with_local_accounts
from tests.servers.process import poll
from tests.test_dovecot import SASL
from tests.test_endurance import proof

WORKERS = 6
JID = "alice@xmpp.test"


class Link:
    """A connection that speaks in lines. Raises ConnectionError when the other side is gone."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(60)
        try:
            self._sock.connect(str(path))
        except OSError:
            self._sock.close()
            raise
        self._file = self._sock.makefile("rb")

    def say(self, line: str) -> None:
        self._sock.sendall(f"{line}\n".encode())

    def line(self) -> str:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError
        return line.decode().removesuffix("\n")

    def close(self) -> None:
        self._file.close()
        self._sock.close()


class Node:
    """A daemon as the XMPP server and the administrator see it."""

    def __init__(self, folder: Path) -> None:
        self._admin = Link(folder / "admin.sock")
        self._sasl = Link(folder / "sasl.sock")
        while self._sasl.line() != "DONE":
            pass
        self._sasl.say("VERSION\t1\t1")

    def perform(self, verb: str, **values: str) -> dict[str, Any]:
        """Have a command performed and return what it gave."""
        self._admin.say(json.dumps({"verb": verb, **values}))
        reply: dict[str, Any] = json.loads(self._admin.line())
        assert reply["ok"], reply
        result: dict[str, Any] = reply["result"]
        return result

    def ask(self, token: str, number: int = 1) -> None:
        """Log in by a token, without waiting for the answer."""
        data = base64.b64encode(base64.b64decode(token)).decode()
        self._sasl.say(f"AUTH\t{number}\tX-OAUTH\tservice=xmpp\tsecured\tresp={data}")

    def answer(self) -> str | None:
        """Return the successor that came with a success; None: it was refused."""
        verb, _, *fields = self._sasl.line().split("\t")
        assert verb in ("OK", "FAIL")
        assert "temp" not in fields
        return next((field.removeprefix("resp=") for field in fields if field.startswith("resp=")), None)

    def use(self, token: str) -> str | None:
        """Log in by a refresh token."""
        self.ask(token)
        return self.answer()

    def close(self) -> None:
        self._admin.close()
        self._sasl.close()


@contextmanager
def two_daemons(folder: Path, state: str, tokens: str) -> Generator[list[Daemon]]:
    """Run two daemons on one store, which has the account of alice."""
    daemons: list[Daemon] = []
    for name in ("a", "b"):
        (folder / name).mkdir()
        text = with_local_accounts(folder / name) + SASL.format(folder=folder / name, more="")
        text = text.replace(f"sqlite://{folder / name}/state/state.db", state).replace('["local"]', '["tokens", "local"]')
        daemons.append(Daemon(folder / name, f"{text}[backend.tokens]\n{tokens}\n"))
    with daemons[0], daemons[1]:
        node = Node(daemons[0].folder)
        node.perform("user-add", jid=JID, password="fake password")
        node.close()
        yield daemons


@dataclass
class Device:
    """Rotates and revokes the tokens of one device until its daemon is gone, and remembers what was acknowledged."""

    name: str
    node: Node
    chance: random.Random
    token: str | None = None  # the one that lives
    used: list[str] = field(default_factory=list[str])
    revoked: list[str] = field(default_factory=list[str])
    unsure: int = 0

    @property
    def acknowledged(self) -> int:
        return len(self.used) + len(self.revoked)

    def run(self) -> None:
        with suppress(ConnectionError):
            while True:
                self._step()

    def _step(self) -> None:
        token, self.token = self.token, None  # until it is answered, nobody knows
        if token is None:
            self.token = self.node.perform("token-issue", jid=JID, device=self.name)["refresh"]
            return
        self.unsure += 1
        if self.chance.random() < 0.2:
            result = self.node.perform("session-end", jid=JID, device=self.name)
            assert result["ended"] == "1"
            self.revoked.append(token)
        else:
            successor = self.node.use(token)
            assert successor is not None
            self.used.append(token)
            self.token = successor
        self.unsure -= 1

    def check(self, node: Node) -> None:
        """Check that nothing used or revoked is accepted."""
        for token in (*self.revoked, *self.used):
            assert node.use(token) is None


@pytest.mark.parametrize(("changes", "rounds"), [(40, 2), proof(200, 10)])
def test_no_token_is_accepted_twice_and_no_revocation_is_lost(
    tmp: Path, state: str, changes: int, rounds: int, tell: Callable[[str], None]
) -> None:
    chance = random.Random(6)
    total: Counter[str] = Counter()
    with two_daemons(tmp, state, "grace = 0") as daemons:
        for round_ in range(rounds):
            devices = [
                Device(f"{round_}-{number}", Node(daemons[number % 2].folder), random.Random(number))
                for number in range(WORKERS)
            ]
            victim = chance.randrange(2)
            with ThreadPoolExecutor(WORKERS) as pool:
                runs = [pool.submit(device.run) for device in devices]
                poll(lambda: sum(d.acknowledged for d in devices) >= changes, f"{changes} changes", 120)  # noqa: B023
                daemons[victim].signal(signal.SIGKILL)
                assert daemons[victim].wait() == -signal.SIGKILL
                daemons[1 - victim].signal(signal.SIGKILL)
                assert daemons[1 - victim].wait() == -signal.SIGKILL
                for run in runs:
                    run.result()
            assert any(device.unsure for device in devices), "it was not killed amid changes"
            for daemon in daemons:
                daemon.start()
            nodes = [Node(daemon.folder) for daemon in daemons]
            for number, device in enumerate(devices):
                device.node.close()
                device.check(nodes[number // 2 % 2])  # also by the other one
                total.update(used=len(device.used), revoked=len(device.revoked))
            for node in nodes:
                node.close()
    tell(f"{rounds} kills of two daemons: none of {total['used']} used and {total['revoked']} revoked tokens was accepted")


@pytest.mark.parametrize("grace", [0, 10])
def test_one_refresh_token_at_two_daemons(tmp: Path, state: str, grace: int) -> None:
    with two_daemons(tmp, state, f"grace = {grace}") as daemons:
        nodes = [Node(daemon.folder) for daemon in daemons]
        token = nodes[0].perform("token-issue", jid=JID)["refresh"]
        for number in range(1, 101):
            for node in nodes:
                node.ask(token, number)
        answers = Counter(node.answer() for node in nodes for _ in range(100))
        if grace:
            (successor,) = answers
            assert successor is not None
            assert answers[successor] == 200
            assert nodes[1].use(successor) is not None
        else:
            assert answers.pop(None) == 199
            (successor,) = answers
            assert successor is not None
            assert nodes[1].use(successor) is None  # the replay has ended the family
        for node in nodes:
            node.close()
