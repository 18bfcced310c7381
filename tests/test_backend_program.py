"""Backend `program`: the contract with a script as sites have them, and what scripts do when they don't do what they should."""

import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, cast

import extauth_program
import pytest
import trio
from extauth_program import Config
from structlog.testing import capture_logs

from extauth.backend import Backend, Context
from extauth.errors import BackendDown, ConfigError
from extauth.model import CheckPassword, CreateUser, Identity, Reason, Reject, RemoveUser, Secret, SetPassword, UserExists
from extauth.store import Store
from extauth.threads import Threads
from tests.contract import ACCOUNTS, DOMAIN, ORIGIN, BackendContract, ask, is_yes, login

SCRIPT = Path(__file__).parent / "programs" / "accounts.py"
CONTEXT = Context("old", cast("Store", None), Threads("hash", 1, 1), time.time)

Opener = Callable[..., AbstractAsyncContextManager[Backend]]


@pytest.fixture
def opened(tmp: Path) -> Opener:
    """Give what opens the backend on the script; an argument is handed to the script."""
    file = tmp / "accounts.db"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE account (name TEXT PRIMARY KEY, password TEXT)")
        accounts = {**ACCOUNTS, **dict.fromkeys(("hang", "die", "rubbish", "stray", "leak"), "a fault")}
        database.executemany("INSERT INTO account VALUES (?, ?)", [(f"{n}@{DOMAIN}", p) for n, p in accounts.items()])
    database.close()

    def opened(*arguments: str, **keys: Any) -> AbstractAsyncContextManager[Backend]:  # noqa: ANN401
        command = (sys.executable, "-SI", str(SCRIPT), str(file), *arguments)
        return extauth_program.open(Config(command=command, **keys), CONTEXT)

    return opened


@pytest.fixture
async def backend(opened: Opener) -> AsyncIterator[Backend]:
    """Give a backend that may change accounts."""
    async with opened(allow_changes=True, timeout=30) as backend:
        yield backend


class TestProgram(BackendContract):
    """Everything that the questions of extauth can express."""

    handles = frozenset({CheckPassword, UserExists, SetPassword, CreateUser, RemoveUser})


async def test_changes_have_to_be_allowed(opened: Opener) -> None:
    async with opened() as backend:
        assert backend.handles == {CheckPassword, UserExists}


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ("die", r"ended with status 1; it said: Traceback: the database is gone"),
        ("rubbish", "neither 0 nor 1"),
        ("stray", "neither 0 nor 1"),
    ],
)
async def test_a_script_that_fails_is_an_outage_and_is_started_again(opened: Opener, user: str, problem: str) -> None:
    async with opened(timeout=30) as backend:
        assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")
        with pytest.raises(BackendDown, match=problem):
            await login(backend, user, "a fault")
        with pytest.raises(BackendDown, match=problem):  # not started all the time
            await login(backend, "alice", ACCOUNTS["alice"])
        await recovered(backend)


async def test_a_script_that_hangs_is_an_outage_for_its_question_alone(opened: Opener) -> None:
    async with opened(timeout=1.5) as backend:
        assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")
        async with trio.open_nursery() as nursery:

            async def hang() -> None:
                with pytest.raises(BackendDown, match=r"no answer within 1\.5 s"):
                    await login(backend, "hang", "a fault")

            nursery.start_soon(hang)
            await trio.testing.wait_all_tasks_blocked()
            assert is_yes(await login(backend, "bob", ACCOUNTS["bob"]), "bob")
        for _ in range(3):
            assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")


async def test_an_answer_that_comes_too_late_is_nobody_elses(opened: Opener) -> None:
    async with opened(processes=1, timeout=30) as backend:
        for _ in range(5):
            with trio.move_on_after(0.0005):
                await login(backend, "alice", ACCOUNTS["alice"])
            assert await login(backend, "alice", "wrong") == Reject(Reason.BAD_PASSWORD)


async def test_a_script_killed_while_idle_costs_no_login(opened: Opener) -> None:
    async with opened(processes=1, timeout=30) as backend:
        pids = set[int]()
        for _ in range(3):
            assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")
            (pid,) = children()
            assert pid not in pids
            pids.add(pid)
            os.kill(pid, signal.SIGKILL)
            with trio.fail_after(10):
                while pid in children():
                    await trio.sleep(0.01)


async def test_no_process_is_left_behind(opened: Opener) -> None:
    async with opened(timeout=30) as backend:
        await login(backend, "alice", ACCOUNTS["alice"])
        assert children()
    assert not children()


async def test_what_it_says_is_logged_without_passwords(opened: Opener) -> None:
    with capture_logs() as logs:
        async with opened(timeout=30) as backend:
            await login(backend, "leak", "fake-secret-1")
            await login(backend, "leak", "fake-secret-2")
            with trio.fail_after(10):
                while len(logs) < 4:
                    await trio.sleep(0.01)
    assert {entry["line"] for entry in logs} <= {"checking [password]", "checking"}
    assert "fake-secret" not in str(logs)


async def test_one_that_can_not_start_says_why(opened: Opener) -> None:
    async with opened("die", timeout=30) as backend:
        for _ in range(2):
            with pytest.raises(BackendDown, match="ended with status 1; it said: Traceback: the database is gone"):
                await login(backend, "alice", ACCOUNTS["alice"])


async def test_a_question_that_no_frame_holds_is_refused(opened: Opener) -> None:
    async with opened(timeout=30) as backend:
        assert await login(backend, "alice", "x" * 65535) == Reject(Reason.BAD_PASSWORD)
        assert await ask(backend, UserExists(Identity("a:lice", DOMAIN), ORIGIN)) is None
        assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")


async def test_a_name_can_not_end_before_its_end(opened: Opener) -> None:
    async with opened(timeout=30) as backend:
        forged = CheckPassword(Identity(f"alice:{DOMAIN}:{ACCOUNTS['alice']}", DOMAIN), ORIGIN, Secret("x"))
        assert await ask(backend, forged) is None


@pytest.mark.parametrize("program", ["/nonexistent/script", "/etc", "/etc/passwd"])
async def test_no_program_is_a_mistake_in_the_configuration(program: str) -> None:
    with pytest.raises(ConfigError, match=r"backend\.old\.command: .*no program that may be run"):
        async with extauth_program.open(Config(command=(program,)), CONTEXT):
            pass


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"command": ()}, "command"),
        ({"command": ("script.py",)}, "command: must begin with the absolute path"),
        ({"command": ("/bin/true",), "processes": 0, "timeout": 0}, "processes: must be more than 0', 'timeout"),
    ],
)
def test_what_a_configuration_may_not_say(keys: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Config(**keys)  # type: ignore[arg-type]


async def recovered(backend: Backend) -> None:
    """Wait until logins succeed again."""
    with trio.fail_after(20):
        while True:
            try:
                assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")
            except BackendDown:
                await trio.sleep(0.05)
            else:
                return


def children() -> set[int]:
    """Return the running scripts that this process has started."""
    found = set[int]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid() and str(SCRIPT).encode() in command:
            found.add(int(folder.name))
    return found
