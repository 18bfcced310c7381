"""Backend `saslauthd`: the contract on a real saslauthd and a real directory, and what else it may say or not say."""

import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

import extauth_saslauthd
import pytest
import trio
from extauth_saslauthd import Config
from hypothesis import given
from hypothesis import strategies as st

from extauth.backend import Backend, Context
from extauth.errors import BackendDown
from extauth.model import CheckPassword, Identity, Reason, Reject, Secret
from extauth.store import Store
from extauth.threads import Threads
from tests import needs
from tests.certificates import Certificates
from tests.contract import ACCOUNTS, ALICE, ORIGIN, STRANGERS, BackendContract, ask, is_yes, login
from tests.servers.process import temporary_folder
from tests.servers.saslauthd import Saslauthd
from tests.servers.slapd import Slapd

CONTEXT = Context("unix", cast("Store", None), Threads("hash", 1, 1), time.time)
SHORT = {user: password for user, password in ACCOUNTS.items() if len(password) <= 100}  # its LDAP module takes no longer ones
REFUSED = Reject(Reason.BAD_PASSWORD)


@pytest.fixture
def server(tmp: Path, certificates: Certificates) -> Iterator[Saslauthd]:
    """Give a saslauthd with the contract's accounts."""
    (tmp / "slapd").mkdir()
    with Slapd(tmp / "slapd", certificates, ACCOUNTS) as directory, Saslauthd(tmp, directory) as server:
        yield server


@pytest.fixture
async def backend(server: Saslauthd) -> AsyncIterator[Backend]:
    """Give a backend that asks it."""
    async with extauth_saslauthd.open(Config(path=str(server.path)), CONTEXT) as opened:
        yield opened


@needs.debian("saslauthd")
@needs.debian("slapd")
class TestSaslauthd(BackendContract):
    """It can't tell a stranger from a wrong password."""

    handles = frozenset({CheckPassword})

    @pytest.mark.parametrize(("user", "password"), SHORT.items(), ids=SHORT)
    async def test_the_right_password_is_accepted(self, backend: Backend, user: str, password: str) -> None:
        await super().test_the_right_password_is_accepted(backend, user, password)

    @pytest.mark.parametrize("stranger", STRANGERS, ids=lambda stranger: str(stranger)[-20:])
    async def test_a_stranger_is_unknown(self, backend: Backend, stranger: Identity) -> None:
        assert await ask(backend, CheckPassword(stranger, ORIGIN, Secret(ACCOUNTS["alice"]))) == REFUSED
        assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")

    async def test_what_it_would_cut_short_is_refused(self, backend: Backend) -> None:
        assert await login(backend, "alice", ACCOUNTS["alice"] + "\0x") == REFUSED
        assert await login(backend, "alice", "x" * 257) == REFUSED
        assert await login(backend, "alice\0", ACCOUNTS["alice"]) == REFUSED

    async def test_a_stopped_one_is_an_outage_until_it_is_back(self, backend: Backend, server: Saslauthd) -> None:
        await trio.to_thread.run_sync(server.stop)
        with pytest.raises(BackendDown, match="mux"):
            await login(backend, "alice", ACCOUNTS["alice"])
        await trio.to_thread.run_sync(server.start)
        assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")


@needs.debian("saslauthd")
@needs.debian("slapd")
async def test_one_that_hangs_is_an_outage(tmp: Path, certificates: Certificates) -> None:
    (tmp / "slapd").mkdir()
    directory = Slapd(tmp / "slapd", certificates, ACCOUNTS)
    with directory, Saslauthd(tmp, directory) as server:
        async with extauth_saslauthd.open(Config(path=str(server.path), timeout=0.5), CONTEXT) as backend:
            os.kill(directory.pid, signal.SIGSTOP)
            try:
                with pytest.raises(BackendDown, match=r"no answer within 0\.5 s"):
                    await login(backend, "alice", ACCOUNTS["alice"])
            finally:
                os.kill(directory.pid, signal.SIGCONT)


# What a real one can't be made to say

Peer = Callable[[trio.SocketStream], Awaitable[None]]


async def asked(tmp: Path, answer: bytes) -> object:
    """Return what the backend makes of `answer`, sent in two parts; "down" for an outage."""

    async def speak(stream: trio.SocketStream) -> None:
        await stream.receive_some(4096)
        for part in (answer[:1], answer[1:]):
            if part:
                await stream.send_all(part)
        await stream.aclose()

    path = tmp / "mux"
    path.unlink(missing_ok=True)
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, speak, [trio.SocketListener(listening)])
        async with extauth_saslauthd.open(Config(path=str(path), timeout=5), CONTEXT) as backend:
            try:
                return await login(backend, "alice", "whatever it is")
            except BackendDown:
                return "down"
            finally:
                nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (b"\x00\x02OK", "yes"),
        (b"\x00\x07OK fine", "yes"),
        (b"\x00\x02NO", REFUSED),
        (b"\x00\x1aNO authentication failed..", REFUSED),
        (b"", "down"),
        (b"\x00", "down"),
        (b"\x00\x00", "down"),
        (b"\x00\x02O", "down"),
        (b"\x00\x02OK\n", "down"),
        (b"\x00\x02ok", "down"),
        (b"OK", "down"),
        (b"\x07\xd0OK" + b" " * 1998, "down"),
    ],
)
async def test_what_an_answer_means(tmp: Path, answer: bytes, meaning: object) -> None:
    found = await asked(tmp, answer)
    assert is_yes(found, "alice") if meaning == "yes" else found == meaning  # type: ignore[arg-type]


@given(answer=st.binary(max_size=40).filter(lambda data: data[2:4] not in (b"OK", b"NO")))
def test_garbage_is_an_outage(answer: bytes) -> None:
    with temporary_folder() as folder:
        assert trio.run(asked, folder, answer) == "down"


async def test_a_password_that_is_cancelled_frees_its_place(tmp: Path) -> None:
    path = tmp / "mux"
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen()
    async with extauth_saslauthd.open(Config(path=str(path), connections=1, timeout=60), CONTEXT) as backend:
        for _ in range(3):
            with trio.move_on_after(0.05) as scope:
                await ask(backend, CheckPassword(ALICE, ORIGIN, Secret("x")))
            assert scope.cancelled_caught
            connection, _ = await listening.accept()
            connection.close()
    listening.close()


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"path": "mux"}, "path: must be absolute"),
        ({"service": ""}, "service"),
        ({"connections": 0, "timeout": 0}, "connections: must be more than 0', 'timeout"),
    ],
)
def test_what_a_configuration_may_not_say(keys: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Config(**keys)  # type: ignore[arg-type]
