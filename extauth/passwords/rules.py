"""Which passwords may be set: a length and a list of known bad ones, no rules of composition (NIST SP 800-63B section 5)."""

from msgspec import Struct

from extauth.model import Reason
from extauth.passwords.prepare import for_storing


class Rules(Struct, frozen=True):
    """The rules of one backend. Lengths are counted in code points of the prepared password."""

    min_length: int
    max_length: int
    blocked: frozenset[str]

    def judge(self, password: str) -> str | Reason:
        """Return the password prepared for storing, or why it may not be set."""
        if len(password) > self.max_length:  # before it is prepared, which takes its time
            return Reason.PASSWORD_TOO_LONG
        prepared = for_storing(password)
        if prepared is None:
            return Reason.MALFORMED
        if len(prepared) > self.max_length:
            return Reason.PASSWORD_TOO_LONG
        if len(prepared) < self.min_length:
            return Reason.PASSWORD_TOO_SHORT
        if prepared.casefold() in self.blocked:
            return Reason.PASSWORD_COMMON
        return prepared
