"""Counters: plain integers, touched once per decision."""

from collections import defaultdict
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
        self.decisions: defaultdict[tuple[str, str, str, str], int] = defaultdict(int)  # a Counter takes twice as long
        self.reloads = 0
        self.failed_reloads = 0

    def outcomes(self) -> list[tuple[Outcome, int]]:
        """Return the decisions by what they are counted under, in order."""
        return [(Outcome(*key), count) for key, count in sorted(self.decisions.items())]
