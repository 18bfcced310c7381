"""The configuration: TOML into frozen dataclasses, with every problem told at once and in its place.

A plug-in declares its keys as a frozen dataclass that is filled by annotation: str, int, float, bool, `tuple[str, ...]`,
`Literal[...]`, and each of them or None. What a type can't say, `__post_init__` checks; it raises `ValueError` with the text
to show.
"""

import dataclasses
import re
import tomllib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from extauth.errors import ConfigError
from extauth.jid import InvalidName, domain_part, local_part
from extauth.layers.rules import Layers
from extauth.values import checked, nearest

T = TypeVar("T")

Table = dict[str, Any]

_NAME = re.compile(r"[A-Za-z0-9._\-]{1,64}").fullmatch


@dataclass(frozen=True)
class Daemon:
    """[daemon]: where state is kept and how the process behaves."""

    state: str = "sqlite:///var/lib/extauth/state.db"
    drain: float = 10.0  # seconds that requests in progress may take when the daemon stops
    hash_threads: int = 0  # 0: as many as there are processors
    hash_patience: float = 3.0  # seconds that a password check may wait for a thread
    mechanism_modules: tuple[str, ...] = ()  # Python modules with further SASL mechanisms
    state_password_file: str | None = None  # holds the password for a postgresql:// state

    def __post_init__(self) -> None:
        if self.drain < 0:
            raise ValueError("drain: must not be negative")
        if not 0 <= self.hash_threads <= 1024:  # noqa: PLR2004
            raise ValueError("hash_threads: must be 0 (one a processor) to 1024")
        if self.hash_patience <= 0:
            raise ValueError("hash_patience: must be more than 0")


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
class Domain:
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
    certificate_names: tuple[str, ...] = ("xmppAddr",)  # fields of a client certificate that name accounts, in this order
    mail_domains: tuple[str, ...] = ()  # whose mail addresses in a certificate name accounts here
    revocation_command: tuple[str, ...] = ()  # run when logins are revoked, to end live sessions: COMMAND... USER DOMAIN CAUSE

    def __post_init__(self) -> None:
        if self.revocation_command and not self.revocation_command[0].startswith("/"):
            raise ValueError("revocation_command: must begin with the absolute path of a program")
        if not self.backends and not self.anonymous:
            raise ValueError("backends: name at least one")
        for user in self.proxies:
            try:
                local_part(user)
            except InvalidName as error:
                raise ValueError(f"proxies: {user!r}: {error}") from None


@dataclass(frozen=True)
class Settings:
    """A whole configuration."""

    daemon: Daemon = field(default_factory=Daemon)
    listeners: tuple[Listener, ...] = ()
    backends: Mapping[str, BackendTable] = field(default_factory=dict[str, BackendTable])
    domains: Mapping[str, Domain] = field(default_factory=dict[str, Domain])


class Kinds(typing.Protocol):
    """Finds the dataclass of a plug-in's keys by name."""

    def listener(self, protocol: str) -> type[Any]:
        """Return it; raise LookupError with the text to show."""
        ...

    def backend(self, type_: str) -> type[Any]:
        """Return it; raise LookupError with the text to show."""
        ...


def load(path: Path, kinds: Kinds) -> Settings:
    """Read a configuration file.

    Raises:
        ConfigError: all of its problems.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8"]) from error
    try:
        return read(text, kinds)
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from error


def read(text: str, kinds: Kinds) -> Settings:
    """Read the text of a configuration.

    Raises:
        ConfigError: all of its problems, each with its place.
    """
    try:
        tables = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise ConfigError([f"not TOML: {error}"]) from error
    return _Reader(kinds).read(tables)


class _Reader:
    """Reads tables and gathers what is wrong with them."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._problems: list[str] = []

    def read(self, tables: Table) -> Settings:
        self._unknown("", tables, ("daemon", "listener", "backend", "domain"))
        daemon = self._convert(Daemon, "daemon", self._table("daemon", tables.get("daemon", {})))
        listeners = self._listeners(self._table("listener", tables.get("listener", {})))
        backend_tables = self._table("backend", tables.get("backend", {}))
        backends = self._backends(backend_tables)
        domains = self._domains(self._table("domain", tables.get("domain", {})), backends, set(backend_tables))
        if self._problems:
            raise ConfigError(self._problems)
        return Settings(daemon or Daemon(), listeners, backends, domains)

    def _listeners(self, tables: Table) -> tuple[Listener, ...]:
        found: list[Listener] = []
        named = {name: self._table(f"listener.{name}", value) for name, value in tables.items()}
        if all(table.get("protocol") != "admin" for table in named.values()):
            always_on = named.setdefault("admin", {"protocol": "admin"})
            if always_on.get("protocol", "admin") != "admin":
                self._problems.append('listener.admin.protocol: must be "admin", unless another listener has that protocol')
        for name, table in named.items():
            place = f"listener.{name}"
            self._check_name(place, name)
            protocol = table.pop("protocol", None)
            if not isinstance(protocol, str):
                self._problems.append(f"{place}.protocol: missing")
                continue
            config = self._plugged(place, table, self._kinds.listener, protocol)
            if config is not None:
                found.append(Listener(name, protocol, config))
        return tuple(found)

    def _backends(self, tables: Table) -> dict[str, BackendTable]:
        found: dict[str, BackendTable] = {}
        for name, value in tables.items():
            place = f"backend.{name}"
            self._check_name(place, name)
            table = self._table(place, value)
            type_ = table.pop("type", name)
            on_reject = table.pop("on_reject", "stop")
            if on_reject not in ("stop", "next"):
                self._problems.append(f'{place}.on_reject: must be "stop" or "next"')
                on_reject = "stop"
            around = {f.name: table.pop(f.name) for f in dataclasses.fields(Layers) if f.name in table}
            layers = self._convert(Layers, place, around)
            config = self._plugged(place, table, self._kinds.backend, str(type_))
            if config is not None and layers is not None:
                found[name] = BackendTable(name, str(type_), on_reject, config, layers)
        return found

    def _domains(self, tables: Table, backends: dict[str, BackendTable], declared: set[str]) -> dict[str, Domain]:
        found: dict[str, Domain] = {}
        if not tables:
            self._problems.append('domain: none is configured; add for example [domain."example.com"]')
        for name, value in tables.items():
            place = f'domain."{name}"'
            table = self._table(place, value)
            if any(isinstance(inner, dict) for inner in table.values()):
                self._problems.append(f'{place}: a name with dots needs quotes, as in [domain."example.com"]')
                continue
            domain = self._convert(Domain, place, table)
            if domain is None:
                continue
            for backend in domain.backends:
                if backend not in backends and backend not in declared:
                    self._undeclared(f"{place}.backends", backend, declared, backends)
            try:
                canonical = domain_part(name)
            except InvalidName as error:
                self._problems.append(f"{place}: {error}")
                continue
            if canonical in found:
                self._problems.append(f"{place}: the same domain is configured twice")
            found[canonical] = domain
        return found

    def _undeclared(self, place: str, name: str, declared: set[str], backends: dict[str, BackendTable]) -> None:
        """A backend that has no table is one of that type with all its defaults."""
        try:
            config_type = self._kinds.backend(name)
        except LookupError as error:
            self._problems.append(f"{place}: no backend {name!r}{nearest(name, declared)}: {error.args[0]}")
            return
        declared.add(name)
        config = self._convert(config_type, f"backend.{name}", {})
        if config is not None:
            backends[name] = BackendTable(name, name, "stop", config)

    def _plugged(self, place: str, table: Table, find: Callable[[str], type[Any]], name: str) -> Any:  # noqa: ANN401
        try:
            config_type = find(name)
        except LookupError as error:
            self._problems.append(f"{place}: {error.args[0]}")
            return None
        return self._convert(config_type, place, table)

    def _check_name(self, place: str, name: str) -> None:
        if not _NAME(name):
            self._problems.append(f"{place}: a name is of letters, digits, '.', '_' and '-': it stands in every audit line")

    def _table(self, place: str, value: object) -> Table:
        if isinstance(value, dict):
            return dict(typing.cast("Table", value))
        self._problems.append(f"{place}: must be a table")
        return {}

    def _unknown(self, place: str, table: Table, known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                self._problems.append(f"{place}{'.' if place else ''}{key}: unknown key{nearest(key, known)}")

    def _convert(self, cls: type[T], place: str, table: Table) -> T | None:
        """Fill a dataclass from a table; None if something is wrong with it, which is then noted."""
        before = len(self._problems)
        fields = {f.name: f for f in dataclasses.fields(typing.cast("Any", cls)) if f.init}
        hints = typing.get_type_hints(cls)
        self._unknown(place, table, tuple(fields))
        values: Table = {}
        for name, f in fields.items():
            if name in table and dataclasses.is_dataclass(hints[name]):
                values[name] = self._convert(hints[name], f"{place}.{name}", self._table(f"{place}.{name}", table[name]))
            elif name in table:
                try:
                    values[name] = checked(hints[name], table[name])
                except ValueError as error:
                    self._problems.append(f"{place}.{name}: {error}")
            elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                self._problems.append(f"{place}.{name}: missing")
        if len(self._problems) > before:
            return None
        try:
            return cls(**values)
        except ValueError as error:
            self._problems += [f"{place}.{problem}" for problem in error.args or ("can not be used",)]
            return None
