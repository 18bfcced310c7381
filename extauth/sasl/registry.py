"""Which mechanisms there are: every module of this folder that has MECHANISMS, and modules of other people's by their path."""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from types import MappingProxyType, ModuleType
from typing import cast

import extauth.sasl
from extauth.errors import ConfigError
from extauth.sasl.mechanism import Mechanism


def find(extra: Iterable[str] = ()) -> Mapping[str, Mechanism]:
    """Return all mechanisms by name, the strongest first; those of the modules `extra` (dotted paths) replace ours.

    Raises:
        ConfigError: a module can't be imported or has no MECHANISMS.
    """
    found: dict[str, Mechanism] = {}
    for info in pkgutil.iter_modules(extauth.sasl.__path__, f"{extauth.sasl.__name__}."):
        for mechanism in _offered(importlib.import_module(info.name)) or ():
            found[mechanism.name] = mechanism
    problems: list[str] = []
    for path in extra:
        try:
            offered = _offered(importlib.import_module(path))
        except Exception as error:
            problems.append(f"daemon.mechanism_modules: {path}: can't be imported: {error}")
            continue
        if offered is None:
            problems.append(f"daemon.mechanism_modules: {path}: has no MECHANISMS")
        for mechanism in offered or ():
            found[mechanism.name] = mechanism
    if problems:
        raise ConfigError(problems)
    return MappingProxyType({m.name: m for m in sorted(found.values(), key=lambda m: -m.priority)})


def _offered(module: ModuleType) -> tuple[Mechanism, ...] | None:
    offered = getattr(module, "MECHANISMS", None)
    return cast("tuple[Mechanism, ...]", offered) if isinstance(offered, tuple) else None
