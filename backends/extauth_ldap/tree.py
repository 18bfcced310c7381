"""The entries of a directory wherever they are: on its servers, or on those that its referrals lead to.

A referral (RFC 4511 section 4.1.10) is followed only to a host that the configuration names, and in the way it says: with its
encryption and port, whatever the referral's URL holds. So no password goes where the administrator did not send it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from extauth.errors import BackendDown
from extauth.model import Secret
from extauth_ldap.answers import NO_SUCH_OBJECT, REFERRAL, SIZE_LIMIT_EXCEEDED, SUCCESS, Entry, Outcome
from extauth_ldap.servers import Purpose, Servers
from extauth_ldap.wire import Connection

HOPS = 3  # referrals in a row

Act = Callable[[Connection, str, float], Outcome]
"""Does something to the entry of a name, by a deadline."""


class Found(NamedTuple):
    """An entry and the servers that have it: they are asked what follows of it."""

    entry: Entry
    home: Servers


class _Query(NamedTuple):
    base: str
    filter: str
    attributes: Sequence[str]
    one: bool


class Tree:
    """A directory. `others` are the servers that referrals may lead to, by host name in lower case."""

    def __init__(self, servers: Servers, others: Mapping[str, Servers]) -> None:
        self.servers = servers
        self._others = others

    def search(
        self,
        base: str,
        filter_: str,
        attributes: Sequence[str],
        deadline: float,
        *,
        one: bool = False,
        home: Servers | None = None,
    ) -> list[Found]:
        """Return the entries below `base`, or with `one` that entry alone; none if there is no such base.

        Raises:
            BackendDown: it can't be told.
        """
        return self._search(home or self.servers, _Query(base, filter_, attributes, one), deadline, HOPS)

    def _search(self, servers: Servers, query: _Query, deadline: float, hops: int) -> list[Found]:
        answered = servers.run(Purpose.SEARCH, lambda connection, until: connection.search(*query, until), deadline)
        outcome = answered.outcome
        found = [Found(entry, servers) for entry in answered.entries]
        if outcome.code == NO_SUCH_OBJECT:
            return []
        if outcome.code == SIZE_LIMIT_EXCEEDED and len(found) > 1:
            return found
        if outcome.code == REFERRAL:
            there, base = self._follow(outcome.referrals, query.base, hops)
            return self._search(there, query._replace(base=base), deadline, hops - 1)
        if outcome.code != SUCCESS:
            raise BackendDown(f"search refused: {outcome.name}")
        for urls in answered.references:
            place = self._place(urls, query.base)
            if place is not None and hops:  # else: a part of the tree that isn't ours to search
                found += self._search(place[0], query._replace(base=place[1]), deadline, hops - 1)
        return found

    def bind(self, dn: str, password: Secret, deadline: float, *, home: Servers | None = None) -> Outcome:
        """Try a password."""

        def bind(connection: Connection, dn: str, until: float) -> Outcome:
            return connection.bind(dn, password, until)

        return self._act(Purpose.BIND, home or self.servers, dn, bind, deadline, HOPS)

    def change(self, found: Found, call: Act, deadline: float) -> Outcome:
        """Change an entry, as the searching account."""
        return self._act(Purpose.SEARCH, found.home, found.entry.dn, call, deadline, HOPS)

    def _act(self, purpose: Purpose, servers: Servers, dn: str, call: Act, deadline: float, hops: int) -> Outcome:
        outcome = servers.run(purpose, lambda connection, until: call(connection, dn, until), deadline)
        if outcome.code != REFERRAL:
            return outcome
        there, dn = self._follow(outcome.referrals, dn, hops)
        return self._act(purpose, there, dn, call, deadline, hops - 1)

    def _follow(self, urls: Sequence[str], dn: str, hops: int) -> tuple[Servers, str]:
        place = self._place(urls, dn) if hops else None
        if place is None:
            raise BackendDown(f"referred to {' '.join(urls) or 'nowhere'}, which is not followed")
        return place

    def _place(self, urls: Sequence[str], dn: str) -> tuple[Servers, str] | None:
        """Return where the first URL leads to that may be followed, and the name that the entry has there (RFC 4516)."""
        for url in urls:
            try:
                parts = urlsplit(url)
                host = parts.hostname or ""
            except ValueError:
                continue
            if parts.scheme in ("ldap", "ldaps") and host in self._others:
                return self._others[host], unquote(parts.path.removeprefix("/")) or dn
        return None
