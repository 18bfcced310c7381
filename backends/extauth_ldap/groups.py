"""Which groups an entry is in: as it says itself (memberOf) or by a search for who names it, with the groups of groups."""

from collections.abc import Callable
from typing import Literal

from extauth_ldap.templates import filter_value
from extauth_ldap.tree import Found, Tree

MOST_GROUPS = 1000  # of one user, beyond which no further ones are looked for

Source = Literal["memberOf", "search", "in-chain"]
_IN_CHAIN = ":1.2.840.113556.1.4.1941:"  # Active Directory's rule for members of members ([MS-ADTS] 3.1.1.3.4.4.3)


class Groups:
    """Finds groups. `base` is where groups are searched for, `member_attribute` what names their members there."""

    def __init__(self, tree: Tree, source: Source, base: str, member_attribute: str, *, nested: bool) -> None:
        self._tree = tree
        self._nested = nested
        self._base = base
        self._assertion = member_attribute + (_IN_CHAIN if source == "in-chain" else "")
        self._parents: Callable[[str, Found, float], list[str]] = self._named_by if source == "memberOf" else self._searched

    def of(self, user: Found, deadline: float) -> frozenset[str]:
        """Return the names of all groups of an entry, each as `normal` makes it.

        Raises:
            BackendDown: it can't be told.
        """
        seen: set[str] = set()
        waiting = self._parents(user.entry.dn, user, deadline)
        while waiting and len(seen) < MOST_GROUPS:
            group = waiting.pop()
            if normal(group) not in seen:  # groups may be members of each other
                seen.add(normal(group))
                if self._nested:
                    waiting += self._parents(group, user, deadline)
        return frozenset(seen)

    def _named_by(self, dn: str, user: Found, deadline: float) -> list[str]:
        found = self._tree.search(dn, "(objectClass=*)", ["memberOf"], deadline, one=True, home=user.home)
        return [group for member, _ in found for group in member.attributes.get("memberof", ())]

    def _searched(self, dn: str, user: Found, deadline: float) -> list[str]:
        filter_ = f"({self._assertion}={filter_value(dn)})"
        return [group.dn for group, _ in self._tree.search(self._base, filter_, [], deadline, home=user.home)]


def normal(dn: str) -> str:
    """Return a distinguished name so that equal ones of one directory are the same text: without blanks around `,` and `=`."""
    pieces = dn.casefold().split(",")
    return ",".join("=".join(part.strip() for part in piece.split("=", 1)) for piece in pieces)
