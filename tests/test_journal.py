"""What the daemon says: the audit line, exactly; never waiting for whoever reads it."""

import fcntl
import io
import logging
import os
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
import structlog
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from extauth import journal as journals
from extauth.authority import record
from extauth.journal import GATHERED, RING, WRITE, Decision, Journal, Outlet, audit_line, kind_of, set_up_logging, shown
from extauth.metrics import Metrics, Outcome
from extauth.model import Accept, Identity, Listing, Origin, Reason, Reject, Unavailable, Verdict
from tests.fakes import ALICE, ORIGIN, FakeBackend, Scene, check, log_kept

PLAIN = Decision(
    0.0, "check-password", "alice@example.com", "accept", "ok", "people", "ejabberd", "uid:113/pid:870", "192.0.2.1", "PLAIN",
    0.614, "tokens:unknown,people:accept",
)  # fmt: skip
BARE = Decision(0.0, "unknown", "@", "reject", "malformed-request", "", "front", "", "", "", 0.0, "")


def numbered(number: int) -> Decision:
    return Decision(0.0, "op", f"u{number}@d", "accept", "ok", "b", "l", "p", "c", "m", 0.0, "t")


def decide(journal: Journal, decision: Decision) -> None:
    d = decision
    kind = kind_of(d.operation, d.result, d.reason, d.backend, d.listener, d.peer, d.mechanism)
    journal.decide(kind, d.time, d.user, d.client, d.ms, d.trail, d.detail)


# The line ---------------------------------------------------------------------------------------------------------------------


def test_the_audit_line() -> None:
    assert audit_line(PLAIN) == (
        "audit op=check-password user=alice@example.com result=accept reason=ok backend=people listener=ejabberd "
        "peer=uid:113/pid:870 client=192.0.2.1 mech=PLAIN ms=0.61 trail=tokens:unknown,people:accept"
    )


def test_what_is_not_known_is_a_dash() -> None:
    assert audit_line(BARE) == (
        "audit op=unknown user=@ result=reject reason=malformed-request backend=- listener=front "
        "peer=- client=- mech=- ms=0.00 trail=-"
    )


def test_an_outage_has_a_detail() -> None:
    decision = Decision(
        0.0, "o", "u@d", "unavailable", "backend-down", "b", "l", "", "", "", 1.0, "b:down", "b: no route to x=y"
    )
    assert audit_line(decision).endswith(" trail=b:down detail=b:\\x20no\\x20route\\x20to\\x20x\\x3dy")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "-"),
        ("alice@example.com", "alice@example.com"),
        ("a b", "a\\x20b"),
        ("a\nb\r\t", "a\\x0ab\\x0d\\x09"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b31m", "\\x9b31m"),
        ('a="b"', "a\\x3d\\x22b\\x22"),
        ("a\\x20b", "a\\x5cx20b"),
        ("älice", "älice"),
        ("\u202eecila", "\\u202eecila"),
        ("a\u00a0b\u2028c", "a\\xa0b\\u2028c"),
        ("\ud800", "\\ud800"),
        ("a" * 128, "a" * 128),
        ("a" * 129, "a" * 128 + "..."),
        ("\n" * 129, "\\x0a" * 128 + "..."),
    ],
)
def test_foreign_text_is_one_printable_word(text: str, word: str) -> None:
    assert shown(text) == word


@given(st.text(st.one_of(st.sampled_from(' ="\\\n\x1b\ud800'), st.characters())), st.text())
def test_no_name_can_forge_a_line(name: str, client: str) -> None:
    decision = Decision(0.0, "op", name, "reject", "no-user", "b", "l", "p", client, "m", 0.0, "t")
    line = audit_line(decision)
    assert line.isprintable()
    assert [word.partition("=")[0] for word in line.split(" ")] == [
        *("audit", "op", "user", "result", "reason", "backend", "listener", "peer", "client", "mech", "ms", "trail")
    ]
    assert line.count("=") == 11


# A decision's record ----------------------------------------------------------------------------------------------------------

BOB = Identity("bob", "example.com")


@pytest.mark.parametrize(
    ("verdict", "user", "result", "reason", "detail"),
    [
        (Accept(BOB), "bob@example.com", "accept", "ok", ""),
        (Reject(Reason.NO_USER), "alice@example.com", "reject", "no-user", ""),
        (Unavailable(Reason.BACKEND_DOWN, "why"), "alice@example.com", "unavailable", "backend-down", "why"),
        (Listing(()), "alice@example.com", "accept", "ok", ""),
    ],
)
async def test_every_verdict_is_noted_and_counted_once(
    verdict: Verdict, user: str, result: str, reason: str, detail: str
) -> None:
    journal, metrics = Journal(None), Metrics()
    record(journal, metrics, "op", ALICE, ORIGIN, verdict, backend="b", trail="b:x", ms=1.5)
    journal.flush()
    _, (decision,) = await journal.tail(0, 0)
    assert (decision.user, decision.result, decision.reason, decision.detail) == (user, result, reason, detail)
    assert (decision.backend, decision.trail, decision.ms) == ("b", "b:x", 1.5)
    assert metrics.outcomes() == [(Outcome("front", "op", result, reason), 1)]


def test_outcomes_are_counted_in_order() -> None:
    metrics = Metrics()
    for listener in "bab":
        metrics.decisions[listener, "o", "r", "x"] += 1
    assert metrics.outcomes() == [(Outcome("a", "o", "r", "x"), 1), (Outcome("b", "o", "r", "x"), 2)]


# Where lines go ---------------------------------------------------------------------------------------------------------------


@dataclass
class Pipe:
    """Where a journal writes, and what arrives."""

    reader: int
    writer: int

    def read(self) -> bytes:
        """Return what has arrived."""
        found = b""
        while select.select([self.reader], [], [], 0)[0]:
            data = os.read(self.reader, 1 << 20)
            if not data:
                break
            found += data
        return found


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    """Give a pipe of 64 KiB in place of standard error; lines have no time stamp."""
    monkeypatch.setattr(journals, "_UNSTAMPED", True)
    given_ = Pipe(*os.pipe())
    fcntl.fcntl(given_.writer, fcntl.F_SETPIPE_SZ, 65536)
    yield given_
    os.close(given_.reader)
    os.close(given_.writer)


async def test_lines_are_written_together_at_the_end_of_the_pass(pipe: Pipe) -> None:
    journal = Journal(Outlet(pipe.writer))
    decide(journal, PLAIN)
    decide(journal, BARE)
    assert pipe.read() == b""
    await trio.testing.wait_all_tasks_blocked()
    assert pipe.read() == f"{audit_line(PLAIN)}\n{audit_line(BARE)}\n".encode()


async def test_what_is_gathered_is_written_when_the_block_ends(pipe: Pipe) -> None:
    journal = Journal(Outlet(pipe.writer))
    with journal:
        decide(journal, PLAIN)
        decide(journal, BARE)
        await trio.testing.wait_all_tasks_blocked()
        assert pipe.read() == b""
    assert pipe.read().count(b"\n") == 2
    with journal:
        pass
    assert pipe.read() == b""
    decide(journal, PLAIN)
    await trio.testing.wait_all_tasks_blocked()
    assert pipe.read().count(b"\n") == 1


async def test_many_are_not_gathered(pipe: Pipe) -> None:
    journal = Journal(Outlet(pipe.writer))
    with journal:
        for _ in range(GATHERED):
            assert pipe.read() == b""
            decide(journal, PLAIN)
        decide(journal, BARE)
        assert pipe.read() == f"{audit_line(PLAIN)}\n".encode() * GATHERED
    assert pipe.read() == f"{audit_line(BARE)}\n".encode()


async def test_lines_have_a_time_stamp_where_nobody_else_sets_one(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_UNSTAMPED", False)
    journal = Journal(Outlet(pipe.writer))
    decide(journal, PLAIN)
    journal.flush()
    assert pipe.read().startswith(b"1970-01-01T00:00:00Z audit op=")


def test_journald_sets_time_stamps(monkeypatch: pytest.MonkeyPatch) -> None:
    under_journald = journals._under_journald  # pyright: ignore[reportPrivateUsage]
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    assert not under_journald()
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")  # inherited by a daemon that was started by hand, its output elsewhere
    assert not under_journald()
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    assert under_journald()


def fill(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe.writer, b"\n" * 4096)
    os.set_blocking(pipe.writer, True)


def test_a_socket_takes_more_at_once_than_a_pipe() -> None:
    text = f"{audit_line(PLAIN)}\n" * 128
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # what is written at once stays together
    with ours, theirs:
        Outlet(ours.fileno()).write(text)
        assert theirs.recv(1 << 20) == text.encode()[:WRITE]


def test_a_pipe_is_never_given_more_than_it_takes_without_blocking(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    write, sizes = os.write, list[int]()

    def note_size(descriptor: int, data: bytes) -> int:
        sizes.append(len(data))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", note_size)
    Outlet(pipe.writer).write(f"{audit_line(PLAIN)}\n" * 128)
    assert max(sizes) == select.PIPE_BUF


async def test_a_reader_that_sleeps_stops_nobody(pipe: Pipe) -> None:
    fill(pipe)
    journal = Journal(Outlet(pipe.writer))
    decide(journal, PLAIN)
    journal.flush()
    assert pipe.read().strip() == b""
    decide(journal, BARE)
    journal.flush()
    assert pipe.read() == f"{audit_line(PLAIN)}\n{audit_line(BARE)}\n".encode()
    assert journal.lost == 0


async def test_what_nobody_reads_is_lost_in_whole_lines_and_counted(pipe: Pipe) -> None:
    journal = Journal(Outlet(pipe.writer))
    decisions = 20_000
    for number in range(decisions):
        decide(journal, numbered(number))
        if number % 100 == 99:
            journal.flush()
    assert journal.decided == decisions
    assert 0 < journal.lost < decisions
    lost = journal.lost
    arrived = b""
    while data := pipe.read():
        arrived += data
        decide(journal, numbered(-1))  # with which goes what still waits
        journal.flush()
        if arrived.count(b"-1@") > 1:
            break
    lines = [line for line in arrived.decode().splitlines() if "-1@" not in line]
    assert len(lines) == decisions - lost
    assert lines == [audit_line(numbered(number)) for number in range(len(lines))]  # the oldest are kept
    assert arrived.endswith(b"\n")


async def test_a_reader_that_is_gone_stops_nobody(pipe: Pipe) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), pipe.reader)
    journal = Journal(Outlet(pipe.writer))
    decide(journal, PLAIN)
    journal.flush()
    assert journal.decided == 1


# Following --------------------------------------------------------------------------------------------------------------------


async def test_the_tail_has_what_came_after(autojump_clock: trio.testing.MockClock) -> None:
    journal = Journal(None)
    for number in range(5):
        decide(journal, numbered(number))
    journal.flush()
    last, decisions = await journal.tail(3, 0)
    assert last == 5
    assert [decision.user for decision in decisions] == ["u3@d", "u4@d"]
    assert autojump_clock.current_time() == 0


async def test_the_tail_waits_for_news(autojump_clock: trio.testing.MockClock) -> None:
    journal = Journal(None)

    async def later() -> None:
        await trio.sleep(3)
        decide(journal, PLAIN)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later)
        assert await journal.tail(0, 10) == (1, [PLAIN])
    assert autojump_clock.current_time() == 3
    assert await journal.tail(1, 10) == (1, [])
    assert autojump_clock.current_time() == 13


@pytest.mark.parametrize("seen", [2, 1 << 40])
async def test_who_has_seen_more_than_there_was_gets_nothing(seen: int) -> None:
    journal = Journal(None)
    decide(journal, PLAIN)
    journal.flush()
    assert await journal.tail(seen, 0) == (1, [])


async def test_only_the_last_thousand_are_remembered() -> None:
    journal = Journal(None)
    for number in range(RING + 10):
        decide(journal, numbered(number))
    journal.flush()
    last, decisions = await journal.tail(0, 0)
    assert last == RING + 10
    assert len(decisions) == RING
    assert decisions[0] == numbered(10)


# Decisions of an authority ----------------------------------------------------------------------------------------------------


async def test_one_line_for_each_decision(pipe: Pipe) -> None:
    journal = Journal(Outlet(pipe.writer))
    scene = Scene([FakeBackend({type(check()): Reject(Reason.BAD_PASSWORD)})], journal=journal)
    stranger = Identity("eve\naudit op=check-password user=root\x1b[2K", "example.com")
    scene.authority.ask(check(identity=ALICE, origin=Origin("front")))
    scene.authority.ask(check(identity=stranger, origin=Origin("front")))
    await trio.testing.wait_all_tasks_blocked()
    first, second, end = pipe.read().decode().split("\n")
    assert first.startswith("audit op=check-password user=alice@example.com result=reject reason=bad-password backend=a ")
    assert "user=eve\\x0aaudit\\x20op\\x3dcheck-password\\x20user\\x3droot\\x1b[2K@example.com result=reject" in second
    assert end == ""


# The log ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Give what is logged, without time stamps."""
    monkeypatch.setattr(journals, "_UNSTAMPED", True)
    with log_kept() as text:
        yield text


def test_an_event_is_one_line(log: io.StringIO) -> None:
    structlog.get_logger().info("it happened", name="a b\nc")
    assert log.getvalue() == 'level=info event="it happened" name="a b\\nc"\n'


def test_no_event_holds_a_control_character(log: io.StringIO) -> None:
    logging.getLogger("x").warning("%s", "\x1b[2Jred\rforged\x9b\u2028")
    assert log.getvalue() == r"level=warning event=\x1b[2Jred\x0dforged\x9b\u2028 logger=x" + "\n"
    try:
        raise ValueError("\x1b[31m")
    except ValueError:
        structlog.get_logger().exception("bug", bare="\x00", number=1)
    assert log.getvalue().replace("\n", "").isprintable()
    assert r"bare=\x00" in log.getvalue().replace("\\\\", "\\")


def test_libraries_warnings_are_logged(log: io.StringIO) -> None:
    logging.getLogger("some.library").warning("careful %d", 1)
    logging.getLogger("some.library").info("not this")
    assert log.getvalue() == 'level=warning event="careful 1" logger=some.library\n'


def test_details_are_logged_when_asked_for(log: io.StringIO) -> None:
    structlog.get_logger().debug("quiet")
    set_up_logging(log, verbose=True)
    structlog.get_logger().debug("loud")
    assert log.getvalue() == "level=debug event=loud\n"


def test_events_have_a_time_stamp_where_nobody_else_sets_one(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_UNSTAMPED", False)
    structlog.get_logger().info("now")
    stamp, rest = log.getvalue().split(" ", 1)
    assert stamp.startswith("timestamp=2")
    assert rest == "level=info event=now\n"


async def test_what_was_to_be_written_later_may_have_been_written_by_a_pass() -> None:
    journal = Journal(None)
    decide(journal, PLAIN)
    with journal:
        decide(journal, BARE)
    await trio.testing.wait_all_tasks_blocked()  # the write that the first decision asked for finds nothing to do
    assert await journal.tail(0, 0) == (2, [PLAIN, BARE])
