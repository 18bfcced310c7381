"""Generations: what belongs to the one before ends with it, and takes nobody along."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from extauth.backend import Backend, Context
from extauth.daemon import open_service
from extauth.journal import Journal
from tests.backends import memory
from tests.daemons import configuration, read


@pytest.mark.parametrize("when", ["opening", "closing"])
async def test_a_backend_with_a_bug_ends_neither_the_service_nor_the_generation_in_force(
    tmp: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    settings = read(configuration(tmp))
    whole = memory.open

    @asynccontextmanager
    async def broken(config: memory.Config, context: Context) -> AsyncGenerator[Backend, None]:
        if when == "opening":
            raise RuntimeError("a bug in a backend")
        async with whole(config, context) as backend:
            yield backend
        raise RuntimeError("a bug in a backend")

    async with open_service(settings.daemon, Journal(None)) as service, trio.open_nursery() as nursery:
        first = await nursery.start(service.run_generation, settings)
        service.adopt(first)
        monkeypatch.setattr(memory, "open", broken)
        if when == "opening":
            with pytest.raises(RuntimeError):
                await nursery.start(service.run_generation, settings)
            assert service.settings is settings
        else:
            second = await nursery.start(service.run_generation, settings)
            service.adopt(second)
            monkeypatch.setattr(memory, "open", whole)
            service.adopt(await nursery.start(service.run_generation, settings))  # retires the broken one
            await trio.testing.wait_all_tasks_blocked(0.1)
        assert service.only_domain == "xmpp.test"
        nursery.cancel_scope.cancel()
