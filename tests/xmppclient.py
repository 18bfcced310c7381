"""An XMPP client for the tests: slixmpp in one child process, used from plain code and from trio's threads.

slixmpp needs asyncio and the tests run trio, so `tests/xmppworker.py` takes jobs as lines of JSON and answers
with outcomes. Two hundred logins at once are `[client.submit(job) for job in jobs]`.
"""

import json
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class Job:
    """One client connection.

    Attributes:
        port: where the server listens on 127.0.0.1.
        jid: who logs in; only a domain for ANONYMOUS.
        password: also the token of a bearer mechanism; used as it stands.
        action: what to do: log in, or register, change the password or unregister by XEP-0077.
        new_password: for `change-password`.
        mechanism: the only SASL mechanism to try; by default slixmpp's best among the offered.
        certificate: a PEM file of a client certificate and its key.
        tls: `starttls`, `direct`, or `none` with passwords in the clear.
        tls_1_2: stay at TLS 1.2, where slixmpp binds SCRAM by tls-unique.
        timeout: seconds after which the outcome is `timeout`.
    """

    port: int
    jid: str
    password: str = field(default="", repr=False)
    action: Literal["login", "register", "change-password", "unregister"] = "login"
    new_password: str = field(default="", repr=False)
    mechanism: str | None = None
    certificate: str | None = None
    tls: Literal["starttls", "direct", "none"] = "starttls"
    tls_1_2: bool = False
    timeout: float = 120


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a job.

    Attributes:
        ok: the session started, or the account operation was acknowledged.
        condition: why not: the SASL failure's or stanza error's condition (RFC 6120), or one of our own:
            `no-mechanism`, `connection-failed`, `disconnected`, `timeout`.
        text: the failure's human text, if any.
        jid: the JID the server bound.
        mechanism: the SASL mechanism tried.
        offered: the mechanisms the server advertised.
        seconds: from the connect to this outcome.
    """

    ok: bool
    condition: str = ""
    text: str = ""
    jid: str = ""
    mechanism: str = ""
    offered: tuple[str, ...] = ()
    seconds: float = 0


class XmppClient:
    """Runs jobs, at most `concurrency` at a time; a context manager that owns the child process."""

    def __init__(self, ca: Path, concurrency: int = 50) -> None:
        self._command = [sys.executable, "-m", "tests.xmppworker", str(ca), str(concurrency)]
        self._waiting: dict[int, Future[Outcome]] = {}
        self._numbers = count()
        self._sending = threading.Lock()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._reader.join()
        self._process.stdout.close()

    def submit(self, job: Job) -> Future[Outcome]:
        """Start a job."""
        assert self._process.stdin is not None
        future = Future[Outcome]()
        with self._sending:
            number = next(self._numbers)
            self._waiting[number] = future
            self._process.stdin.write(json.dumps({"number": number, **asdict(job)}) + "\n")
            self._process.stdin.flush()
        return future

    def run(self, job: Job) -> Outcome:
        """Run one job to its end (blocks: use a thread under trio)."""
        return self.submit(job).result()

    def login(self, port: int, jid: str, password: str, mechanism: str | None = None) -> Outcome:
        """Log in once over STARTTLS (blocks)."""
        return self.run(Job(port=port, jid=jid, password=password, mechanism=mechanism))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            future = self._waiting.pop(answer.pop("number"))
            future.set_result(Outcome(offered=tuple(answer.pop("offered")), **answer))
        for future in self._waiting.values():
            future.set_exception(RuntimeError("the XMPP worker ended"))
