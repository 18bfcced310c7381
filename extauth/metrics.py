"""Counters: plain integers, touched once per decision."""

from collections import Counter
from typing import NamedTuple


class Outcome(NamedTuple):
    """What a decision is counted under; never a user's name."""

    listener: str
    operation: str
    result: str
    reason: str


class Metrics:
    """What the daemon has counted since it started."""

    def __init__(self) -> None:
        self.decisions: Counter[tuple[str, str, str, str]] = Counter()
        self.reloads = 0
        self.failed_reloads = 0

    def outcomes(self) -> list[tuple[Outcome, int]]:
        """Return the decisions by what they are counted under, in order."""
        return [(Outcome(*key), count) for key, count in sorted(self.decisions.items())]
