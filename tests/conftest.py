"""What all tests share."""

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import needs
from tests.certificates import Certificates, make_certificates
from tests.servers.mariadb import MariaDb
from tests.servers.postgres import Postgres
from tests.servers.process import temporary_folder
from tests.xmppclient import XmppClient

# A loaded machine is slow, not wrong: examples have no deadline. `make fuzz` takes the second profile.
settings.register_profile("quick", deadline=None, max_examples=100, derandomize=True, database=None)
settings.register_profile("fuzz", deadline=None, max_examples=20_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_configure(config: pytest.Config) -> None:
    """Declare our marks."""
    config.addinivalue_line("markers", "proof: storms, soaks and crash series; run by `make proof` alone")
    config.addinivalue_line("markers", "asks(kinds): asks a backend for these kinds of request; see tests/contract.py")
    config.addinivalue_line("markers", "needs(problem): needs something outside Python; see tests/needs.py")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or where CI=true fail, a test whose needs are not met."""
    for mark in item.iter_markers("needs"):
        problem = mark.args[0]
        if problem is not None:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(problem)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with servers first: they take longest, and one at the end would run while other processes idle."""
    slow = {item.path for item in items if item.get_closest_marker("needs")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have one process more than there are processors, since some wait for the servers that they have started."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """Put back the process's umask, which `extauth serve` sets: other servers' files would be closed to them."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture
def tmp() -> Iterator[Path]:
    """Give an empty folder with a path short enough for Unix sockets."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def certificates() -> Iterator[Certificates]:
    """Give a certificate authority, and a server certificate for xmpp.test and the hosts below it."""
    with temporary_folder() as folder:
        yield make_certificates(folder, ["xmpp.test", "*.xmpp.test"])


@pytest.fixture(scope="session")
def xmpp(certificates: Certificates) -> Iterator[XmppClient]:
    """Give an XMPP client that trusts `certificates`."""
    with XmppClient(certificates.ca) as client:
        yield client


@pytest.fixture(scope="session")
def mariadb(certificates: Certificates) -> Iterator[MariaDb]:
    """Give a MariaDB that all tests share; who uses it empties it first."""
    with temporary_folder() as folder, MariaDb(folder, certificates) as server:
        yield server


@pytest.fixture(scope="session")
def postgres(certificates: Certificates) -> Iterator[Postgres]:
    """Give a PostgreSQL that all tests share; who uses it empties it first."""
    with temporary_folder() as folder, Postgres(folder, certificates) as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=needs.debian("postgresql"))])
def new_state(request: pytest.FixtureRequest, tmp: Path) -> Callable[[], str]:
    """Give a function that returns the address of an empty state store; the one before is gone. Of each kind in turn."""
    if request.param == "sqlite":
        numbers = count()
        return lambda: f"sqlite://{tmp}/state{next(numbers) or ''}/state.db"
    server: Postgres = request.getfixturevalue("postgres")

    def emptied() -> str:
        server.empty()
        return server.url

    return emptied


@pytest.fixture
def state(new_state: Callable[[], str]) -> str:
    """Give the address of an empty state store, of each kind in turn."""
    return new_state()


@pytest.fixture
def tell(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Give a function that prints a figure, in a proof only; docs/proof.md keeps them."""

    def tell(figure: str) -> None:
        if request.node.get_closest_marker("proof"):
            with capsys.disabled():
                print(f"\n  {figure}", end="")  # noqa: T201

    return tell
