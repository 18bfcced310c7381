"""Which groups an entry is in: as it says itself (memberOf) or by a search for who names it, with the groups of groups."""

from collections.abc import Callable
from typing import Literal

from extauth_ldap.servers import Purpose, Servers
from extauth_ldap.templates import filter_value
from extauth_ldap.wire import Connection, Entry

MOST_GROUPS = 1000  # of one user, beyond which no further ones are looked for

Source = Literal["memberOf", "search"]


class Groups:
    """Finds groups. `base` is where groups are searched for, `member_attribute` what names their members there."""

    def __init__(self, servers: Servers, source: Source, base: str, member_attribute: str, *, nested: bool) -> None:
        self._servers = servers
        self._nested = nested
        self._base = base
        self._member_attribute = member_attribute
        self._parents: Callable[[str, float], list[str]] = self._named_by if source == "memberOf" else self._searched

    def of(self, entry: Entry, deadline: float) -> frozenset[str]:
        """Return the names of all groups of an entry, each as `normal` makes it.

        Raises:
            BackendDown: it can't be told.
        """
        seen: set[str] = set()
        waiting = self._parents(entry.dn, deadline)
        while waiting and len(seen) < MOST_GROUPS:
            group = waiting.pop()
            if normal(group) not in seen:  # groups may be members of each other
                seen.add(normal(group))
                if self._nested:
                    waiting += self._parents(group, deadline)
        return frozenset(seen)

    def _named_by(self, dn: str, deadline: float) -> list[str]:
        def read(connection: Connection, until: float) -> list[Entry]:
            return connection.search(dn, "(objectClass=*)", ["memberOf"], until, one=True)

        entries = self._servers.run(Purpose.SEARCH, read, deadline)
        return [group for entry in entries for group in entry.attributes.get("memberof", ())]

    def _searched(self, dn: str, deadline: float) -> list[str]:
        def search(connection: Connection, until: float) -> list[Entry]:
            return connection.search(self._base, f"({self._member_attribute}={filter_value(dn)})", [], until)

        return [entry.dn for entry in self._servers.run(Purpose.SEARCH, search, deadline)]


def normal(dn: str) -> str:
    """Return a distinguished name so that equal ones of one directory are the same text: without blanks around `,` and `=`."""
    pieces = dn.casefold().split(",")
    return ",".join("=".join(part.strip() for part in piece.split("=", 1)) for piece in pieces)
