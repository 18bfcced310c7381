"""Strophe.js for the tests: `tests/node/strophe.mjs` runs it in Node.js over websocket."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from tools import prepare

Keys: TypeAlias = Mapping[str, str | int]
"""What Strophe.js keeps instead of a password: `name`, `salt`, `iter`, `ck`, `sk`."""

CONNECTING, CONNFAIL, AUTHENTICATING, AUTHFAIL, CONNECTED = 1, 2, 3, 4, 5
LOGGED_IN = (CONNECTING, CONNECTED)  # version 5 tells of AUTHENTICATING for jabber:iq:auth alone
REFUSED = (CONNECTING, AUTHFAIL)

_SCRIPT = Path(__file__).parent / "node" / "strophe.mjs"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One login.

    Attributes:
        url: the server's websocket.
        jid: who logs in; only a domain for ANONYMOUS.
        password: a password, a token, keys of an earlier outcome, or nothing.
        mechanisms: the only ones that the connection is made with; by default those that Strophe.js has.
        disabled: mechanisms whose `test` says no.
        custom: whether X-MY-MECHANISM of its manual is registered, above all others.
        timeout: seconds until the outcome is "timeout".
    """

    url: str
    jid: str
    password: str | Keys | None = field(default=None, repr=False)
    mechanisms: tuple[str, ...] | None = None
    disabled: tuple[str, ...] = ()
    custom: bool = False
    timeout: float = 20


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a job.

    Attributes:
        statuses: what Strophe.js told the page until the login was settled (Strophe.Status).
        mechanism: what it chose; empty when it did not get so far.
        dialogue: the elements of SASL in both directions, each with its text.
        condition: of the server's <failure/>, if that is what ended the login.
        error: what Strophe.js itself gave as reason, or "timeout".
        jid: the JID the server bound.
        keys: the SCRAM keys that the page may keep.
    """

    statuses: tuple[int, ...]
    mechanism: str
    dialogue: tuple[tuple[str, str], ...] = field(repr=False)
    condition: str
    error: str
    jid: str
    keys: Keys | None = field(repr=False)

    @property
    def elements(self) -> tuple[str, ...]:
        """The names of the elements in the dialogue."""
        return tuple(name for name, _ in self.dialogue)


class Strophe:
    """Runs jobs; a context manager that owns the child process."""

    def __enter__(self) -> Self:
        node = prepare.find_node()
        assert node is not None
        self._process = subprocess.Popen([node, _SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)

    def log_in(self, *jobs: Job) -> list[Outcome]:
        """Run jobs one after another (blocks)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(job) for job in jobs]) + "\n")
        self._process.stdin.flush()
        return [_outcome(**fields) for fields in json.loads(self._process.stdout.readline())]


def _outcome(statuses: list[int], dialogue: list[list[str]], **fields: str | Keys | None) -> Outcome:
    pairs = tuple((name, text) for name, text in dialogue)
    return Outcome(statuses=tuple(statuses), dialogue=pairs, **fields)  # type: ignore[arg-type]
