"""What ejabberd's and Prosody's listeners answer, byte by byte, on real sockets."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from extauth.errors import ProtocolError
from extauth.external import Framing
from extauth.lines import Lines
from extauth.listeners import ejabberd, prosody
from tests.backends.memory import STUCK
from tests.daemons import Served, configuration, serve_here
from tests.servers.process import temporary_folder

USER = b"alice:xmpp.test"
RIGHT = b"fake right"


@dataclass(frozen=True)
class Protocol:
    """A listener's protocol as a peer sees it."""

    name: str
    wrap: Callable[[bytes], bytes]
    split: Callable[[bytes], list[bytes]]  # replies; AssertionError for what is none
    yes: bytes
    no: bytes
    outage: bytes
    not_set: bytes

    def __str__(self) -> str:
        return self.name


def split_frames(data: bytes) -> list[bytes]:
    replies: list[bytes] = []
    while data:
        end = 2 + int.from_bytes(data[:2])
        reply, data = data[:end], data[end:]
        assert reply in (b"\0\2\0\1", b"\0\2\0\0", b"\0\1\0"), reply
        replies.append(reply)
    return replies


def split_lines(data: bytes) -> list[bytes]:
    replies = data.splitlines(keepends=True)
    assert all(reply in (b"1\n", b"0\n", b"error: temporarily unavailable\n") for reply in replies), replies
    return replies


EJABBERD = Protocol(
    "ejabberd", lambda question: len(question).to_bytes(2) + question, split_frames,
    yes=b"\0\2\0\1", no=b"\0\2\0\0", outage=b"\0\1\0", not_set=b"\0\1\0",
)  # fmt: skip
PROSODY = Protocol(
    "prosody",
    lambda question: question + b"\n",
    split_lines,
    yes=b"1\n",
    no=b"0\n",
    outage=b"error: temporarily unavailable\n",
    not_set=b"0\n",
)
BOTH = pytest.mark.parametrize("protocol", [EJABBERD, PROSODY], ids=str)


async def ask(served: Served, protocol: Protocol, *pieces: bytes) -> list[bytes]:
    """Send raw bytes in pieces, close our half, and return the replies until the end."""
    async with await served.connect(protocol.name) as stream:
        for piece in pieces:
            await stream.send_all(piece)
            await trio.sleep(0.001)  # the next piece is its own read
        await stream.send_eof()
        data = b"".join([part async for part in stream])
    return protocol.split(data)


async def reply_and_reason(served: Served, protocol: Protocol, question: bytes) -> tuple[bytes, str]:
    """Return the reply to a question, and the reason that the audit line gives."""
    before = len(await served.decisions())
    (reply,) = await ask(served, protocol, protocol.wrap(question))
    (decision,) = (await served.decisions())[before:]
    return reply, decision.reason


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep what is logged out of the way."""
    with structlog.testing.capture_logs():
        yield


# How bytes are cut ------------------------------------------------------------------------------------------------------------


def _bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


@BOTH
async def test_however_it_is_cut_it_is_understood(tmp: Path, protocol: Protocol, autojump_clock: trio.abc.Clock) -> None:
    one = protocol.wrap(b"auth:" + USER + b":" + RIGHT)
    two = protocol.wrap(b"auth:" + USER + b":fake wrong")
    both = one + two
    cuts = [[both], [one, two], _bytewise(both), [both[:1], both[1:]], [one + two[:1], two[1:]], [one + two[:5], two[5:]]]
    async with serve_here(tmp, configuration(tmp)) as served:
        for pieces in cuts:
            assert await ask(served, protocol, *pieces) == [protocol.yes, protocol.no], pieces


@BOTH
async def test_a_truncated_question_is_dropped_after_what_was_whole(tmp: Path, protocol: Protocol) -> None:
    whole = protocol.wrap(b"isuser:" + USER)
    async with serve_here(tmp, configuration(tmp)) as served:
        for cut in range(1, len(whole)):
            assert await ask(served, protocol, whole[:cut]) == []
            assert await ask(served, protocol, whole, whole[:cut]) == [protocol.yes]
        assert len(await served.decisions()) == len(whole) - 1


@BOTH
async def test_each_question_has_one_reply(tmp: Path, protocol: Protocol) -> None:
    async with serve_here(tmp, configuration(tmp)) as served:
        questions = b"".join(protocol.wrap(b"isuser:%s:xmpp.test" % user) for user in [b"alice", b"nobody"] * 500)
        assert await ask(served, protocol, questions) == [protocol.yes, protocol.no] * 500


async def test_lines_may_end_in_cr_lf(tmp: Path) -> None:
    async with serve_here(tmp, configuration(tmp)) as served:
        question = b"auth:" + USER + b":" + RIGHT
        assert await ask(served, PROSODY, question + b"\r\n" + question + b"\r", b"\n") == [PROSODY.yes] * 2
        assert await ask(served, PROSODY, question + b"\r\r\n") == [PROSODY.no]


@pytest.mark.parametrize("length", [prosody.MAX_LINE - 1, prosody.MAX_LINE])
async def test_a_line_may_be_as_long_as_the_limit(tmp: Path, length: int) -> None:
    async with serve_here(tmp, configuration(tmp)) as served:
        question = (b"auth:" + USER + b":").ljust(length, b"x")
        assert await ask(served, PROSODY, question + b"\n") == [PROSODY.no]


@pytest.mark.parametrize("end", [b"\n", b"", b"\nisuser:alice:xmpp.test\n"])
async def test_a_line_over_the_limit_closes_its_connection_only(tmp: Path, end: bytes) -> None:
    async with serve_here(tmp, configuration(tmp)) as served, await served.connect("prosody") as other:
        too_long = b"x" * (prosody.MAX_LINE + 1) + end
        question = PROSODY.wrap(b"isuser:" + USER)
        assert await ask(served, PROSODY, question + too_long) == [PROSODY.yes]
        await other.send_all(question)
        assert await other.receive_some() == PROSODY.yes


# What is asked ----------------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A question, how it is answered, and why."""

    question: bytes
    reply: str
    reason: str


CASES = [
    Case(b"auth:" + USER + b":" + RIGHT, "yes", "ok"),
    Case(b"auth:ALICE:XMPP.test.:" + RIGHT, "yes", "ok"),
    Case(b"auth:" + USER + b":fake wrong", "no", "bad-password"),
    Case(b"auth:" + USER + b":" + RIGHT + b" ", "no", "bad-password"),
    Case(b"auth:nobody:xmpp.test:" + RIGHT, "no", "no-user"),
    Case(b"isuser:" + USER, "yes", "ok"),
    Case(b"isuser:nobody:xmpp.test", "no", "no-user"),
    # Not a question at all
    Case(b"", "no", "malformed-request"),
    Case(b"a", "no", "malformed-request"),
    Case(b"au", "no", "malformed-request"),
    Case(b":::", "no", "malformed-request"),
    Case(b"auth", "no", "malformed-request"),
    Case(b"AUTH:" + USER + b":" + RIGHT, "no", "malformed-request"),
    Case(b" auth:" + USER + b":" + RIGHT, "no", "malformed-request"),
    Case(b"auth :" + USER + b":" + RIGHT, "no", "malformed-request"),
    Case(b"\0auth:" + USER + b":" + RIGHT, "no", "malformed-request"),
    Case(b"\xff\xfe:" + USER, "no", "malformed-request"),
    Case(b"quit", "no", "malformed-request"),
    # Fields missing or too many
    Case(b"auth:alice", "no", "malformed-request"),
    Case(b"auth:" + USER, "no", "malformed-request"),
    Case(b"isuser:alice", "no", "malformed-request"),
    Case(b"isuser:" + USER + b":", "no", "malformed-request"),
    Case(b"isuser:" + USER + b":" + RIGHT, "no", "malformed-request"),
    # Passwords
    Case(b"auth:" + USER + b":", "no", "malformed-request"),
    Case(b"auth:" + USER + b":\xff\xfe", "no", "malformed-request"),
    Case(b"auth:" + USER + b":" + RIGHT + b"\xff", "no", "malformed-request"),
    Case(b"auth:" + USER + b":\xed\xa0\x80", "no", "malformed-request"),  # a surrogate
    Case(b"auth:" + USER + b":   ", "no", "malformed-request"),
    Case(b"auth:" + USER + b":" + RIGHT + b"\0", "no", "malformed-request"),
    Case(b"auth:" + USER + b":\0" + RIGHT, "no", "malformed-request"),
    Case(b"auth:" + USER + b"::" + RIGHT, "no", "bad-password"),
    # Names
    Case(b"auth::xmpp.test:" + RIGHT, "no", "bad-name"),
    Case(b"auth:alice::" + RIGHT, "no", "bad-name"),
    Case(b"isuser::", "no", "bad-name"),
    Case(b"auth:alice@xmpp.test:xmpp.test:" + RIGHT, "no", "bad-name"),
    Case(b"auth:alice/home:xmpp.test:" + RIGHT, "no", "bad-name"),
    Case(b"auth:ali ce:xmpp.test:" + RIGHT, "no", "bad-name"),
    Case(b"auth:alice\0:xmpp.test:" + RIGHT, "no", "bad-name"),
    Case(b"auth:alice\t:xmpp.test:" + RIGHT, "no", "bad-name"),
    Case(b"auth:\xff\xfe:xmpp.test:" + RIGHT, "no", "bad-name"),
    Case(b"auth:" + b"a" * 1024 + b":xmpp.test:" + RIGHT, "no", "bad-name"),
    Case(b"auth:alice:\xff:" + RIGHT, "no", "bad-name"),
    Case(b"auth:alice:xmpp.test\0:" + RIGHT, "no", "bad-name"),
    Case(b"auth:alice:other.test:" + RIGHT, "no", "unknown-domain"),
    Case(b"auth:alice:localhost:" + RIGHT, "no", "unknown-domain"),
    # Changes are not allowed unless the listener says so
    Case(b"setpass:" + USER + b":fake new one", "not_set", "not-allowed"),
    Case(b"setpass:" + USER, "not_set", "malformed-request"),
    Case(b"setpass", "not_set", "malformed-request"),
    # Outages
    Case(b"auth:down:xmpp.test:" + RIGHT, "outage", "backend-down"),
    Case(b"isuser:down:xmpp.test", "outage", "backend-down"),
    Case(b"auth:bug:xmpp.test:" + RIGHT, "outage", "internal-error"),
    Case(b"isuser:bug:xmpp.test", "outage", "internal-error"),
]

# What only ejabberd can ask
FRAMED = [
    Case(b"aut", "no", "malformed-request"),
    Case(b"\n\n\n", "no", "malformed-request"),
    Case(b"\0" * 65535, "no", "malformed-request"),
    Case((b"auth:" + USER + b":").ljust(65535, b"x"), "no", "bad-password"),
    Case((b"auth:").ljust(65535, b":"), "no", "bad-name"),
    Case(b"auth:ali\nce:xmpp.test:" + RIGHT, "no", "bad-name"),
    Case(b"auth:" + USER + b":" + RIGHT + b"\n", "no", "bad-password"),
    Case(b"auth:" + USER + b":" + RIGHT + b"\r\n", "no", "bad-password"),
    Case(b"tryregister:carol:xmpp.test:fake new one", "no", "not-allowed"),
    Case(b"removeuser:" + USER, "no", "not-allowed"),
    Case(b"removeuser3:" + USER + b":" + RIGHT, "no", "not-allowed"),
    Case(b"removeuser3:" + USER, "no", "malformed-request"),
    Case(b"certauth:" + USER + b":not a certificate", "no", "not-supported"),
    Case(b"certauth:" + USER, "no", "malformed-request"),
]

# What only a line can hold
UNFRAMED = [
    Case(b"tryregister:carol:xmpp.test:fake new one", "no", "malformed-request"),
    Case(b"removeuser:" + USER, "no", "malformed-request"),
    Case(b"certauth:" + USER + b":not a certificate", "no", "malformed-request"),
]


@pytest.mark.parametrize(
    ("protocol", "cases"), [(EJABBERD, CASES + FRAMED), (PROSODY, CASES + UNFRAMED)], ids=["ejabberd", "prosody"]
)
async def test_each_question_has_its_answer(tmp: Path, protocol: Protocol, cases: list[Case]) -> None:
    async with serve_here(tmp, configuration(tmp)) as served:
        found = [Case(case.question, *await reply_and_reason(served, protocol, case.question)) for case in cases]  # type: ignore[arg-type]
    assert found == [case._replace(reply=getattr(protocol, case.reply)) for case in cases]


PASSWORDS = [
    "a:b", ":", "::::", "tab\tin it", " blanks around ", "snowman \u2603", "\U0001f600" * 50, "x" * 1000, "quote\"'\\",
]  # fmt: skip


@pytest.mark.parametrize("protocol", [EJABBERD, PROSODY], ids=str)
async def test_passwords_arrive_as_they_are(tmp: Path, protocol: Protocol) -> None:
    passwords = [*PASSWORDS, *(["line\nfeed", "\nfirst", "cr\rlf\r\n"] if protocol is EJABBERD else [])]
    async with serve_here(tmp, configuration(tmp, ejabberd="allow_changes = true", prosody="allow_changes = true")) as served:
        for password in passwords:
            for verb in (b"setpass", b"auth"):
                question = protocol.wrap(verb + b":" + USER + b":" + password.encode())
                assert await ask(served, protocol, question) == [protocol.yes], (verb, password)
            assert await ask(served, protocol, protocol.wrap(b"auth:" + USER + b":" + password.encode() + b"x")) == [
                protocol.no
            ]


async def test_changes_are_made_where_they_are_allowed(tmp: Path) -> None:
    steps = [
        (b"tryregister:carol:xmpp.test:fake first", b"\0\2\0\1"),
        (b"tryregister:carol:xmpp.test:fake second", b"\0\2\0\0"),
        (b"auth:carol:xmpp.test:fake first", b"\0\2\0\1"),
        (b"setpass:carol:xmpp.test:fake third", b"\0\2\0\1"),
        (b"auth:carol:xmpp.test:fake first", b"\0\2\0\0"),
        (b"auth:carol:xmpp.test:fake third", b"\0\2\0\1"),
        (b"removeuser3:carol:xmpp.test:fake first", b"\0\2\0\0"),
        (b"removeuser3:carol:xmpp.test:", b"\0\2\0\0"),
        (b"isuser:carol:xmpp.test", b"\0\2\0\1"),
        (b"removeuser3:carol:xmpp.test:fake third", b"\0\2\0\1"),
        (b"isuser:carol:xmpp.test", b"\0\2\0\0"),
        (b"removeuser3:carol:xmpp.test:fake third", b"\0\2\0\0"),
        (b"removeuser:carol:xmpp.test", b"\0\2\0\0"),
        (b"removeuser:alice:xmpp.test", b"\0\2\0\1"),
        (b"isuser:alice:xmpp.test", b"\0\2\0\0"),
        # A password that was not set is an error: ejabberd takes any valid answer for success.
        (b"setpass:nobody:xmpp.test:fake new one", b"\0\1\0"),
        (b"setpass:slow:xmpp.test:", b"\0\1\0"),
        (b"setpass:slow:xmpp.test:\xff", b"\0\1\0"),
        (b"setpass:a@b:xmpp.test:fake new one", b"\0\1\0"),
        (b"setpass:down:xmpp.test:fake new one", b"\0\1\0"),
        (b"tryregister:down:xmpp.test:fake new one", b"\0\1\0"),
        (b"removeuser:down:xmpp.test", b"\0\1\0"),
        (b"removeuser3:down:xmpp.test:fake old one", b"\0\1\0"),
    ]
    async with serve_here(tmp, configuration(tmp, ejabberd="allow_changes = true")) as served:
        replies = [(question, *await ask(served, EJABBERD, EJABBERD.wrap(question))) for question, _ in steps]
    assert replies == steps


async def test_prosody_sets_passwords_where_it_is_allowed(tmp: Path) -> None:
    async with serve_here(tmp, configuration(tmp, prosody="allow_changes = true")) as served:
        users = (b"alice", b"nobody", b"down", b"bug")
        asked = b"".join(PROSODY.wrap(b"setpass:%s:xmpp.test:fake new" % user) for user in users)
        assert await ask(served, PROSODY, asked) == [PROSODY.yes, PROSODY.no, PROSODY.outage, PROSODY.outage]
        assert await ask(served, PROSODY, PROSODY.wrap(b"auth:" + USER + b":fake new")) == [PROSODY.yes]


@BOTH
async def test_an_outage_may_be_told_as_a_no(tmp: Path, protocol: Protocol) -> None:
    deny = 'outage_reply = "deny"\nallow_changes = true'
    async with serve_here(tmp, configuration(tmp, ejabberd=deny, prosody=deny)) as served:
        for user in (b"down", b"bug"):
            assert await ask(served, protocol, protocol.wrap(b"auth:" + user + b":xmpp.test:x")) == [protocol.no]
            assert await ask(served, protocol, protocol.wrap(b"isuser:" + user + b":xmpp.test")) == [protocol.no]
            assert await ask(served, protocol, protocol.wrap(b"setpass:" + user + b":xmpp.test:x")) == [protocol.not_set]


# Time -------------------------------------------------------------------------------------------------------------------------


@BOTH
async def test_replies_wait_for_the_slow_one_before_them(tmp: Path, protocol: Protocol, autojump_clock: trio.abc.Clock) -> None:
    questions = [b"auth:slow:xmpp.test:fake slow", b"auth:" + USER + b":fake wrong", b"isuser:" + USER]
    async with serve_here(tmp, configuration(tmp)) as served:
        replies = await ask(served, protocol, b"".join(map(protocol.wrap, questions)))
    assert replies == [protocol.yes, protocol.no, protocol.yes]


@BOTH
async def test_a_backend_that_takes_too_long_is_an_outage_in_time(
    tmp: Path, protocol: Protocol, autojump_clock: trio.abc.Clock
) -> None:
    async with serve_here(tmp, configuration(tmp, memory="delay = 60.0")) as served:
        began = trio.current_time()
        assert await ask(served, protocol, protocol.wrap(b"auth:slow:xmpp.test:fake slow")) == [protocol.outage]
        assert trio.current_time() - began < served.service.settings.listeners[1].config.deadline
        assert [decision.reason for decision in await served.decisions()] == ["backend-timeout"]


@BOTH
async def test_a_backend_that_can_not_be_stopped_closes_the_connection_in_silence(
    tmp: Path, protocol: Protocol, autojump_clock: trio.abc.Clock
) -> None:
    async with serve_here(tmp, configuration(tmp)) as served, await served.connect(protocol.name) as other:
        began = trio.current_time()
        questions = protocol.wrap(b"auth:stuck:xmpp.test:x") + protocol.wrap(b"isuser:" + USER)
        assert await ask(served, protocol, questions) == []
        deadline = {"ejabberd": 25.0, "prosody": 4.0}[protocol.name]
        assert deadline <= trio.current_time() - began < deadline + 2
        await trio.sleep(2 * STUCK)
        await other.send_all(protocol.wrap(b"isuser:" + USER))
        assert protocol.split(await other.receive_some()) == [protocol.yes]


# Anything at all --------------------------------------------------------------------------------------------------------------


def reference_frames(data: bytes) -> list[bytes]:
    """Return the whole frames in `data`, the plainest way."""
    found: list[bytes] = []
    while len(data) >= 2 and len(data) >= 2 + int.from_bytes(data[:2]):
        end = 2 + int.from_bytes(data[:2])
        found.append(data[2:end])
        data = data[end:]
    return found


def reference_lines(data: bytes, limit: int) -> tuple[list[bytes], bool]:
    """Return the lines in `data` up to the first that is too long, and whether there is such a one."""
    *whole, rest = data.split(b"\n")
    found: list[bytes] = []
    for line in whole:
        if len(line) > limit:
            return found, True
        found.append(line.removesuffix(b"\r"))
    return found, len(rest) > limit


def feed(framing: Framing, pieces: Iterable[bytes]) -> tuple[list[bytes], bool]:
    found: list[bytes] = []
    try:
        for piece in pieces:
            found.extend(framing.feed(piece))
    except ProtocolError:
        return found, True
    return found, False


frames = st.lists(st.binary(max_size=12).map(EJABBERD.wrap) | st.binary(max_size=4), max_size=8).map(b"".join)
lines = st.lists(st.text("ab\r", max_size=9).map(str.encode) | st.just(b"\n") | st.just(b"\r\n"), max_size=20).map(b"".join)


@st.composite
def cut(draw: st.DrawFn, data: st.SearchStrategy[bytes]) -> list[bytes]:
    """Bytes in pieces, none of them empty."""
    whole = draw(data)
    places = sorted(draw(st.sets(st.integers(1, len(whole) - 1)))) if len(whole) > 1 else []
    return [whole[i:j] for i, j in zip([0, *places], [*places, len(whole)], strict=True) if i < j]


@given(cut(frames))
def test_frames_are_found_as_by_the_plainest_reader(pieces: list[bytes]) -> None:
    framing = ejabberd.Frames()
    whole = b"".join(pieces)
    found = reference_frames(whole)
    assert feed(framing, pieces) == (found, False)
    assert bool(framing.half) == (sum(2 + len(frame) for frame in found) < len(whole))


@given(cut(lines))
def test_lines_are_found_as_by_the_plainest_reader(pieces: list[bytes]) -> None:
    framing = Lines(8)
    found, broken = feed(framing, pieces)
    whole = b"".join(pieces)
    assert (found, broken) == reference_lines(whole, 8)
    assert broken or bool(framing.half) == (whole != b"" and not whole.endswith(b"\n"))


questions = st.sampled_from([
    b"auth:alice:xmpp.test:" + RIGHT, b"isuser:alice:xmpp.test", b"isuser:down:xmpp.test", b"isuser:bug:xmpp.test",
    b"auth:slow:xmpp.test:x", b"setpass:alice:xmpp.test:fake right", b"tryregister:\xff:\xfe:\xfd", b"certauth:a:b:c",
])  # fmt: skip
streams = {
    EJABBERD: st.lists(questions.map(EJABBERD.wrap) | st.binary(max_size=40).map(EJABBERD.wrap) | st.binary(max_size=9)),
    PROSODY: st.lists(questions.map(PROSODY.wrap) | st.binary(max_size=40) | st.just(b"\n") | st.just(b"y" * 9000)),
}


@BOTH
@settings(max_examples=settings().max_examples // 4)  # a daemon for each
@given(data=st.data())
def test_whatever_is_sent_every_reply_is_a_valid_one(protocol: Protocol, data: st.DataObject) -> None:
    pieces = data.draw(cut(streams[protocol].map(b"".join)))
    whole = b"".join(pieces)
    expected = reference_frames(whole) if protocol is EJABBERD else reference_lines(whole, prosody.MAX_LINE)[0]

    async def main() -> None:
        with temporary_folder() as folder:
            async with serve_here(folder, configuration(folder)) as served, await served.connect(protocol.name) as other:
                assert len(await ask(served, protocol, *pieces)) == len(expected)
                await other.send_all(protocol.wrap(b"isuser:" + USER))
                assert protocol.split(await other.receive_some()) == [protocol.yes]
                engine = served.engines[protocol.name]
                while engine.connections > 1:
                    await trio.sleep(0.01)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
