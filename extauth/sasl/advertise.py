"""Which mechanisms a domain and a stream are offered, and whom a choice would lock out.

Web clients take the strongest mechanism that they know and do not fall back when it fails; Strophe.js 5 also tries a token
that it does not have. So a mechanism is offered only where everybody who would choose it can succeed.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from extauth.model import Anonymous, CheckCertificate, CheckPassword, CheckToken, FindHashedTokens, FindKeys, Request
from extauth.sasl.certificate import accounts
from extauth.sasl.mechanism import Mechanism, Options, Stream

_KINDS: Mapping[type[Request], str] = {
    CheckPassword: "passwords",
    FindKeys: "SCRAM keys",
    CheckToken: "bearer tokens",
    FindHashedTokens: "FAST tokens",
    CheckCertificate: "certificates",
    Anonymous: "anonymous logins",
}


class Holder(Struct, frozen=True):
    """A backend of a domain: its name, the requests it can answer, and the hashes it has SCRAM keys for (None: all).

    `keyring`: it makes or finds its SCRAM keys in the state store, where those of app passwords are.
    """

    name: str
    handles: frozenset[type[Request]]
    hashes: frozenset[str] | None = None
    keyring: bool = False

    @property
    def holds_passwords(self) -> bool:
        """Whether people log in by passwords it holds. What takes tokens takes them in a password's place, too."""
        return CheckPassword in self.handles and CheckToken not in self.handles

    def serves(self, mechanism: Mechanism) -> bool:
        """Tell whether its users can log in by this mechanism."""
        return mechanism.needs in self.handles and (not mechanism.hash or self.hashes is None or mechanism.hash in self.hashes)


class Offer(Struct, frozen=True):
    """The names for a stream: SASL mechanisms, and beside them those for the list of XEP-0484."""

    mechanisms: tuple[str, ...]
    fast: tuple[str, ...]


class Repertoire(Struct, frozen=True):
    """The mechanisms of a domain, in the order in which they are advertised. `chosen`: by its configuration."""

    mechanisms: tuple[Mechanism, ...]
    chosen: bool

    @property
    def names(self) -> frozenset[str]:
        """Their names: what an `Exchange` of this domain may run, if it fits the stream."""
        return frozenset(mechanism.name for mechanism in self.mechanisms)

    def offer(self, stream: Stream, options: Options) -> Offer:
        """Return what a stream is offered.

        A client certificate that names an account gets EXTERNAL alone, unless the configuration chooses: a page that logs in by
        it has no password, and would take SCRAM or PLAIN if it saw them.
        """
        named = stream.certified and bool(accounts(stream, options))
        fitting = [m for m in self.mechanisms if m.fits(stream) and (named or not m.certificate)]
        if not self.chosen:
            fitting = [m for m in fitting if m.certificate] or fitting
        return Offer(tuple(m.name for m in fitting if not m.fast), tuple(m.name for m in fitting if m.fast))


def repertoire(
    holders: Sequence[Holder], mechanisms: Mapping[str, Mechanism], chosen: Sequence[str] | None = None
) -> Repertoire:
    """Return the mechanisms of a domain with these backends; those named by `chosen` (None: not configured) instead of ours."""
    served = {m.name: m for m in mechanisms.values() if any(holder.serves(m) for holder in holders)}
    if chosen is not None:
        return Repertoire(tuple(served[name] for name in chosen if name in served), chosen=True)
    anonymous = tuple(m for m in served.values() if m.needs is Anonymous)
    if anonymous:
        return Repertoire(anonymous, chosen=False)
    return Repertoire(tuple(m for m in served.values() if not _without_keys(m, holders)), chosen=False)


def problems(
    domain: str, holders: Sequence[Holder], mechanisms: Mapping[str, Mechanism], chosen: Sequence[str] | None = None
) -> list[str]:
    """Return what is wrong with what a domain advertises, in words: whom it would lock out, and why."""
    found = repertoire(holders, mechanisms, chosen)
    offered = found.mechanisms
    told = _misplaced(holders)
    for name in chosen or ():
        if name in mechanisms and name not in found.names:
            told.append(f"{name} can't work: no backend of the domain answers for {_kind(mechanisms[name])}")
    if not offered:
        told.append("nobody can log in by SASL: there is no mechanism to advertise")
        return _about(domain, told)

    strongest = max(offered, key=lambda m: m.priority if m.needs is FindKeys else -1)
    told += [
        f"the users of backend {holder.name!r} are locked out: clients take {strongest.name}, the strongest, "
        f"and the backend has no keys for it"
        for holder in _without_keys(strongest, holders)
    ]
    if strongest.needs is FindKeys:
        # App passwords have keys beside those of passwords, if these are in the state store; no token of others has any.
        together = all(holder.keyring for holder in holders if FindKeys in holder.handles)
        told += [
            f"what backend {holder.name!r} takes in a password's place is refused from clients that prefer {strongest.name} "
            "to PLAIN: there are no keys of it. Have those clients use OAUTHBEARER or X-OAUTH2 for it, or offer no SCRAM: "
            'mechanisms = ["PLAIN", "OAUTHBEARER", ...] in the table of the domain'
            for holder in holders
            if {CheckPassword, CheckToken} <= holder.handles and not (holder.keyring and together)
        ]
    for holder in holders:
        kinds = sorted(_KINDS.get(need, need.operation) for need in _needs(mechanisms) & holder.handles)
        if kinds and not any(holder.serves(m) for m in offered):
            told.append(f"the users of backend {holder.name!r} ({', '.join(kinds)}) are locked out: no mechanism is for them")
    needs = {m.needs for m in offered}
    if Anonymous in needs and CheckToken in needs:
        told.append("web clients without a password take OAUTHBEARER or X-OAUTH2 before ANONYMOUS: guests need another domain")
    if CheckCertificate in needs and found.chosen and needs & {CheckPassword, FindKeys}:
        told.append("web pages that log in by certificate take SCRAM or PLAIN if they see it: they must ask for EXTERNAL")
    return _about(domain, told)


def _misplaced(holders: Sequence[Holder]) -> list[str]:
    """Name the backends for tokens that stand after one for passwords: it would be shown the tokens first."""
    told: list[str] = []
    before = ""
    for holder in holders:
        if holder.holds_passwords:
            before = before or holder.name
        elif before and {CheckPassword, CheckToken} <= holder.handles:
            told.append(
                f"backend {holder.name!r} stands after {before!r}, which is shown tokens that clients send as passwords, "
                "and refuses them: tokens first, directory last"
            )
    return told


def _about(domain: str, told: list[str]) -> list[str]:
    return [f"domain {domain!r}: {words}" for words in told]


def _without_keys(mechanism: Mechanism, holders: Sequence[Holder]) -> list[Holder]:
    """Return the backends whose users have passwords but no keys for this mechanism, if it needs keys."""
    if mechanism.needs is not FindKeys:
        return []
    return [holder for holder in holders if holder.holds_passwords and not holder.serves(mechanism)]


def _needs(mechanisms: Mapping[str, Mechanism]) -> frozenset[type[Request]]:
    return frozenset(mechanism.needs for mechanism in mechanisms.values())


def _kind(mechanism: Mechanism) -> str:
    return _KINDS.get(mechanism.needs, mechanism.needs.operation) + (f" of {mechanism.hash}" if mechanism.hash else "")
