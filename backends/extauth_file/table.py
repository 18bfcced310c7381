"""The lines of a password file: Dovecot's passwd-file (doc.dovecot.org, "Passwd-file") and Apache's htpasswd.

    user:password:uid:gid:(gecos):home:(shell):extra_fields

Only the first two fields are needed; htpasswd has no more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from extauth.jid import InvalidName, domain_part, local_part
from extauth.model import Identity, Reason
from extauth.passwords.stored import UnsupportedHash, parse

EXTRA = 7  # the place of Dovecot's extra fields

# Extra fields that would let somebody in who has no password, only from some addresses, or under another name.
NOT_UNDERSTOOD = frozenset(
    {"nopassword", "allow_nets", "allow_real_nets", "user", "username", "domain", "login_user", "master"}
)


@dataclass(frozen=True)
class Entry:
    """A user's stored passwords, and why somebody who knows one may not log in all the same."""

    values: tuple[str, ...]
    refusal: Reason | None = None


@dataclass(frozen=True)
class Table:
    """What a file says.

    `entries` are by canonical name, with the domain "" where a line tells none; `problems` are lines that can't be used, by
    number; `hashes` those for which every user has SCRAM keys.
    """

    entries: Mapping[Identity, Entry]
    problems: tuple[str, ...]
    hashes: frozenset[str]

    def find(self, identity: Identity) -> Entry | None:
        """Return the user's entry: that of the very domain before that of any."""
        return self.entries.get(identity) or self.entries.get(Identity(identity.user, ""))


def read(data: bytes, weak: frozenset[str], domain: str = "") -> Table:
    """Read a file. Never fails: what can't be used is among the problems.

    Args:
        data: its bytes.
        weak: the schemes of `passwords.stored.WEAK` that are allowed.
        domain: of the names that don't tell theirs; "": they are of any.
    """
    entries: dict[Identity, Entry] = {}
    problems: list[str] = []
    hashes: frozenset[str] | None = None
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        try:
            name, fields = _split(line, domain)
            if name in entries:
                raise ValueError("the user has a line already")
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        entry, found, problem = _entry(fields, weak)
        if problem:
            problems.append(f"line {number}: {problem}; the user can't log in")
        entries[name] = entry
        hashes = found if hashes is None else hashes & found
    return Table(entries, tuple(problems), hashes or frozenset())


def _split(line: bytes, domain: str) -> tuple[Identity, list[str]]:
    """Return the user's name and the fields.

    Raises:
        ValueError: it has none. The message holds nothing of the line.
    """
    try:
        user, *fields = line.decode().split(":", EXTRA)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    if not fields:
        raise ValueError("no colon")
    local, at, of = user.partition("@")
    try:
        return Identity(local_part(local), domain_part(of) if at else domain), fields
    except InvalidName as error:
        raise ValueError(f"not a valid name: {error}") from None


def _entry(fields: list[str], weak: frozenset[str]) -> tuple[Entry, frozenset[str], str]:
    """Return the entry, the hashes it has SCRAM keys for, and why nobody can log in by it, if so."""
    extra = {word.partition("=")[0] for word in fields[EXTRA - 1].split()} if len(fields) == EXTRA else set[str]()
    if refused := sorted(extra & NOT_UNDERSTOOD):
        return Entry(()), frozenset(), f"the extra field {refused[0]} is not understood"
    try:
        stored = parse(fields[0], weak)
    except UnsupportedHash as error:
        return Entry((fields[0],)), frozenset(), str(error)
    found = frozenset(entry.hash.value for entry in stored.scram)
    return Entry((fields[0],), Reason.DISABLED if "nologin" in extra else None), found, ""


def told(problems: Iterable[str], most: int) -> list[str]:
    """Return at most that many of the problems, and how many there are beyond them."""
    listed = list(problems)
    more = [f"and {len(listed) - most} more"] if len(listed) > most else []
    return listed[:most] + more
