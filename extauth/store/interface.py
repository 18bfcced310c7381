"""What a store is, whichever database holds it."""

from collections.abc import Awaitable
from typing import Protocol

Value = str | int | bytes | None
Row = tuple[Value, ...]
Statement = tuple[str, tuple[Value, ...]]
Results = list[list[Row]]


class Store(Protocol):
    """Where accounts, families, revocations and limits live."""

    def read(self, sql: str, *values: Value) -> list[Row] | Awaitable[list[Row]]:
        """Run one SELECT.

        Raises:
            BackendDown: the database can't answer.
        """
        ...

    async def write(self, *statements: Statement) -> Results:
        """Run a unit of work: all of its statements take effect or none, and it is durable when this returns.

        Returns each statement's RETURNING rows.

        Raises:
            BackendDown: the database can't tell, or did not take it.
        """
        ...
