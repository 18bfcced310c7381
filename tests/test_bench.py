"""The load generator of the measurements: a wrong answer must not count as an answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import servers
from bench.generator import Generator, Load
from tests import needs
from tests.servers.process import temporary_folder

pytestmark = needs.debian("bench")


@pytest.fixture(scope="module")
def bare() -> Iterator[tuple[Generator, servers.Process]]:
    """Give a generator, and a server that knows a thousand accounts."""
    with temporary_folder() as folder:
        servers.configure(folder, "")
        with servers.bare(folder) as server:
            yield Generator(folder, 1.0), server


def test_right_answers_are_counted(bare: tuple[Generator, servers.Process]) -> None:
    generator, server = bare
    measured = generator.run(Load("ejabberd", 8, 1000, servers.PLAIN), server, server.socket)
    assert measured.rate > 0


def test_a_wrong_answer_is_an_error(bare: tuple[Generator, servers.Process]) -> None:
    generator, server = bare
    with pytest.raises(RuntimeError, match=r'"wrong_answers":[1-9]'):
        generator.run(Load("ejabberd", 8, 1000, servers.PLAIN, users=2000), server, server.socket)


def test_a_server_that_is_not_there_is_an_error(bare: tuple[Generator, servers.Process], tmp_path: Path) -> None:
    generator, server = bare
    with pytest.raises(RuntimeError):
        generator.run(Load("ejabberd", 1, 10, servers.PLAIN), server, tmp_path / "nobody")
