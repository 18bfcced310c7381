"""What `extauth status` tells of backends that are down, of real ones too: a directory and a database that are stopped."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from extauth.daemon import open_service
from extauth.errors import BackendDown
from extauth.journal import Journal
from extauth.layers import watch
from extauth.layers.watch import Condition, Watched
from extauth.model import Accept, CheckPassword, Reason, Reject, UserExists
from extauth.soon import settle
from tests import needs
from tests.certificates import Certificates
from tests.daemons import ERROR, NO, YES, Daemon, configuration, extauth, head, read, with_local_accounts
from tests.fakes import ALICE, ORIGIN, FakeBackend, SlowBackend, check
from tests.servers.postgres import Postgres
from tests.servers.process import poll, temporary_folder
from tests.servers.slapd import Slapd, asking

EXISTS = UserExists(ALICE, ORIGIN)
DOWN = BackendDown("no route")
RIGHT = "fake right"


class Watch:
    """A backend that is watched, by a clock that goes on by one second with every look at it."""

    def __init__(self, backend: FakeBackend) -> None:
        ticks = count(1000)
        self.condition = Condition(lambda: next(ticks))
        self.backend = backend
        self.watched = Watched(backend, self.condition)

    @property
    def told(self) -> tuple[str, float, int, str, float]:
        seen = self.condition
        return seen.state, seen.since, seen.failures, seen.problem, seen.failed


@pytest.mark.parametrize("later", [False, True])
async def test_an_outage_is_noted_from_its_begin_to_its_end(later: bool) -> None:  # noqa: FBT001
    watch = Watch(FakeBackend({UserExists: None}, later=later))

    async def ask(reply: Accept | Reject | BackendDown | None) -> None:
        watch.backend.replies[UserExists] = reply
        if isinstance(reply, BackendDown):
            with pytest.raises(BackendDown, match=str(reply)):
                await settle(watch.watched.answer(EXISTS))
        else:
            assert await settle(watch.watched.answer(EXISTS)) == reply

    assert watch.watched.handles == {UserExists}
    assert watch.told == ("not-asked", 1000, 0, "", 0)
    for _ in range(2):
        await ask(None)
        assert watch.told == ("up", 1001, 0, "", 0)
    await ask(DOWN)
    assert watch.told == ("down", 1002, 1, "no route", 1002)
    await ask(BackendDown("still none"))
    assert watch.told == ("down", 1002, 2, "still none", 1003)
    for reply in (Reject(Reason.NO_USER), Accept(ALICE)):
        await ask(reply)
        assert watch.told == ("up", 1004, 2, "still none", 1003)


async def test_a_bug_says_nothing_of_an_outage() -> None:
    watch = Watch(FakeBackend({UserExists: RuntimeError("a bug")}))
    with pytest.raises(RuntimeError, match="a bug"):
        await settle(watch.watched.answer(EXISTS))
    assert watch.told == ("not-asked", 1000, 0, "", 0)


async def test_a_long_silence_is_an_outage_and_a_short_one_is_not(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "monotonic", autojump_clock.current_time)
    seen = Watch(SlowBackend({CheckPassword: Accept(ALICE)}, seconds=20.0))
    with trio.move_on_after(4.9):
        await settle(seen.watched.answer(check()))
    assert seen.told == ("not-asked", 1000, 0, "", 0)
    with trio.move_on_after(9.0):
        await settle(seen.watched.answer(check()))
    assert seen.told == ("down", 1001, 1, "no answer in 9.0 seconds", 1001)


async def test_what_is_known_outlives_a_reload_that_does_not_concern_the_backend(tmp: Path) -> None:
    settings = read(configuration(tmp))
    async with open_service(settings.daemon, Journal(None)) as service, AsyncExitStack() as stack:
        first = await service.open_generation(settings, stack)
        service.adopt(first)
        for changed, kept in ((configuration(tmp, memory="delay = 2.0"), False), (configuration(tmp), True)):
            generation = await service.open_generation(read(changed), stack)
            assert (generation.layered["people"].condition is first.layered["people"].condition) is kept


# Real ones --------------------------------------------------------------------------------------------------------------------


def status(daemon: Daemon) -> dict[str, Any]:
    """Return what the status says, as JSON."""
    told = extauth("status", "--json", "-c", daemon.config)
    assert told.returncode == 0, told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def lines(daemon: Daemon, begin: str = "") -> list[str]:
    """Return those lines of the status that begin so, less times and what the system says of its error."""
    told = extauth("status", "-c", daemon.config)
    assert told.returncode == 0, told.stderr
    shortened = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", told.stdout)
    return [line for line in shortened.splitlines() if line.startswith(begin)]


@pytest.fixture
def directories(certificates: Certificates, tmp: Path) -> Iterator[tuple[Slapd, Slapd, Daemon]]:
    """Give two directories, and a daemon that asks them with two threads."""
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(Slapd(stack.enter_context(temporary_folder()), certificates, {"alice": RIGHT}))
            for _ in range(2)
        )
        people = f'[backend.people]\n{asking(tmp, certificates, first, second)}threads = 2\n[domain."xmpp.test"]\n'
        text = head(tmp, daemon="hash_threads = 3", ejabberd="deadline = 8.0") + people + 'backends = ["people"]\n'
        yield first, second, stack.enter_context(Daemon(tmp, text))


@needs.debian("slapd")
def test_a_directory(directories: tuple[Slapd, Slapd, Daemon]) -> None:
    first, second, daemon = directories
    threads = "backend people: threads: 0 of 2 busy, 0 requests wait"
    assert lines(daemon, "backend") == ["backend people: ldap, not asked yet", threads]
    assert lines(daemon, "password") == ["password threads: 0 of 3 busy, 0 requests wait"]
    assert daemon.login() == YES
    assert lines(daemon, "backend") == ["backend people: ldap, answers since TIME", threads]

    first.stop()
    assert daemon.login() == YES
    up, server, *_ = lines(daemon, "backend")
    assert up == "backend people: ldap, answers since TIME"
    assert server.startswith(f"backend people: {first.tls_url} is DOWN since TIME: {first.tls_url}: ")
    assert "refused" in server

    second.stop()
    assert daemon.login() == daemon.login("fake wrong") == ERROR
    down, *servers, _ = lines(daemon, "backend")
    assert re.match(r"backend people: ldap, DOWN since TIME \(2 requests not answered\): .*refused", down)
    assert [line.split()[2] for line in servers] == [first.tls_url, second.tls_url]
    told = status(daemon)["conditions"]["people"]
    assert (told["state"], told["failures"], set(told["servers_down"])) == ("down", 2, {first.tls_url, second.tls_url})
    assert RIGHT not in json.dumps(told)

    first.start()
    second.start()
    poll(lambda: daemon.login() == YES, "the directory is asked again")
    poll(lambda: daemon.login() == YES and not status(daemon)["conditions"]["people"]["servers_down"], "both servers are back")
    again = lines(daemon, "backend")
    assert again[0] == "backend people: ldap, answers since TIME"
    assert re.match(r"backend people: did not answer \d+ requests, the last at TIME: .*refused", again[1])


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """Give a server that may be stopped."""
    with temporary_folder() as folder, Postgres(folder) as started:
        yield started


def condition(daemon: Daemon, name: str) -> Callable[[str], bool]:
    """Return what tells whether a backend is in a state."""
    return lambda state: status(daemon)["conditions"][name]["state"] == state


@needs.debian("postgresql")
def test_a_database(tmp: Path, postgres: Postgres) -> None:
    app = f"""\
[backend.app]
type = "postgres"
host = "{postgres.folder}/data"
port = {postgres.port}
database = "site"
user = "extauth"
query = "SELECT 'x' AS password WHERE $user = 'nobody'"
[domain."xmpp.test"]
backends = ["app"]
"""
    with Daemon(tmp, head(tmp, ejabberd="deadline = 8.0") + app) as daemon:
        assert daemon.login() == NO
        assert lines(daemon, "backend") == ["backend app: postgres, answers since TIME"]
        postgres.stop()
        assert daemon.login() == ERROR
        (down,) = lines(daemon, "backend")
        assert re.match(r"backend app: postgres, DOWN since TIME \(1 requests not answered\): PostgreSQL: ", down)
        postgres.start()
        poll(lambda: daemon.login() == NO, "the database is asked again")
        assert condition(daemon, "app")("up")


@needs.debian("postgresql")
def test_the_state_store(tmp: Path, postgres: Postgres) -> None:
    text = with_local_accounts(tmp, ejabberd="deadline = 8.0").replace(f"sqlite://{tmp}/state/state.db", postgres.url)
    with Daemon(tmp, text) as daemon:
        assert daemon.login() == NO
        assert status(daemon)["state_problem"] == ""
        postgres.stop()
        assert daemon.login() == ERROR
        assert condition(daemon, "local")("down")
        assert lines(daemon, "state")[0].startswith("state DOWN: ")
        postgres.start()
        poll(lambda: daemon.login() == NO and not lines(daemon, "state"), "the store answers")
        assert condition(daemon, "local")("up")
