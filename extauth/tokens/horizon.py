"""What a revocation leaves of tokens that neither belong to a family nor say when they were issued."""

from typing import NamedTuple


class Horizon(NamedTuple):
    """A user's sequence number (as MongooseIM's), and the revocations that concern the user.

    Each of `marks` is one, of the user or the domain: its time (ms), and the longest lifetime that an access token could have
    then (seconds).
    """

    number: int
    marks: tuple[tuple[int, int], ...]

    def voids(self, at: int, lifetime: int) -> bool:
        """Tell whether an access token is void that was issued `at` (ms) if it had this lifetime (seconds), else earlier."""
        return any(at - 1000 * max(0, longest - lifetime) <= not_before for not_before, longest in self.marks)
