"""What listeners hold: it asks the authority of a domain, and it outlives reloads by generations of the configuration."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

import structlog
import trio

from extauth import plugins
from extauth.authority import Authority, record
from extauth.backend import Context
from extauth.changes import Knowledge, Member, knowing, standing
from extauth.court import Court
from extauth.errors import ConfigError
from extauth.issuing import IssueTokens
from extauth.jid import local_part
from extauth.journal import Journal
from extauth.keystore import Keystore
from extauth.layers.cache import Remembered
from extauth.layers.compose import Layered, surround, with_record
from extauth.layers.seen import Seen
from extauth.layers.shared import Caches
from extauth.metrics import Metrics
from extauth.model import Anonymous, Identity, Origin, Reason, Reject, Request, Verdict
from extauth.passwords.scram import ADVISED_ITERATIONS
from extauth.purge import purge
from extauth.revocation import Revocations
from extauth.sasl.advertise import Holder, Offer, Repertoire, problems, repertoire
from extauth.sasl.exchange import Exchange, Terms, terms
from extauth.sasl.mechanism import Mechanism, Options, Stream
from extauth.sasl.registry import find as find_mechanisms
from extauth.settings import BackendTable, Domain, Settings
from extauth.soon import Soon
from extauth.store import SharedStore, Store
from extauth.threads import Threads
from extauth.throttle import Throttle
from extauth.tokens import grant as grants


@dataclass(frozen=True)
class Surroundings:
    """What every generation shares. `now` is Unix time in seconds."""

    store: SharedStore
    journal: Journal
    metrics: Metrics
    throttle: Throttle | None  # None: nothing is limited
    hashing: Threads
    revocations: Revocations
    now: Callable[[], float]
    decoy_key: bytes = field(repr=False)  # what the salts of unknown users are derived from
    grant_key: bytes = field(repr=False)  # what proofs of logins are made with


_log = structlog.get_logger("service")


class Sasl(NamedTuple):
    """How the users of a domain log in by SASL."""

    holders: list[Holder]
    repertoire: Repertoire
    names: frozenset[str]
    options: Options
    issues_tokens: bool


@dataclass(frozen=True)
class Generation:
    """One configuration in force: its backends are open."""

    settings: Settings
    authorities: dict[str, Authority]
    sasl: dict[str, Sasl]
    mechanisms: Mapping[str, Mechanism]
    members: Mapping[str, list[Member]] = field(default_factory=dict[str, list[Member]])  # by domain
    layered: Mapping[str, Layered] = field(default_factory=dict[str, Layered])  # by backend
    retired: trio.Event = field(default_factory=trio.Event)


class Running(Protocol):
    """A listener that serves, as `extauth status` sees it."""

    @property
    def connections(self) -> int:
        """How many are open."""
        ...


class Service:
    """Answers requests by the generation in force."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._generation = Generation(Settings(), {}, {}, {})
        self._seen = Seen(surroundings.store, surroundings.now)
        self.caches = Caches(surroundings.store, self._seen, lambda: self._generation.layered)
        self._court = Court(self.ask, self.refuse, self.caches.changed_since)
        self.servers: Mapping[str, Running] = {}  # by the listener's name
        self._started = trio.current_time()

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return trio.current_time() - self._started

    @property
    def settings(self) -> Settings:
        """The configuration in force."""
        return self._generation.settings

    @property
    def hashing(self) -> Threads:
        """The threads of key derivation."""
        return self._surroundings.hashing

    @property
    def journal(self) -> Journal:
        """Where decisions are written."""
        return self._surroundings.journal

    @property
    def metrics(self) -> Metrics:
        """What has been counted."""
        return self._surroundings.metrics

    @property
    def keystore(self) -> Keystore:
        """The keys of all domains, as the store has them this moment."""
        return Keystore(self._surroundings.store, self._surroundings.now)

    def milliseconds(self) -> int:
        """Return Unix time."""
        return int(self._surroundings.now() * 1000)

    @property
    def store(self) -> Store:
        """Where state is kept."""
        return self._surroundings.store

    def ask(self, request: Request) -> Soon[Verdict]:
        """Decide a request. Never raises."""
        authority = self._generation.authorities.get(request.identity.domain)
        if authority is None:
            return self.refuse(request.operation, request.identity, request.origin, Reason.UNKNOWN_DOMAIN)
        return authority.ask(request)

    def grant(self, identity: Identity, attributes: Mapping[str, str], began: int) -> str | None:
        """Return a proof of a login, which its server shows to get tokens; None: there are none for it.

        `attributes` are those of its success, `began` is when its exchange began (Unix time in milliseconds).
        """
        sasl = self._generation.sasl.get(identity.domain)
        login = grants.login_of(attributes, began) if sasl is not None and sasl.issues_tokens else None
        return None if login is None else grants.seal(self._surroundings.grant_key, identity, login)

    def issue_tokens(self, grant: str, device: str, origin: Origin) -> Soon[Verdict]:
        """Return the tokens for the login that a grant proves, or a refusal. Never raises."""
        proven = grants.unseal(self._surroundings.grant_key, grant)
        if proven is None:
            return self.refuse(IssueTokens.operation, Identity("", ""), origin, Reason.BAD_TOKEN)
        identity, login = proven
        return self.ask(IssueTokens(identity, origin, login, device))

    def refuse(self, operation: str, identity: Identity, origin: Origin, reason: Reason) -> Reject:
        """Refuse what can't even be asked, with an audit line and a count as for any decision.

        `identity` may hold names as they arrived: they go nowhere but into the audit line.
        """
        verdict = Reject(reason)
        record(self._surroundings.journal, self._surroundings.metrics, operation, identity, origin, verdict)
        return verdict

    @property
    def only_domain(self) -> str:
        """The domain, if only one is configured; else ""."""
        domains = self._generation.authorities
        return next(iter(domains)) if len(domains) == 1 else ""

    def offer(self, stream: Stream) -> Offer:
        """Return the mechanisms that a stream is offered."""
        sasl = self._generation.sasl.get(stream.domain)
        return sasl.repertoire.offer(stream, sasl.options) if sasl else Offer((), ())

    def terms(self, mechanism: str, stream: Stream) -> Terms:
        """Return the terms of SASL exchanges by `mechanism` (a name in upper case): until the next reload."""
        sasl = self._generation.sasl.get(stream.domain)
        options, offered = (sasl.options, sasl.names) if sasl is not None else (None, ())
        return terms(mechanism, stream, options, self._generation.mechanisms, offered)

    def negotiate(self, terms: Terms, now: float) -> Exchange:
        """Return a SASL exchange, to be begun now (monotonic seconds)."""
        return Exchange(terms, self._court, now)

    @property
    def layered(self) -> Mapping[str, Layered]:
        """The backends with all that is around them."""
        return self._generation.layered

    async def purge(self, identity: Identity) -> Mapping[str, int]:
        """Delete all that the store holds about a user whose accounts have been removed; return how much there was of what.

        Raises:
            BackendDown: the store did not take it.
        """
        for entry in self.layered.values():
            entry.outdate(identity)
        purged = await purge(self.store, identity)
        await self.caches.forget(identity)
        return purged

    async def knowing(self, identity: Identity) -> list[Knowledge]:
        """Ask every backend of the domain whether it knows a name."""
        return await knowing(self._generation.members.get(identity.domain, ()), identity, Origin("check"))

    async def standing(self, identity: Identity, origin: Origin) -> Verdict | None:
        """Ask whether a user may log in, of whom nothing is to be proven. None: nobody can tell."""
        return await standing(self._generation.members.get(identity.domain, ()), identity, origin)

    def advice(self) -> list[str]:
        """Return what is wrong with what the domains advertise, in words."""
        generation = self._generation
        found = [
            problems(name, sasl.holders, generation.mechanisms, generation.settings.domains[name].mechanisms)
            for name, sasl in generation.sasl.items()
        ]
        return [problem for of_domain in found for problem in of_domain]

    async def run_generation(
        self, settings: Settings, task_status: trio.TaskStatus[Generation] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Open a configuration's backends and keep them open until it is retired and nobody is inside any more.

        Raises:
            ConfigError: a backend can't be opened; nothing has changed.
        """
        generation: Generation | None = None
        try:
            async with AsyncExitStack() as stack:
                generation = await self.open_generation(settings, stack)
                task_status.started(generation)
                await generation.retired.wait()
                while any(authority.busy for authority in generation.authorities.values()):
                    await trio.sleep(0.05)
        except Exception:
            if generation is None:
                raise
            _log.exception("bug", what="a backend that is no longer in use could not be closed")

    def adopt(self, generation: Generation) -> None:
        """Put a generation in force and retire the one before."""
        before, self._generation = self._generation, generation
        before.retired.set()

    async def open_generation(self, settings: Settings, stack: AsyncExitStack) -> Generation:
        """Open a configuration's backends, to be closed by `stack`.

        Raises:
            ConfigError: some can't be opened.
        """
        around = self._surroundings
        layered: dict[str, Layered] = {}
        wrong: list[str] = []
        for name, table in settings.backends.items():
            before = self._generation.layered.get(name)
            same = before is not None and self._generation.settings.backends[name] == table
            kept = before.remembered if before and same else Remembered(table.layers.cache.entries)
            context = Context(name, around.store, around.hashing, around.now, kept.forget_changed)
            try:
                module = plugins.backend(table.type)
                backend = await stack.enter_async_context(module.open(table.config, context))
                seen_of_it = before.condition if before and same else None
                layers = surround(backend, table.layers, context, self._seen, kept, seen_of_it)
                layered[name] = await stack.enter_async_context(layers)
            except ConfigError as error:
                wrong += error.problems
        if wrong:
            raise ConfigError(wrong)
        backends = {name: entry.backend for name, entry in layered.items()}
        members = {
            domain: with_record(
                [Member(name, backends[name], settings.backends[name].on_reject) for name in rules.backends],
                rules.exists,
                self._seen,
            )
            for domain, rules in settings.domains.items()
        }
        mechanisms = find_mechanisms(settings.daemon.mechanism_modules)
        authorities = {
            domain: Authority(
                members[domain],
                on_outage=rules.on_outage,
                anonymous=rules.anonymous,
                journal=around.journal,
                metrics=around.metrics,
                throttle=around.throttle,
                changed=self.caches.forget,
                revoked=partial(around.revocations.tell, rules.revocation_command),
            )
            for domain, rules in settings.domains.items()
        }
        sasl: dict[str, Sasl] = {}
        for domain, rules in settings.domains.items():
            found = _holders(rules, layered)
            options = self._options(settings, domain, rules)
            offered = repertoire(found, mechanisms, rules.mechanisms)
            issues_tokens = any(IssueTokens in holder.handles for holder in found)
            sasl[domain] = Sasl(found, offered, offered.names, options, issues_tokens)
        return Generation(settings, authorities, sasl, mechanisms, members, layered)

    def _options(self, settings: Settings, domain: str, rules: Domain) -> Options:
        counts = [_iterations(settings.backends[name]) for name in rules.backends]
        return Options(
            decoy_key=self._surroundings.decoy_key,
            iterations=next(filter(None, counts), ADVISED_ITERATIONS),
            proxies=frozenset(Identity(local_part(user), domain) for user in rules.proxies),
            hosts=frozenset(rules.hosts),
            ports=frozenset(rules.ports),
            openid_configuration=rules.openid_configuration,
            scope=rules.scope,
            certificate_names=rules.certificate_names,
            mail_domains=frozenset(rules.mail_domains),
        )


def _iterations(table: BackendTable) -> int:
    """Return the count that SCRAM tells users of a backend who are new to it, 0 if it has none."""
    own: int = getattr(table.config, "iterations", 0)
    return table.layers.learn_iterations if table.layers.learn_scram == "offer" else own


def _holders(rules: Domain, backends: Mapping[str, Layered]) -> list[Holder]:
    """Return the backends of a domain as `extauth.sasl.advertise` weighs them."""
    chosen = [(name, backends[name]) for name in rules.backends]
    found = [Holder(name, entry.backend.handles, entry.hashes, entry.keyring) for name, entry in chosen]
    return [*found, Holder("anonymous", frozenset({Anonymous}))] if rules.anonymous else found
