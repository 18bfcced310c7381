"""The LDAP process: what the daemon makes of it when it fails, and that it never outlives the daemon."""

import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import extauth_ldap
import pytest
import trio
from extauth_ldap import Config, process
from extauth_ldap.messages import (
    Bind,
    Change,
    Check,
    MessageError,
    Question,
    Setup,
    Told,
    pack,
    read_asked,
    read_said,
    read_setup,
)
from extauth_ldap.process import LdapProcess
from hypothesis import given
from hypothesis import strategies as st

from extauth.errors import BackendDown
from extauth.model import Identity, Reason, Secret
from tests import needs
from tests.certificates import Certificates
from tests.crowd import Crowd
from tests.daemons import ENVIRONMENT, ERROR, NO, YES, Daemon, extauth, frame, head
from tests.servers.process import poll
from tests.servers.slapd import ADMIN_PASSWORD, Slapd, asking
from tests.test_ldap import context

RIGHT, WRONG = "fake right", "fake wrong"
STAND_IN = Path(__file__).parent / "programs" / "ldap_child.py"


# With a stand-in for the process ----------------------------------------------------------------------------------------------


class Stage:
    """Asks the stand-in. `told` is what it was asked."""

    def __init__(self, record: Path, keeper: LdapProcess) -> None:
        self._record = record
        self._keeper = keeper

    async def ask(self, what: str | Question, patience: float = 60.0) -> Told:
        return await self._keeper.ask(Bind(what, Secret("x")) if isinstance(what, str) else what, patience)

    @property
    def told(self) -> list[str]:
        return self._record.read_text().splitlines()


@asynccontextmanager
async def playing(tmp: Path, **keys: float) -> AsyncGenerator[Stage, None]:
    usual = {"threads": 2, "queue_patience": 60.0, "timeout": 60.0}
    config = Config(servers=("ldaps://a",), bind_dn_template="{user}", **{**usual, **keys})  # type: ignore[arg-type]
    keeper = LdapProcess(Setup(str(tmp / "record"), config, None))
    async with trio.open_nursery() as nursery:
        assert await nursery.start(keeper.run) == ()
        yield Stage(tmp / "record", keeper)
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Put the stand-in in the place of the process, but where a real directory is there."""
    if "slapd" not in request.fixturenames:
        monkeypatch.setattr(process, "COMMAND", (sys.executable, "-P", str(STAND_IN)))


async def test_an_answer_that_comes_late_is_nobody_elses_and_makes_room(tmp: Path) -> None:
    async with playing(tmp, threads=3) as stage:
        with pytest.raises(BackendDown, match="in time"):
            await stage.ask("late", patience=0.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.ask, "late")
            await wait_for(lambda: stage.told.count("Bind late") == 2)
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(good, stage)


async def good(stage: Stage) -> None:
    assert await stage.ask("good") == Told(Reason.OK)


async def test_who_waits_for_a_thread_is_refused_in_time_and_who_is_cancelled_is_not_asked_for(tmp: Path) -> None:
    async with playing(tmp, threads=1, queue_patience=0.3) as stage, trio.open_nursery() as nursery:
        nursery.start_soon(stage.ask, "late")
        await wait_for(lambda: "Bind late" in stage.told)
        with pytest.raises(BackendDown, match="all LDAP threads are busy"):
            await stage.ask("refused")
        with trio.move_on_after(0.01):
            await stage.ask("cancelled")
        assert stage.told == ["start", "Bind late"]
        nursery.cancel_scope.cancel()


async def test_a_question_is_put_again_when_the_process_ends_and_a_change_is_not(
    tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with playing(tmp) as stage:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.ask, "late")
            await wait_for(lambda: "Bind late" in stage.told)
            with pytest.raises(BackendDown, match="ended before it answered"):
                await stage.ask(Change(Identity("alice", "example.com"), Secret("x")))
            await wait_for(lambda: stage.told.count("Bind late") == 2)  # it is answered before the next question
            assert await stage.ask("good") == Told(Reason.OK)
        assert sorted(stage.told) == sorted(["start", "Bind late", "Change die", "start", "Bind late", "Bind good"])
    assert "the LDAP process ended; another is started" in capsys.readouterr().out


async def wait_for(condition: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not condition():
            await trio.sleep(0.01)


@pytest.mark.parametrize("how", ["die", "noise", "liar"])
async def test_a_process_that_fails_is_an_outage_and_is_started_again(tmp: Path, how: str) -> None:
    async with playing(tmp) as stage:
        assert await stage.ask("good") == Told(Reason.OK)
        with pytest.raises(BackendDown, match="the LDAP process ended"):
            await stage.ask(how)
        await wait_for_good(stage)
    assert stage.told.count(f"Bind {how}") == 2
    assert stage.told.count("start") == 3


async def test_nobody_waits_for_a_process_that_does_not_last(
    tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "FIRST_PAUSE", 3600.0)
    monkeypatch.setattr(process, "LAST_PAUSE", 3600.0)
    async with playing(tmp) as stage:
        with pytest.raises(BackendDown):
            await stage.ask("die")
        logged = ""
        while "pause=3600" not in logged:
            logged += capsys.readouterr().out
            await trio.sleep(0.01)
        with trio.fail_after(30), pytest.raises(BackendDown, match="the LDAP process ended: status 3"):
            await stage.ask("good")
    assert stage.told == ["start", "Bind die", "start", "Bind die"]


async def test_a_process_that_is_silent_is_ended(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "HUNG", 0.5)
    async with playing(tmp, timeout=0.5) as stage:
        assert await stage.ask("good") == Told(Reason.OK)
        for _ in range(2):
            with pytest.raises(BackendDown):
                await stage.ask("mute", patience=0.5)
        await wait_for(lambda: stage.told.count("start") == 2)
        await wait_for_good(stage)


async def wait_for_good(stage: Stage) -> None:
    with trio.fail_after(60):
        while True:
            try:
                await good(stage)
            except BackendDown:
                await trio.sleep(0.05)
            else:
                return


async def test_what_it_prints_is_in_the_log_and_a_bug_is_a_bug(tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with playing(tmp) as stage:
        assert await stage.ask("print") == Told(Reason.OK)
        with pytest.raises(RuntimeError, match="traceback of a bug"):
            await stage.ask("bug")
        assert await stage.ask("good") == Told(Reason.OK)
    assert "a word" in capsys.readouterr().out


@pytest.mark.parametrize("command", [("/nonexistent/program",), ("/bin/false",), ("/bin/echo", "hello")])
async def test_a_process_that_can_not_be_started_is_told(monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    monkeypatch.setattr(process, "COMMAND", command)
    with pytest.raises(BackendDown, match=r"backend\.people: the LDAP process could not be started"):
        async with extauth_ldap.open(Config(servers=("ldaps://a",), bind_dn_template="{user}"), context()):
            pass


async def test_a_question_too_large_is_an_outage(tmp: Path) -> None:
    async with playing(tmp, threads=1) as stage:
        for _ in range(2):
            with pytest.raises(BackendDown, match="does not take this question"):
                await stage.ask(Bind("x", Secret("x" * 1_000_000)))
        assert await stage.ask("good") == Told(Reason.OK)


# Messages ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_said, read_asked, read_setup])
def test_what_is_no_message_is_refused(read: Callable[[bytes], object]) -> None:
    @given(st.binary(max_size=200))
    def refused(data: bytes) -> None:
        with pytest.raises(MessageError):
            read(data)

    refused()


def test_a_message_shows_no_secret() -> None:
    identity = Identity("alice", "example.com")
    config = Config(servers=("ldaps://a",), bind_dn_template="{user}")
    setup = Setup("people", config, Secret(RIGHT))
    for value in (setup, Check(identity, Secret(RIGHT)), Change(identity, Secret(RIGHT)), Told(Reason.OK, {}, (RIGHT,))):
        assert RIGHT not in repr(value)
        assert RIGHT.encode() in pack(value)
    again = read_setup(pack(setup))
    assert again.config == config
    assert again.password is not None
    assert again.password.reveal() == RIGHT


# The daemon, its process and a real directory ---------------------------------------------------------------------------------

CONFIGURATION = (
    head("{folder}", ejabberd="deadline = 10.0")
    + """\
[backend.people]
{directory}timeout = {timeout}
server_timeout = 6.0
queue_patience = 8.0
[domain."xmpp.test"]
backends = ["people"]
"""
)


@pytest.fixture
def slapd(tmp: Path, certificates: Certificates) -> Generator[Slapd]:
    """Give a directory that knows alice."""
    (tmp / "slapd").mkdir()
    with Slapd(tmp / "slapd", certificates, {"alice": RIGHT}) as server:
        yield server


def configuration(tmp: Path, slapd: Slapd, certificates: Certificates, timeout: float = 8.0) -> str:
    return CONFIGURATION.format(folder=tmp, timeout=timeout, directory=asking(tmp, certificates, slapd))


@pytest.fixture
def daemon(tmp: Path, slapd: Slapd, certificates: Certificates) -> Generator[Daemon]:
    """Give a daemon with that directory, told by a service manager to say how it is."""
    served = Daemon(tmp, configuration(tmp, slapd, certificates))
    told = {"NOTIFY_SOCKET": f"{tmp}/notify.sock", "WATCHDOG_USEC": "30000000", "LISTEN_FDNAMES": "none"}
    served.environment = {**ENVIRONMENT, **told}
    with served:
        yield served


def children(pid: int) -> list[int]:
    """Return the process ids of a process's children."""
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; one that nobody has waited for counts if it isn't a child of the daemon."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@needs.debian("slapd")
async def test_a_process_that_is_killed_costs_no_login(daemon: Daemon) -> None:
    crowd = Crowd(daemon.folder / "ejabberd.sock", RIGHT, WRONG)
    with trio.fail_after(120):
        assert await crowd.log_in("alice", RIGHT) == frame(YES)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crowd.run)
            await trio.sleep(0.5)
            [child] = children(daemon.pid)
            os.kill(child, signal.SIGKILL)
            await trio.sleep(0.5)
            while await crowd.log_in("alice", RIGHT) != frame(YES):
                await trio.sleep(0.05)
            crowd.over = True
    replies = {f"{password} {reply[2:].hex() or 'none'}": count for (password, reply), count in crowd.replies.items()}
    assert not {("right", frame(NO)), ("wrong", frame(YES)), ("right", b""), ("wrong", b"")} & set(crowd.replies), replies
    assert crowd.replies["right", frame(ERROR)] + crowd.replies["wrong", frame(ERROR)] <= 10, replies
    [another] = children(daemon.pid)
    assert another != child
    assert 'how="status -9"' in daemon.log()
    assert "Traceback" not in daemon.log()


@needs.debian("slapd")
def test_nothing_of_the_daemons_own_is_known_to_it(daemon: Daemon) -> None:
    [child] = children(daemon.pid)
    environment = Path(f"/proc/{child}/environ").read_text()
    assert "PYTHONPATH=" in environment
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDNAMES"):
        assert name in Path(f"/proc/{daemon.pid}/environ").read_text()
        assert name not in environment
    assert daemon.login(RIGHT) == YES
    assert ADMIN_PASSWORD not in environment + Path(f"/proc/{child}/cmdline").read_text()
    files = [os.readlink(file) for file in Path(f"/proc/{child}/fd").iterdir()]
    assert not [file for file in files if "state.db" in file or file.endswith(".sock")]


@needs.debian("slapd")
def test_it_ends_with_the_daemon_however_that_ends(daemon: Daemon) -> None:
    [child] = children(daemon.pid)
    os.kill(daemon.pid, signal.SIGKILL)
    poll(lambda: is_gone(child), "the process is gone")


@needs.debian("slapd")
def test_a_reload_leaves_one_process(daemon: Daemon) -> None:
    [before] = children(daemon.pid)
    for number in (1, 2):
        daemon.signal(signal.SIGHUP)
        poll(lambda: daemon.log().count("configuration reloaded") == number, "reloaded")  # noqa: B023 - it is over by then
    poll(lambda: len(children(daemon.pid)) == 1, "one process is left")
    [after] = children(daemon.pid)
    assert after != before
    assert daemon.login(RIGHT) == YES


@needs.debian("slapd")
def test_logins_are_drained_also_if_all_processes_get_the_signal(daemon: Daemon, slapd: Slapd) -> None:
    assert daemon.login(RIGHT) == YES
    [child] = children(daemon.pid)
    os.kill(slapd.pid, signal.SIGSTOP)
    try:
        with daemon.connect() as wire:
            wire.send(f"auth:alice:xmpp.test:{RIGHT}")
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(child, number)
            daemon.signal(signal.SIGTERM)
            daemon.wait_for_log("stopping")
            os.kill(slapd.pid, signal.SIGCONT)
            assert wire.receive() == YES
    finally:
        os.kill(slapd.pid, signal.SIGCONT)
    assert daemon.wait() == 0
    assert is_gone(child)
    assert "the LDAP process ended" not in daemon.log()  # nor was it needed to start another
    assert "Traceback" not in daemon.log()


@needs.debian("slapd")
def test_only_a_check_online_starts_it(tmp: Path, slapd: Slapd, certificates: Certificates) -> None:
    config = tmp / "extauth.toml"
    config.write_text(configuration(tmp, slapd, certificates).replace(str(certificates.ca), "/nonexistent"))
    assert extauth("check", "-c", config).returncode == 0
    online = extauth("check", "-c", config, "--online")
    assert online.returncode == os.EX_CONFIG
    assert "backend.people.ca_file" in online.stderr
