"""A value now, or soon: what can be known at once is returned at once, and only the rest is awaited.

A task switch costs more than most answers do, so `Soon[T]` runs through the whole program: from a store look-up to the reply.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar, Union

T = TypeVar("T")
U = TypeVar("U")

Soon: TypeAlias = Union[T, Awaitable[T]]  # noqa: UP007 - `|` would make a value of it, not an alias


def then(value: Soon[T], use: Callable[[T], Soon[U]]) -> Soon[U]:
    """Return `use(value)`, at once if `value` is known at once."""
    known: Any = value
    if hasattr(known, "__await__"):  # what isinstance(..., Awaitable) finds out, at a third of the time
        return _later(known, use)
    return use(known)


async def _later(value: Awaitable[T], use: Callable[[T], Soon[U]]) -> U:
    return await settle(use(await value))


async def settle(value: Soon[T]) -> T:
    """Wait for `value` if it has to be waited for."""
    known: Any = value
    result: T = await known if hasattr(known, "__await__") else known
    return result
