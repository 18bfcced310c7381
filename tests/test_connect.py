"""The connector, run as servers run it, against a daemon that does what the test says."""

import contextlib
import os
import pwd
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauth import connect
from tests.connector import (
    CONNECT,
    NO,
    OUTAGE,
    OUTAGE_LINE,
    RIGHT,
    RIGHT_LINE,
    WRONG,
    WRONG_LINE,
    YES,
    Behaviour,
    Connection,
    Daemon,
    connector,
    frame,
    hang_up,
    send,
)


@pytest.fixture
def daemon(tmp: Path) -> Iterator[Daemon]:
    """Give a daemon that speaks ejabberd's frames."""
    daemon = Daemon(tmp / "ejabberd.sock")
    yield daemon
    daemon.stop()


@pytest.fixture
def lines(tmp: Path) -> Iterator[Daemon]:
    """Give a daemon that speaks Prosody's lines."""
    daemon = Daemon(tmp / "prosody.sock", lines=True)
    yield daemon
    daemon.stop()


# -- relaying -----------------------------------------------------------------------------------------------------


def test_relays_frames_in_order(daemon: Daemon) -> None:
    with connector("ejabberd", daemon.path) as process:
        out, err = process.popen.communicate(RIGHT + WRONG + RIGHT, timeout=20)
    assert (out, err, process.popen.returncode) == (YES + NO + YES, b"", 0)
    assert daemon.requests == [RIGHT, WRONG, RIGHT]


def test_relays_lines_in_order(lines: Daemon) -> None:
    with connector("prosody", lines.path) as process:
        out, err = process.popen.communicate(RIGHT_LINE + WRONG_LINE + RIGHT_LINE, timeout=20)
    assert (out, err, process.popen.returncode) == (b"1\n0\n1\n", b"", 0)
    assert lines.requests == [RIGHT_LINE, WRONG_LINE, RIGHT_LINE]


def test_relays_byte_by_byte_and_the_largest_frame(daemon: Daemon) -> None:
    largest = frame(b"auth:alice:xmpp.test:" + b"x" * (65535 - 27) + b":right")
    assert len(largest) == 2 + 65535
    with connector("ejabberd", daemon.path) as process:
        for byte in RIGHT:
            process.write(bytes([byte]))
        assert process.reply() == YES
        assert process.ask(largest) == YES
        assert process.ask(b"\0\0") == NO
        assert process.end() == (b"", "")
    assert daemon.requests == [RIGHT, largest, b"\0\0"]


@pytest.mark.parametrize(("protocol", "part"), [("ejabberd", RIGHT[:-1]), ("ejabberd", b"\0"), ("prosody", b"isuser:")])
def test_a_truncated_request_is_never_sent(tmp: Path, protocol: str, part: bytes) -> None:
    daemon = Daemon(tmp / "s", lines=protocol == "prosody")
    with connector(protocol, daemon.path) as process:
        process.write(part)
        assert process.end() == (b"", "")
    assert daemon.requests == []
    daemon.stop()


def test_a_line_over_the_limit_is_refused_and_swallowed(lines: Daemon) -> None:
    longest = b"auth:alice:xmpp.test:".ljust(connect.LINE_LIMIT - 7, b"x") + b":right\n"
    with connector("prosody", lines.path) as process:
        assert process.ask(longest) == b"1\n"
        assert process.ask(b"x" + longest) == OUTAGE_LINE
        assert process.ask(b"x" * 100_000 + longest) == OUTAGE_LINE
        assert process.ask(RIGHT_LINE) == b"1\n"
    assert lines.requests == [longest, RIGHT_LINE]


def test_relays_over_tcp(tmp: Path) -> None:
    daemon = Daemon(tmp / "s")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=daemon.accept, args=(listener,), daemon=True).start()
        with connector("ejabberd", f"tcp:127.0.0.1:{listener.getsockname()[1]}") as process:
            assert process.ask(RIGHT) == YES
        listener.shutdown(socket.SHUT_RDWR)
    daemon.stop()


def test_runs_in_this_python_too_and_prints_cannot_reach_the_server(daemon: Daemon) -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from extauth import connect\n"
        "connect.explain = lambda error, address: print('stray') or os.system('echo child') or 'why'\n"
        "print(sys.exit(connect.run('ejabberd', sys.argv[2])))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(CONNECT.parents[1]), f"{daemon.path}.absent"],
        input=RIGHT,
        capture_output=True,
        check=True,
    )
    assert run.stdout == OUTAGE
    assert b"stray" in run.stderr
    assert b"child" in run.stderr


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_a_report_nobody_can_read_costs_nothing(tmp: Path, redirection: str) -> None:
    run = subprocess.run(
        ["/bin/sh", "-c", f"exec /usr/bin/python3 -SIE {CONNECT} ejabberd {tmp}/absent {redirection}"],
        input=RIGHT + RIGHT,
        capture_output=True,
        check=True,
    )
    assert run.stdout == OUTAGE + OUTAGE


def test_what_it_opens_does_not_land_on_stderrs_descriptor() -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from extauth import connect\n"
        "sink = connect.protect_stdout(silent=False)\n"
        "os.write(sink, ' '.join(os.readlink(f'/proc/self/fd/{fd}') for fd in (1, 2)).encode())"
    )
    run = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" "$2" 2>&-', sys.executable, code, str(CONNECT.parents[1])],
        capture_output=True,
        check=True,
    )
    assert run.stdout == b"/dev/null /dev/null"


# -- how it is started ----------------------------------------------------------------------------------------------


def test_protocol_from_the_name_and_address_from_the_environment(daemon: Daemon, lines: Daemon, tmp: Path) -> None:
    for protocol, path, request, reply in (
        ("ejabberd", daemon.path, RIGHT, YES),
        ("prosody", lines.path, RIGHT_LINE, b"1\n"),
    ):
        link = tmp / f"extauth-{protocol}"
        link.symlink_to(CONNECT)
        environment = {f"EXTAUTH_{protocol.upper()}": f"unix:{path}"}
        run = subprocess.run([link], input=request, capture_output=True, check=True, env=environment)
        assert (run.stdout, run.stderr) == (reply, b"")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dovecot"],
        ["ejabberd", "/a", "/b"],
        ["ejabberd", "relative"],
        ["ejabberd", "tcp:1"],
        ["ejabberd", "tcp:h:0"],
        ["ejabberd", "udp:h:1"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    run = subprocess.run(["/usr/bin/python3", "-SIE", CONNECT, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == os.EX_USAGE
    assert run.stdout == ""
    assert connect.USAGE in run.stderr


def test_help() -> None:
    run = subprocess.run([CONNECT, "--help"], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == (connect.USAGE, "")


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("/run/s", (socket.AF_UNIX, "/run/s")),
        ("unix:/run/a:b", (socket.AF_UNIX, "/run/a:b")),
        ("tcp:127.0.0.1:80", (socket.AF_INET, ("127.0.0.1", 80))),
        ("tcp:localhost:65535", (socket.AF_INET, ("localhost", 65535))),
        ("tcp:[::1]:80", (socket.AF_INET6, ("::1", 80))),
    ],
)
def test_addresses(text: str, parsed: object) -> None:
    assert connect.parse_address(text) == parsed


@given(st.text())
def test_any_other_text_is_no_address(text: str) -> None:
    try:
        family, _ = connect.parse_address(text)
    except ValueError:
        return
    assert text.startswith({socket.AF_UNIX: ("/", "unix:/")}.get(socket.AddressFamily(family), ("tcp:",)))


# -- outages --------------------------------------------------------------------------------------------------------


def test_a_restart_between_requests_is_not_noticed(daemon: Daemon) -> None:
    with connector("ejabberd", daemon.path) as process:
        assert process.ask(RIGHT) == YES
        daemon.stop()
        daemon.start()
        assert process.ask(frame(b"setpass:alice:xmpp.test:right")) == YES
        assert process.end() == (b"", "")


def test_a_request_in_flight_survives_a_restart(daemon: Daemon) -> None:
    def restart(_connection: Connection, _request: bytes) -> None:
        daemon.stop()
        threading.Timer(0.3, daemon.start).start()

    daemon.behaviours = [restart]
    with connector("ejabberd", daemon.path) as process:
        assert process.ask(RIGHT) == YES
        assert process.end() == (b"", "")
    assert daemon.requests == [RIGHT, RIGHT]


@pytest.mark.parametrize("verb", [b"setpass", b"tryregister", b"removeuser", b"removeuser3", b"other"])
def test_a_change_in_flight_is_not_repeated(daemon: Daemon, verb: bytes) -> None:
    daemon.behaviours = [hang_up]
    with connector("ejabberd", daemon.path) as process:
        assert process.ask(frame(verb + b":alice:xmpp.test:right")) == OUTAGE
        assert process.ask(RIGHT) == YES
    assert len(daemon.requests) == 2


def test_a_change_waits_for_the_daemon_if_nothing_was_sent(daemon: Daemon) -> None:
    daemon.stop()
    threading.Timer(0.3, daemon.start).start()
    with connector("ejabberd", daemon.path) as process:
        assert process.ask(frame(b"setpass:alice:xmpp.test:right")) == YES
    assert len(daemon.requests) == 1


def test_a_request_that_makes_the_daemon_hang_up_is_not_sent_for_ever(lines: Daemon) -> None:
    lines.behaviours = [hang_up] * 10
    with connector("prosody", lines.path) as process:
        assert process.ask(RIGHT_LINE) == OUTAGE_LINE
        assert len(lines.requests) == connect.MAX_SENDS
        lines.behaviours = []
        assert process.ask(RIGHT_LINE) == b"1\n"


@pytest.mark.parametrize("protocol", ["ejabberd", "prosody"])
def test_patience_ends_once_and_then_outages_are_immediate(tmp: Path, protocol: str) -> None:
    request, yes, outage = (RIGHT, YES, OUTAGE) if protocol == "ejabberd" else (RIGHT_LINE, b"1\n", OUTAGE_LINE)
    patience = connect.Prosody.patience if protocol == "prosody" else connect.Ejabberd.patience
    with connector(protocol, tmp / "s") as process:
        begun = time.monotonic()
        assert process.ask(request) == outage
        waited = time.monotonic() - begun
        assert waited >= patience
        begun = time.monotonic()
        replies = [process.ask(request) for _ in range(20)]
        assert replies == [outage] * 20
        assert time.monotonic() - begun < 20 * patience  # each of them waited less than a patience
        daemon = Daemon(tmp / "s", lines=protocol == "prosody")
        assert process.ask(request) == yes
        daemon.stop()
        threading.Timer(0.2, daemon.start).start()
        assert process.ask(request) == yes  # patient again
        daemon.stop()
        _, err = process.end()
    said = err.count("no socket at")
    assert said == (1 if protocol == "ejabberd" else 0)  # once a minute; Prosody's stderr would be a reply


class FakeServer(connect.Ejabberd):
    """A protocol with short times that keeps what is reported."""

    patience = 0.2
    limit = 0.4

    def __init__(self, sink: int) -> None:
        super().__init__(sink)
        self.messages: list[str] = []

    def report(self, message: str) -> None:
        """Keep the message."""
        self.messages.append(message)


@contextlib.contextmanager
def client(path: Path) -> Generator[tuple[connect.Daemon, FakeServer]]:
    """Give the connector's side of the socket, in this process."""
    reader, sink = os.pipe()
    server = FakeServer(sink)
    daemon = connect.Daemon(server, str(path), sink)
    try:
        yield daemon, server
    finally:
        daemon.close()
        os.close(reader)
        os.close(sink)


def test_the_daemons_own_deadline_is_not_followed_by_a_repeat(daemon: Daemon) -> None:
    def close_past_half_of_the_time(connection: Connection, _request: bytes) -> None:
        threading.Event().wait(FakeServer.limit * 0.6)
        connection.shutdown(socket.SHUT_RDWR)

    daemon.otherwise = close_past_half_of_the_time
    with client(daemon.path) as (ours, server):
        assert ours.ask(RIGHT, time.monotonic() + server.limit) is None
    assert daemon.requests == [RIGHT]
    assert len(server.messages) == 1
    assert "closed the connection without an answer" in server.messages[0]


def test_a_late_reply_is_never_taken_for_the_next_requests(daemon: Daemon) -> None:
    late = threading.Event()

    def answer_late(connection: Connection, _request: bytes) -> None:
        late.wait(20)
        connection.sendall(YES)

    daemon.behaviours = [answer_late]
    with client(daemon.path) as (ours, server):
        assert ours.ask(RIGHT, time.monotonic() + server.limit) is None
        late.set()
        assert ours.ask(WRONG, time.monotonic() + server.limit) == NO
    assert server.messages == [f"no answer from {daemon.path} within 0.4 s"]


def test_reports_at_most_once_a_minute(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with client(tmp / "absent") as (ours, server):
        for _ in range(3):
            assert ours.ask(RIGHT, time.monotonic()) is None
        assert len(server.messages) == 1
        clock = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: clock() + connect.REPORT_INTERVAL)
        assert ours.ask(RIGHT, time.monotonic()) is None
        assert len(server.messages) == 2


def test_prosody_reports_to_syslog(monkeypatch: pytest.MonkeyPatch) -> None:
    import syslog  # noqa: PLC0415 - patched here alone

    said: list[tuple[int, str]] = []

    def say(level: int, text: str) -> None:
        said.append((level, text))

    monkeypatch.setattr(syslog, "syslog", say)
    connect.Prosody.report(object.__new__(connect.Prosody), "no socket")
    assert said == [(syslog.LOG_ERR, "no socket")]


# -- why it cannot connect ------------------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes its user")


@needs_root
@pytest.mark.parametrize("locked", ["socket", "folder"])
def test_permission_denied_names_both_sides(tmp: Path, locked: str) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    folder = tmp / "run"
    folder.mkdir()
    for parent in (folder, *folder.parents):
        if parent.stat().st_mode & 0o1 == 0:
            parent.chmod(0o755)
    daemon = Daemon(folder / "s")
    daemon.path.chmod(0o660 if locked == "socket" else 0o666)
    os.chown(daemon.path, 0, 4)
    if locked == "folder":
        os.chown(folder, 0, 4)
        folder.chmod(0o750)
    # The connector itself must be readable for that user.
    code = "import sys; from connect import run; sys.exit(run('ejabberd', sys.argv[1]))"
    copy = tmp / "connect.py"
    copy.write_bytes(CONNECT.read_bytes())
    copy.chmod(0o644)
    run = subprocess.run(
        ["/usr/bin/python3", "-SE", "-c", code, str(daemon.path)],
        cwd=tmp,
        input=RIGHT,
        capture_output=True,
        check=True,
        user=nobody,
        group=nobody,
        extra_groups=[],
    )
    daemon.stop()
    assert run.stdout == OUTAGE
    message = run.stderr.decode()
    culprit = daemon.path if locked == "socket" else folder
    mode = "0660" if locked == "socket" else "0750"
    assert f"permission denied on {daemon.path}: this connector runs as uid {nobody}, gid {nobody}" in message
    assert f"{culprit} belongs to root:adm, uid 0, gid 4, mode {mode}" in message


def test_a_socket_without_a_daemon_is_refused(daemon: Daemon) -> None:
    daemon.stop(keep_file=True)
    with client(daemon.path) as (ours, server):
        assert ours.ask(RIGHT, time.monotonic()) is None
    assert server.messages == [f"connection refused at {daemon.path}: the extauth daemon is not running"]


def test_other_causes_are_said_too(tmp: Path) -> None:
    assert "is no address" in connect.explain(ValueError("x is no address"), "x")
    long = tmp / ("x" * 200)
    with client(long) as (ours, server):
        assert ours.ask(RIGHT, time.monotonic()) is None
    assert server.messages == [f"cannot connect to {long}: AF_UNIX path too long"]
    assert connect.owner(str(tmp / "absent")).endswith("absent: No such file or directory")


# -- a daemon that misbehaves ---------------------------------------------------------------------------------------

BAD_FRAMES = [b"\0\2\0\2", b"\0\2\1\1", b"\0\1\1", b"\0\3\0\1\0", b"1\n", b"\0\2\0\1\0", YES + YES, b"\xff\xff"]
BAD_LINES = [b"1\n1\n", b"0\n1", b"\n\n", b"1\r\n", b"\xff\n", b"x" * 200, b"\x001\n", YES]


@pytest.mark.parametrize("bad", BAD_FRAMES)
def test_what_is_no_frame_becomes_an_outage(daemon: Daemon, bad: bytes) -> None:
    daemon.behaviours = [send(bad)]
    with client(daemon.path) as (ours, server):
        assert ours.ask(RIGHT, time.monotonic() + 20) is None
        assert ours.ask(WRONG, time.monotonic() + 20) == NO
    assert server.messages == [f"what {daemon.path} sent is no reply of the ejabberd protocol"]


@pytest.mark.parametrize("bad", BAD_LINES)
def test_what_is_no_line_becomes_an_outage(lines: Daemon, bad: bytes) -> None:
    lines.behaviours = [send(bad)]
    with connector("prosody", lines.path) as process:
        assert process.ask(RIGHT_LINE) == OUTAGE_LINE
        assert process.ask(WRONG_LINE) == b"0\n"


def test_the_daemons_own_outage_passes(daemon: Daemon, lines: Daemon) -> None:
    daemon.behaviours = [send(OUTAGE)]
    lines.behaviours = [send(b"error: directory down\n"), send(b"maybe\n")]
    with connector("ejabberd", daemon.path) as process:
        assert process.ask(RIGHT) == OUTAGE
        assert process.end() == (b"", "")
    with connector("prosody", lines.path) as process:
        assert process.ask(RIGHT_LINE) == b"error: directory down\n"
        assert process.ask(RIGHT_LINE) == OUTAGE_LINE


def test_a_reply_in_pieces(daemon: Daemon) -> None:
    def piecemeal(connection: Connection, _request: bytes) -> None:
        for byte in YES:
            connection.sendall(bytes([byte]))

    daemon.otherwise = piecemeal
    with client(daemon.path) as (ours, _):
        assert [ours.ask(RIGHT, time.monotonic() + 20) for _ in range(5)] == [YES] * 5


def test_stray_bytes_before_a_request_are_discarded(daemon: Daemon) -> None:
    stray = threading.Event()

    def answer_and_talk_on(connection: Connection, _request: bytes) -> None:
        connection.sendall(NO)
        stray.wait(20)
        connection.sendall(YES)
        stray.clear()

    daemon.behaviours = [answer_and_talk_on]
    with client(daemon.path) as (ours, server):
        assert ours.ask(WRONG, time.monotonic() + 20) == NO
        stray.set()
        while stray.is_set():
            time.sleep(0.001)
        assert ours.ask(WRONG, time.monotonic() + 20) == NO
    assert server.messages == []


# -- the server goes ------------------------------------------------------------------------------------------------


def test_ends_when_the_server_has_gone_while_a_request_is_in_flight(daemon: Daemon) -> None:
    arrived = threading.Event()
    daemon.otherwise = lambda _connection, _request: arrived.set()
    with connector("ejabberd", daemon.path) as process:
        process.write(RIGHT)
        assert arrived.wait(20)
        assert process.popen.stdin
        assert process.popen.stdout
        process.popen.stdin.close()
        process.popen.stdout.close()
        assert process.popen.wait(timeout=20) == 0  # ejabberd's limit is 28 s


@pytest.mark.parametrize("number", [1, 2, 15])
def test_prosody_sees_status_0_whatever_the_signal(lines: Daemon, number: int) -> None:
    with connector("prosody", lines.path) as process:
        assert process.ask(RIGHT_LINE) == b"1\n"
        process.popen.send_signal(number)
        assert process.popen.wait(timeout=20) == 0


def test_past_four_seconds_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, sink = os.pipe()
    prosody: connect.Prosody = object.__new__(connect.Prosody)
    for name, value in {"_sink": sink, "_settled": True, "_terminal": False}.items():
        monkeypatch.setattr(prosody, name, value, raising=False)
    prosody.received = time.monotonic()
    assert prosody.answer(b"1\n")
    prosody.received -= connect.Prosody.silence
    assert not prosody.answer(b"1\n")
    os.close(sink)
    with open(reader, "rb") as file:
        assert file.read() == b"1\n"


# -- anything at all ------------------------------------------------------------------------------------------------

chunks = st.lists(st.binary(max_size=40), max_size=8)
requests = st.lists(
    st.sampled_from([RIGHT, WRONG, RIGHT_LINE, WRONG_LINE, b"\0\0", b"\n", frame(b"setpass:a:b:c")]), max_size=4
).map(b"".join)
GOOD = (YES, NO, OUTAGE, b"0\n", b"1\n", b"error: x\n")
noise = st.one_of(st.sampled_from(GOOD), st.binary(max_size=6))


def say(data: bytes) -> Behaviour:
    """Answer so, and hang up after what may be only a part: the connector would wait for the rest."""

    def behave(connection: Connection, request: bytes) -> None:
        connection.sendall(data)
        if data not in GOOD:
            hang_up(connection, request)

    return behave


@pytest.mark.parametrize("protocol", ["ejabberd", "prosody"])
@settings(max_examples=25 if os.environ.get("HYPOTHESIS_PROFILE", "quick") == "quick" else 2000)
@given(data=st.data())
def test_whatever_comes_the_output_is_a_sequence_of_valid_replies(protocol: str, data: st.DataObject) -> None:
    """At most one reply per request, each whole and valid, exit status 0."""
    sent = data.draw(st.one_of(chunks, requests.map(lambda whole: [whole])))
    answers = data.draw(st.lists(noise, max_size=6))
    name = f"/tmp/extauth-{os.getpid()}.sock"  # short enough for a socket
    daemon = Daemon(Path(name), lines=protocol == "prosody")
    daemon.behaviours = [say(answer) for answer in answers]
    try:
        with connector(protocol, daemon.path) as process:
            for chunk in sent:
                process.write(chunk)
            out, _ = process.end()
    finally:
        daemon.stop()
    count = 0
    if protocol == "ejabberd":
        stream = b"".join(sent)
        requested = 0
        while len(stream) >= 2 and len(stream) >= 2 + int.from_bytes(stream[:2]):
            stream = stream[2 + int.from_bytes(stream[:2]) :]
            requested += 1
        while out:
            reply = out[: 2 + int.from_bytes(out[:2])]
            assert reply in (YES, NO, OUTAGE)
            out = out[len(reply) :]
            count += 1
    else:
        requested = b"".join(sent).count(b"\n")
        assert out == b"" or out.endswith(b"\n")
        for line in out.split(b"\n")[:-1]:
            assert line in (b"0", b"1") or line.startswith(b"error:")
            count += 1
    assert count == requested
