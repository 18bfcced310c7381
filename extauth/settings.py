"""What a configuration says. `extauth.configuration` reads it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from extauth.jid import InvalidName, local_part
from extauth.layers.rules import Layers
from extauth.store import check_url
from extauth.values import Checked

CertificateField = Literal["xmppAddr", "mail", "emailAddress", "commonName", "userId"]  # of `extauth.sasl.certificate`


@dataclass(frozen=True)
class Daemon(Checked):
    """[daemon]: where state is kept and how the process behaves."""

    state: str = "sqlite:///var/lib/extauth/state.db"
    drain: float = 10.0  # seconds that requests in progress may take when the daemon stops
    hash_threads: int = 0  # 0: as many as there are processors
    hash_patience: float = 3.0  # seconds that a password check may wait for a thread
    mechanism_modules: tuple[str, ...] = ()  # Python modules with further SASL mechanisms
    state_password_file: str | None = None  # holds the password for a postgresql:// state

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its key."""
        try:
            check_url(self.state)
        except ValueError as error:
            yield f"state: {error}"
        if self.drain < 0:
            yield "drain: must not be negative"
        if not 0 <= self.hash_threads <= 1024:  # noqa: PLR2004
            yield "hash_threads: must be 0 (one a processor) to 1024"
        yield from self.not_positive("hash_patience")


@dataclass(frozen=True)
class Listener:
    """[listener.NAME]: a front end and, in `config`, the keys of its protocol."""

    name: str
    protocol: str
    config: Any


@dataclass(frozen=True)
class BackendTable:
    """[backend.NAME]: a backend and, in `config`, the keys of its type."""

    name: str
    type: str
    on_reject: Literal["stop", "next"]
    config: Any
    layers: Layers = field(default_factory=Layers)


@dataclass(frozen=True)
class Domain(Checked):
    """[domain."NAME"]: who is asked about its users, in which order, and how they log in by SASL."""

    backends: tuple[str, ...] = ()
    on_outage: Literal["stop", "next"] = "stop"
    exists: Literal["seen", "always", "never"] = "seen"  # whether people exist who are known only by tokens
    mechanisms: tuple[str, ...] | None = None  # instead of those that follow from the backends
    anonymous: bool = False  # whether anybody may log in under a fresh name; then nobody else can
    proxies: tuple[str, ...] = ()  # accounts that may log in as any other of the domain
    hosts: tuple[str, ...] = ()  # names, beside the domain, under which clients reach the server
    ports: tuple[int, ...] = ()  # and ports (none: not known), to compare with what OAUTHBEARER says
    openid_configuration: str = ""  # a URL that OAUTHBEARER tells clients whose token was refused
    scope: str = ""  # of tokens, told beside it
    certificate_names: tuple[CertificateField, ...] = ("xmppAddr",)  # that name accounts, in this order
    mail_domains: tuple[str, ...] = ()  # whose mail addresses in a certificate name accounts here
    revocation_command: tuple[str, ...] = ()  # run when logins are revoked, to end live sessions: COMMAND... USER DOMAIN CAUSE

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its key."""
        if not self.backends and not self.anonymous:
            yield "backends: name at least one, unless anonymous = true"
        for name in sorted({name for name in self.backends if self.backends.count(name) > 1}):
            yield f"backends: {name!r} is named twice"
        for user in self.proxies:
            try:
                local_part(user)
            except InvalidName as error:
                yield f"proxies: {user!r}: {error}"
        yield from (f"ports: {port} is no port" for port in self.ports if not 1 <= port <= 65535)  # noqa: PLR2004
        if self.revocation_command and not self.revocation_command[0].startswith("/"):
            yield "revocation_command: must begin with the absolute path of a program"


@dataclass(frozen=True)
class Settings:
    """A whole configuration."""

    daemon: Daemon = field(default_factory=Daemon)
    listeners: tuple[Listener, ...] = ()
    backends: Mapping[str, BackendTable] = field(default_factory=dict[str, BackendTable])
    domains: Mapping[str, Domain] = field(default_factory=dict[str, Domain])
