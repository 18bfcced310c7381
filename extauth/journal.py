"""What the daemon says of itself: one audit line per decision, and a log of everything else.

Both go to standard error, where systemd's journal or a terminal takes them. The audit line has one fixed form, because people
write filters for it; it is made by hand and gathered, because it is written for every login:

    audit op=check-password user=alice@example.com result=accept reason=ok backend=people listener=ejabberd
    peer=uid:113/pid:870 client=- mech=PLAIN ms=0.61 trail=tokens:unknown,people:accept            (one line)
"""

import logging
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any, Self, TextIO, TypeAlias, cast

import structlog
import trio
from msgspec import Struct

QUIET = 60.0  # seconds between two log lines of a kind that may come often
RING = 1000  # decisions kept in memory for `extauth audit tail`
KINDS = 1024  # of decisions, remembered with the parts of their audit lines
SHOWN = 128  # characters of a foreign value that are shown
GATHERED = 32  # lines that are written at once: those of more would hold up who comes next
WRITE = 16384  # bytes that a file or a socket found writable takes without blocking
MAX_WAITING = 1 << 20  # bytes kept while nobody reads our standard error

_SPECIAL = frozenset(' "=\\')


class Decision(Struct, frozen=True, gc=False):
    """One decision of an authority. `time` is Unix time in seconds, `ms` how long it took."""

    time: float
    operation: str
    user: str
    result: str
    reason: str
    backend: str
    listener: str
    peer: str
    client: str
    mechanism: str
    ms: float
    trail: str
    detail: str = ""


def _escaped(c: str) -> str:
    code = ord(c)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"  # noqa: PLR2004


def shown(text: str) -> str:
    """Return `text` as it may stand in a log line: one word, printable, of limited length; "-" if it is empty."""
    if len(text) > SHOWN:
        return f"{shown(text[:SHOWN])}..."
    if text.isprintable() and not (" " in text or "=" in text or '"' in text or "\\" in text):
        return text or "-"
    return "".join(c if c.isprintable() and c not in _SPECIAL else _escaped(c) for c in text)


class Kind:
    """What many decisions have in common, which is all but who, when, how long and by which way; and what that is in a line."""

    def __init__(
        self, operation: str, result: str, reason: str, backend: str, listener: str, peer: str, mechanism: str
    ) -> None:
        self.operation, self.result, self.reason, self.backend = operation, result, reason, backend
        self.listener, self.peer, self.mechanism = listener, peer, mechanism
        self.outcome = (listener, operation, result, reason)  # what it is counted under
        self._head = f"audit op={operation} user="
        self._middle = (
            f" result={result} reason={reason} backend={backend or '-'} listener={listener} peer={peer or '-'} client="
        )
        self._end = f" mech={mechanism or '-'} ms="

    def line(self, user: str, client: str, ms: float, trail: str, detail: str) -> str:
        """Return the audit line of a decision. Its form is stable: see docs/operations.md."""
        words = (
            f"{self._head}{shown(user)}{self._middle}{shown(client) if client else '-'}{self._end}{ms:.2f} trail={trail or '-'}"
        )
        return f"{words} detail={shown(detail)}" if detail else words


kind_of = lru_cache(maxsize=KINDS)(Kind)  # makes it once


def audit_line(d: Decision) -> str:
    """Return the audit line of a decision."""
    kind = kind_of(d.operation, d.result, d.reason, d.backend, d.listener, d.peer, d.mechanism)
    return kind.line(d.user, d.client, d.ms, d.trail, d.detail)


_Entry: TypeAlias = tuple[Kind, float, str, str, float, str, str]  # what `decide` takes: a decision as it is kept


def _decision(entry: _Entry) -> Decision:
    kind, now, user, client, ms, trail, detail = entry
    return Decision(
        now, kind.operation, user, kind.result, kind.reason, kind.backend, kind.listener, kind.peer, client, kind.mechanism,
        ms, trail, detail,
    )  # fmt: skip


class Outlet:
    """Writes lines to a descriptor without ever waiting for whoever reads it: logins must go on."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._writable = select.poll()
        self._writable.register(descriptor, select.POLLOUT)
        mode = os.fstat(descriptor).st_mode
        self._most = WRITE if stat.S_ISREG(mode) or stat.S_ISSOCK(mode) else select.PIPE_BUF  # bytes taken without blocking
        self._waiting = bytearray()
        self._lock = threading.Lock()
        self.lost = 0  # lines that nobody took from us in time

    def write(self, text: str) -> None:
        """Write whole lines, as far as they are taken at once; the rest goes before the next ones."""
        with self._lock:
            self._waiting += text.encode(errors="backslashreplace")
            while self._waiting and self._writable.poll(0):
                try:
                    del self._waiting[: os.write(self._descriptor, self._waiting[: self._most])]
                except OSError:
                    break
            if len(self._waiting) > MAX_WAITING:
                end = self._waiting.rfind(b"\n", 0, MAX_WAITING) + 1
                self.lost += self._waiting.count(b"\n", end)
                del self._waiting[end:]

    def flush(self) -> None:
        """Do nothing: this never waits. A logger's file has it."""


STANDARD_ERROR = Outlet(2)


class Journal:
    """Takes decisions, remembers the last thousand and writes their audit lines, many at a time."""

    def __init__(self, outlet: Outlet | None = STANDARD_ERROR) -> None:
        self._outlet = outlet
        self._gathering = False
        self._unwritten: list[_Entry] = []
        self._recent: deque[_Entry] = deque(maxlen=RING)
        self._readers = trio.lowlevel.ParkingLot()
        self.decided = 0  # ever

    @property
    def lost(self) -> int:
        """Audit and log lines that nobody took from us in time."""
        return self._outlet.lost if self._outlet is not None else 0

    def decide(self, kind: Kind, now: float, user: str, client: str, ms: float, trail: str, detail: str = "") -> None:
        """Take note of a decision: written with some others, at the end of the `with` block, or soon where there is none.

        `now` is Unix time in seconds, `ms` how long it took.
        """
        if not self._gathering and not self._unwritten:
            trio.lowlevel.current_trio_token().run_sync_soon(self.flush)
        self._unwritten.append((kind, now, user, client, ms, trail, detail))
        if len(self._unwritten) == GATHERED:
            self.flush()

    def __enter__(self) -> Self:
        """Gather what is decided within the block, to write it once."""
        self._gathering = True
        return self

    def __exit__(self, *exception: object) -> None:
        self._gathering = False
        self.flush()

    def flush(self) -> None:
        """Write what has been decided, if anything has since the last time."""
        entries = self._unwritten
        if not entries:
            return
        self._unwritten = []
        self._recent.extend(entries)
        self.decided += len(entries)
        if self._readers:
            self._readers.unpark_all()
        if self._outlet is not None:
            # One stamp for all: a decision is written in the pass that took it.
            stamp = _stamp(entries[0][1])
            lines = [kind.line(user, client, ms, trail, detail) for kind, _, user, client, ms, trail, detail in entries]
            text = f"\n{stamp}".join(lines)
            self._outlet.write(f"{stamp}{text}\n")

    async def tail(self, after: int, patience: float) -> tuple[int, list[Decision]]:
        """Return decisions after number `after` and the number of the last; wait up to `patience` seconds for one."""
        with trio.move_on_after(patience):
            while self.decided <= after:
                await self._readers.park()
        count = min(max(self.decided - after, 0), len(self._recent))
        return self.decided, [_decision(entry) for entry in list(self._recent)[len(self._recent) - count :]]


def _under_journald() -> bool:
    """Tell whether our standard error is the journal, which stamps lines itself ($JOURNAL_STREAM in systemd.exec(5))."""
    status = os.fstat(2)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


_UNSTAMPED = _under_journald()


def _stamp(seconds: float) -> str:
    return "" if _UNSTAMPED else _utc(int(seconds))


@lru_cache(maxsize=1)
def _utc(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime(seconds))


def _stamped(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if not _UNSTAMPED:
        event["timestamp"] = _stamp(time.time()).strip()
    return event


def _printable(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what could act on the terminal that shows a line; line breaks are escaped by whoever renders it."""
    for key, value in event.items():
        if not isinstance(value, int | float):
            text = str(value)
            if not text.isprintable():
                text = "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)
            event[key] = text
    return event


def set_up_logging(stream: TextIO | Outlet = STANDARD_ERROR, *, verbose: bool = False) -> None:
    """Send our log, and warnings of the libraries, to `stream`, one line an event, control characters escaped."""
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            _stamped,
            structlog.processors.format_exc_info,
            _printable,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], drop_missing=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", stream)),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_ToStructlog()]
    root.setLevel(logging.WARNING)


class _ToStructlog(logging.Handler):
    """Passes what libraries log to our log."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(record.levelno, record.getMessage(), logger=record.name)


class Occasional:
    """A log for what may happen a thousand times a second: each event is told at most once in `QUIET` seconds."""

    def __init__(self, name: str, **context: object) -> None:
        self._log = structlog.get_logger(name)
        self._context = context
        self._quiet_until: dict[str, float] = {}

    def warning(self, event: str, **details: object) -> None:
        """Log it, unless it was lately."""
        now = time.monotonic()
        if now >= self._quiet_until.get(event, 0.0):
            self._quiet_until[event] = now + QUIET
            self._log.warning(event, **self._context, **details)
