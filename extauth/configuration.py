"""The configuration file: TOML into `extauth.settings`, with every problem told at once and in its place.

A plug-in declares its keys as a frozen dataclass that is filled by annotation: str, int, float, bool, `tuple[str, ...]`,
`Literal[...]`, and each of them or None. What a type can't say, it tells as `extauth.values.Checked` has it.
"""

import dataclasses
import re
import tomllib
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from extauth.errors import ConfigError
from extauth.jid import InvalidName, domain_part
from extauth.layers.rules import Layers
from extauth.settings import BackendTable, Daemon, Domain, Listener, Settings
from extauth.values import Table, as_table, at, fill, names, nearest, quoted, strings, unknown

_LAYERS = tuple(f.name for f in dataclasses.fields(Layers))
_NAME = re.compile(r"[A-Za-z0-9._\-]{1,64}").fullmatch


class Kinds(typing.Protocol):
    """Knows the plug-ins: the dataclass of one's keys by its name."""

    def listener(self, protocol: str) -> type[Any]:
        """Return it; raise LookupError with the text to show."""
        ...

    def backend(self, type_: str) -> type[Any]:
        """Return it; raise LookupError with the text to show."""
        ...

    def mechanisms(self, modules: Iterable[str]) -> Collection[str]:
        """Return the names of all SASL mechanisms, those of `modules` among them; raise ConfigError if one is none."""
        ...


def load(path: Path, kinds: Kinds) -> Settings:
    """Read a configuration file.

    Raises:
        ConfigError: all of its problems.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors put a mark of it first
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
    except (ValueError, RecursionError) as error:  # TOMLDecodeError; a number of thousands of digits, as many brackets
        raise ConfigError([f"not TOML: {error}"]) from error
    return _Reader(kinds).read(tables)


class _Reader:
    """Reads tables and gathers what is wrong with them."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._problems: list[str] = []
        self._hosts: list[tuple[str, str]] = []  # places of the domains that listeners name, and those

    def read(self, tables: Table) -> Settings:
        meant = unknown("", tables, ("daemon", "listener", "backend", "domain"), self._problems)
        daemon_table = self._table("daemon", tables.get("daemon", {})) or {}
        daemon = fill(Daemon, "daemon", daemon_table, self._problems)
        listeners = self._listeners(self._tables("listener", tables))
        backends = self._backends(self._tables("backend", tables))
        domain_tables = self._tables("domain", tables)
        if tables.get("domain", {}) == {} and "domain" not in meant:
            self._problems.append('domain: none is configured; add for example [domain."example.com"]')
        domains = self._domains(domain_tables, backends, names(tables.get("backend")))
        self._check_hosts(domains)
        self._check_mechanisms(daemon_table, domain_tables)
        if self._problems:
            raise ConfigError(self._problems)
        return Settings(daemon or Daemon(), listeners, backends, domains)

    def _listeners(self, tables: dict[str, Table]) -> tuple[Listener, ...]:
        found: list[Listener] = []
        if all(table.get("protocol") != "admin" for table in tables.values()):
            always_on = tables.setdefault("admin", {"protocol": "admin"})
            if always_on.get("protocol", "admin") != "admin":
                self._problems.append('listener.admin.protocol: must be "admin", unless another listener has that protocol')
        places: dict[str, str] = {}  # of addresses
        for name, table in tables.items():
            place = at("listener", name)
            self._check_name(place, name)
            protocol, config_type = self._kind(place, "protocol", table, None, self._kinds.listener)
            if config_type is None:
                continue
            config = fill(config_type, place, table, self._problems, ("protocol",))
            if config is not None:
                found.append(Listener(name, protocol, config))
            address = str(table.get("address", getattr(config_type, "address", place)))
            if places.setdefault(address, place) != place and not address.endswith(":0"):  # any free port
                self._problems.append(f"{place}.address: {places[address]} has the same, {address}")
            if hasattr(config_type, "domain") and isinstance(domain := table.get("domain"), str):
                self._hosts.append((f"{place}.domain", domain))
        return tuple(found)

    def _backends(self, tables: dict[str, Table]) -> dict[str, BackendTable]:
        found: dict[str, BackendTable] = {}
        for name, table in tables.items():
            place = at("backend", name)
            self._check_name(place, name)
            on_reject = table.pop("on_reject", "stop")
            if on_reject not in ("stop", "next"):
                self._problems.append(f'{place}.on_reject: must be "stop" or "next"{nearest(str(on_reject), ("stop", "next"))}')
            layers = fill(Layers, place, {key: table.pop(key) for key in _LAYERS if key in table}, self._problems)
            type_, config_type = self._kind(place, "type", table, name, self._kinds.backend)
            if config_type is None:
                continue
            config = fill(config_type, place, table, self._problems, ("type", "on_reject", *_LAYERS))
            if config is not None and layers is not None:
                found[name] = BackendTable(name, type_, on_reject, config, layers)
        return found

    def _domains(self, tables: dict[str, Table], backends: dict[str, BackendTable], declared: set[str]) -> dict[str, Domain]:
        found: dict[str, Domain] = {}
        for name, table in tables.items():
            place = f"domain.{quoted(name)}"
            if any(isinstance(inner, dict) for inner in table.values()):
                self._problems.append(f'{place}: a name with dots needs quotes, as in [domain."example.com"]')
                self._hosts.clear()  # they may name it
                continue
            domain = fill(Domain, place, table, self._problems)
            for backend in strings(table.get("backends")):
                if backend not in backends and backend not in declared:
                    self._undeclared(f"{place}.backends", backend, declared, backends)
            try:
                canonical = domain_part(name)
            except InvalidName as error:
                self._problems.append(f"{place}: {error}")
                continue
            if canonical in found:
                self._problems.append(f"{place}: the same domain is configured twice")
            found[canonical] = domain or Domain(anonymous=True)  # which nobody will see
        return found

    def _check_hosts(self, domains: Mapping[str, Domain]) -> None:
        for place, name in self._hosts if domains else ():
            with suppress(InvalidName):  # which is told where it stands
                if domain_part(name) not in domains:
                    self._problems.append(f"{place}: {name!r} is not configured{nearest(name, domains)}")

    def _check_mechanisms(self, daemon: Table, domains: Mapping[str, Table]) -> None:
        modules = strings(daemon.get("mechanism_modules"))
        chosen = [(name, mechanism) for name, table in domains.items() for mechanism in strings(table.get("mechanisms"))]
        if not modules and not chosen:
            return
        try:
            known = self._kinds.mechanisms(modules)
        except ConfigError as error:
            self._problems += error.problems
            return
        for name, mechanism in chosen:
            if mechanism not in known:
                near = nearest(mechanism.upper(), known)
                self._problems.append(f"domain.{quoted(name)}.mechanisms: no mechanism {mechanism!r}{near}")

    def _undeclared(self, place: str, name: str, declared: set[str], backends: dict[str, BackendTable]) -> None:
        """A backend that has no table is one of that type with all its defaults."""
        try:
            config_type = self._kinds.backend(name)
        except LookupError as error:
            self._problems.append(f"{place}: no backend {name!r}{nearest(name, declared) or f': {error.args[0]}'}")
            return
        declared.add(name)
        config = fill(config_type, at("backend", name), {}, self._problems)
        if config is not None:
            backends[name] = BackendTable(name, name, "stop", config)

    def _kind(
        self, place: str, key: str, table: Table, default: str | None, find: Callable[[str], type[Any]]
    ) -> tuple[str, type[Any] | None]:
        """Take the name of a plug-in from its table, and find the dataclass of its other keys: None if there is none."""
        given = key in table
        name = table.pop(key, default)
        try:
            if isinstance(name, str):
                return name, find(name)
            problem = "missing" if name is None else "must be a string"
        except LookupError as error:
            problem = error.args[0]
        meant = [other for other in table if not given and nearest(other, (key,))]
        if meant:
            unknown(place, dict.fromkeys(meant), (key,), self._problems)
        else:
            self._problems.append(f"{at(place, key)}: {problem}")
        return "", None

    def _check_name(self, place: str, name: str) -> None:
        if not _NAME(name):
            self._problems.append(f"{place}: a name is of letters, digits, '.', '_' and '-': it stands in every audit line")

    def _tables(self, place: str, tables: Table) -> dict[str, Table]:
        """Return the tables of [PLACE.NAME] by their names, without those that are none."""
        inner = self._table(place, tables.get(place, {})) or {}
        found = {name: self._table(at(place, name), value) for name, value in inner.items()}
        return {name: table for name, table in found.items() if table is not None}

    def _table(self, place: str, value: object) -> Table | None:
        try:
            return as_table(value)
        except ValueError as error:
            self._problems.append(f"{place}: {error}")
            return None
