"""Who may import whom: one table. What it doesn't list is forbidden."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import extauth.listeners
from extauth import plugins
from extauth.backend import BackendModule
from extauth.server import ListenerModule
from extauth.sockets import SocketConfig

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "extauth").rglob("*.py"), *(ROOT / "backends").rglob("*.py")])

# A module or package of ours, and which others it may import; each may import its own parts.
ALLOWED = {
    "model errors soon supervisor connect metrics values mac": "",
    "issuing": "model",
    "jid passwords tokens": "model errors jid issuing mac",
    "sasl": "model errors jid mac passwords tokens soon",
    "secretfile threads lines throttle journal templates": "model errors",
    "bridge tls": "errors",
    "background": "",
    "sockets": "errors jid values",
    "store": "model errors bridge",
    "backend": "model soon store threads",
    "imports": "model jid passwords",
    "verifier": "model errors passwords threads",
    "keyring": "store threads passwords model soon",
    "keystore": "store tokens model errors soon",
    "sessions": "store tokens model issuing soon",
    "subjects": "store model soon",
    "sql": "backend background verifier model errors jid passwords secretfile threads tls values",
    "fasttokens": "keystore store tokens model soon",
    "credentials": "keyring store tokens model soon",
    "changes": "backend issuing model errors soon",
    "purge": "credentials fasttokens keyring sessions subjects layers model store",
    "authority": "changes issuing throttle journal metrics model errors soon passwords",
    "layers": "backend subjects changes issuing model errors soon store threads keyring jid passwords templates values",
    "settings": "jid layers store values",
    "configuration": "errors jid layers settings values",
    "plugins": "model errors backend listeners sasl values",
    "court": "authority journal model sasl soon",
    "service": "authority changes layers issuing court backend plugins settings model errors jid passwords sasl journal "
    "metrics revocation soon store threads throttle keystore tokens purge",
    "server": "service sockets",
    "dialogue": "soon",
    "acceptor": "journal sockets",
    "engine": "acceptor dialogue errors journal model sockets soon",
    "external": "service sockets jid model soon",
    "dovecot": "errors model sasl",
    "admin": "service purge layers jid model issuing errors soon keystore tokens values",
    "daemon": "service server plugins revocation secretfile settings sockets store supervisor threads throttle journal metrics "
    "errors soon",
    "listeners": "",
    "listeners.*": "server service dialogue engine lines external dovecot admin sockets sessions sasl tokens jid "
    "issuing settings journal metrics model errors soon",
    "fetch": "model errors values",
    "revocation": "background model",
    "extauth_*": "fetch mac model issuing backend bridge errors jid passwords tokens store keyring keystore sessions subjects "
    "soon threads credentials fasttokens secretfile templates verifier sql background tls values",
}
EVERYTHING = {"cli"}  # imports whatever it composes; nobody imports it

PURE = {"jid", "passwords", "sasl", "tokens"}  # no trio, no clock, no input or output
IMPURE = {
    *("asyncio", "datetime", "io", "logging", "os", "pathlib", "random", "select", "selectors", "shutil", "signal", "socket"),
    *("ssl", "structlog", "subprocess", "sys", "tempfile", "threading", "time", "trio"),
}
# May look for modules by name.
DYNAMIC = {"extauth.plugins", "extauth.passwords.stored", "extauth.sasl.registry", "extauth.cli.root"}


def module_name(path: Path) -> str:
    root = ROOT / "backends" if "backends" in path.parts else ROOT
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def unit(module: str) -> str:
    """Return what the table calls the module: without "extauth.", and without the parts of a package."""
    parts = module.split(".")
    if parts[0] == "extauth":
        parts = parts[1:]
        return ".".join(parts[:2]) if parts[:1] == ["listeners"] else parts[0] if parts else "extauth"
    return parts[0]


def is_ours(module: str) -> bool:
    return module.partition(".")[0] == "extauth" or module.startswith("extauth_")


def imports(source: str) -> Iterator[str]:
    """Yield every module that is imported anywhere in a file: also within functions, also for type checkers only."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who is meant"
            assert node.module is not None
            if node.module in ("extauth", "extauth.listeners"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def allowed(importer: str) -> set[str]:
    """Return what the table lets a unit import; KeyError if it has no row."""
    rows = {name: set(row.split()) for names, row in ALLOWED.items() for name in names.split()}
    if importer.startswith("listeners."):
        importer = "listeners.*"
    elif importer.startswith("extauth_"):
        importer = "extauth_*"
    return rows[importer]


def forbidden(module: str, source: str) -> list[str]:
    """Return what is wrong with a file's imports."""
    importer = unit(module)
    problems: list[str] = []
    for target in imports(source):
        name = target.split(".")[0]
        if is_ours(target):
            ours = unit(target)
            if importer not in EVERYTHING and ours != importer and ours not in allowed(importer):
                problems.append(f"{module} imports {target}")
        elif (importer in PURE and name in IMPURE) or (name in ("importlib", "pkgutil") and module not in DYNAMIC):
            problems.append(f"{module} imports {target}")
    return problems


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_module_imports_only_what_the_table_lists(path: Path) -> None:
    assert forbidden(module_name(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("extauth.model", "import extauth.errors"),
        ("extauth.listeners.prosody", "from extauth.listeners import ejabberd"),
        ("extauth.listeners.prosody", "from extauth.listeners.ejabberd import NO"),
        ("extauth.listeners.prosody", "def f():\n    import extauth_local"),
        ("extauth.listeners.prosody", "from extauth.authority import Authority"),
        ("extauth_local.accounts", "if TYPE_CHECKING:\n    from extauth.service import Service"),
        ("extauth_local", "from extauth import authority"),
        ("extauth_local", "from extauth_ldap import open"),
        ("extauth_local", "from extauth.listeners import prosody"),
        ("extauth.service", "from extauth.cli.root import cli"),
        ("extauth.passwords.scram", "import time"),
        ("extauth.jid", "from os import path"),
        ("extauth.engine", "import importlib"),
        ("extauth.store.sqlite", "from extauth.soon import Soon"),
        ("extauth.plugins", "from extauth.listeners import prosody"),
    ],
)
def test_the_table_forbids(module: str, source: str) -> None:
    assert len(forbidden(module, source)) == 1


def test_a_module_without_a_row_may_import_nothing_of_ours() -> None:
    with pytest.raises(KeyError, match="novelty"):
        forbidden("extauth.novelty", "from extauth import model")


def test_the_package_itself_imports_nothing() -> None:
    assert list(imports((ROOT / "extauth" / "__init__.py").read_text())) == []


def test_the_connector_needs_the_standard_library_alone() -> None:
    names = {name.split(".")[0] for name in imports((ROOT / "extauth" / "connect.py").read_text())}
    assert names <= sys.stdlib_module_names


LISTENERS = sorted(module.name for module in pkgutil.iter_modules(extauth.listeners.__path__))
BACKENDS = sorted(path.name for path in (ROOT / "backends").glob("extauth_*"))


def members(protocol: type) -> set[str]:
    return set(inspect.get_annotations(protocol))


@pytest.mark.parametrize("name", LISTENERS)
def test_a_front_end_is_a_listener_module(name: str) -> None:
    module = plugins.listener(name)
    assert all(hasattr(module, member) for member in members(ListenerModule))
    assert issubclass(module.Config, SocketConfig)
    assert dataclasses.is_dataclass(module.Config)
    assert list(inspect.signature(module.server).parameters) == ["name", "config", "service"]


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_is_a_backend_module(name: str) -> None:
    module = plugins.backend(name.removeprefix("extauth_"))
    assert all(hasattr(module, member) for member in members(BackendModule))
    assert dataclasses.is_dataclass(module.Config)
    assert list(inspect.signature(module.open).parameters) == ["config", "context"]
    assert (ROOT / "backends" / name / "py.typed").exists()


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_module_can_be_imported(path: Path) -> None:
    assert importlib.import_module(module_name(path)).__doc__
