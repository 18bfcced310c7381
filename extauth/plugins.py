"""Names into modules: `protocol = "prosody"` is extauth.listeners.prosody, `type = "ldap"` is extauth_ldap.

A dotted type is a module path as it stands. There is no registry: a module that can be imported under the right name is a
plug-in.
"""

import importlib
import pkgutil
from collections.abc import Collection, Iterable
from types import ModuleType
from typing import Any, cast

import extauth.listeners
from extauth.backend import BackendModule
from extauth.sasl.registry import find as find_mechanisms
from extauth.values import nearest


def listener(protocol: str) -> ModuleType:
    """Return the module of a front end.

    Raises:
        LookupError: there is none of that name.
    """
    known = sorted(
        module.name for module in pkgutil.iter_modules(extauth.listeners.__path__) if not module.name.startswith("_")
    )
    if protocol not in known:
        hint = nearest(protocol, known) or f" (there are {', '.join(known)})"
        raise LookupError(f"no protocol {protocol!r}{hint}")
    return importlib.import_module(f"extauth.listeners.{protocol}")


def backend(type_: str) -> BackendModule:
    """Return the module of a backend type.

    Raises:
        LookupError: it can't be imported, and why.
    """
    name = type_ if "." in type_ else f"extauth_{type_}"
    if not all(part.isidentifier() for part in name.split(".")):
        raise LookupError(f"{type_!r} names no module")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise LookupError(f"no backend type {type_!r} (there is no module {name}){nearest(type_, _installed())}") from error
        raise LookupError(f"backend type {type_!r} needs the module {error.name!r}, which is not installed") from error
    if not (hasattr(module, "Config") and hasattr(module, "open")):
        raise LookupError(f"the module {name} is no backend: it has no Config and open")
    return cast("BackendModule", module)


def _installed() -> list[str]:
    return [module.name.removeprefix("extauth_") for module in pkgutil.iter_modules() if module.name.startswith("extauth_")]


class InstalledKinds:
    """The configuration keys of the plug-ins that are installed (`configuration.Kinds`)."""

    def listener(self, protocol: str) -> type[Any]:
        """Return the dataclass of a protocol's keys."""
        return cast("type[Any]", listener(protocol).Config)

    def backend(self, type_: str) -> type[Any]:
        """Return the dataclass of a backend type's keys."""
        return backend(type_).Config

    def mechanisms(self, modules: Iterable[str]) -> Collection[str]:
        """Return the names of all SASL mechanisms, those of other people's modules among them."""
        return find_mechanisms(modules)
