"""Tasks that run beside a block of code, and end with it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def background(farewell: float = 0.0) -> AsyncGenerator[trio.Nursery, None]:
    """Give a nursery, and at the end of the block `farewell` seconds to its tasks, which are cancelled then.

    What the block raises stays as it is: trio would put it into a group, in which nobody recognizes a ConfigError.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except Exception as error:
            failure = error
        nursery.cancel_scope.deadline = trio.current_time() + farewell
    if failure is not None:
        raise failure
