"""What a store is, whichever database holds it."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

Value = str | int | bytes | None
Row = tuple[Value, ...]
Statement = tuple[str, tuple[Value, ...]]
Results = list[list[Row]]
Hear: TypeAlias = Callable[[str | None], object]

CHANNEL = "extauth"


class Store(Protocol):
    """Where accounts, families, revocations and limits live."""

    def read(self, sql: str, *values: Value) -> list[Row] | Awaitable[list[Row]]:
        """Run one SELECT. The list may be remembered, and is not to be changed: the same list again says that nothing has.

        Raises:
            BackendDown: the database can't answer.
        """
        ...

    async def write(self, *statements: Statement) -> Results:
        """Run a unit of work: all of its statements take effect or none, and it is durable when this returns.

        Returns each statement's RETURNING rows. Who is cancelled meanwhile doesn't know whether it has taken effect.

        Raises:
            BackendDown: the database did not take it, or can't tell whether it did.
        """
        ...


class SharedStore(Store, Protocol):
    """A store as it is opened: other processes may use it, too."""

    def subscribe(self, hear: Hear) -> None:
        """Call `hear`, for as long as the store is open, with every text that is announced by any process that uses it.

        None: something may have been missed; whatever was remembered is not to be trusted any more.
        """
        ...


def announcing(text: str) -> Statement:
    """Return the statement that has `text` heard by all subscribers, once its unit of work is durable."""
    return "SELECT pg_notify($1, $2)", (CHANNEL, text)


def newer_schema(found: int, known: int) -> str:
    """Say why a database is not touched."""
    return f"was written by a newer extauth (schema {found}, this program knows {known})"
