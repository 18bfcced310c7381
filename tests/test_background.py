"""Tasks beside a block of code."""

from pathlib import Path

import pytest
import trio
import trio.testing

from extauth.background import background
from extauth.daemon import open_without_listeners
from extauth.errors import ConfigError
from tests.daemons import head, read


async def test_what_the_block_raises_stays_as_it_is() -> None:
    async def fail() -> None:
        async with background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise ConfigError(["wrong"])

    with pytest.raises(ConfigError, match="wrong"):
        await fail()


async def test_tasks_have_a_farewell_and_are_cancelled_then(autojump_clock: trio.testing.MockClock) -> None:
    ended: list[str] = []

    async def work(name: str, seconds: float) -> None:
        await trio.sleep(seconds)
        ended.append(name)

    async with background(2.0) as nursery:
        nursery.start_soon(work, "quick", 1.0)
        nursery.start_soon(work, "slow", 3.0)
    assert ended == ["quick"]


async def test_a_backend_with_tasks_hides_no_problem_of_another(tmp: Path) -> None:
    text = f"""\
{head(tmp)}[backend.script]
type = "program"
command = ["/bin/true"]
[backend.wrong]
type = "program"
command = ["/nonexistent"]
[domain."xmpp.test"]
backends = ["script", "wrong"]
"""
    with pytest.raises(ConfigError, match="wrong"):
        async with open_without_listeners(read(text)):
            pass
