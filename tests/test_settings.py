"""The configuration: everything wrong with it is told at once, in its place."""

import importlib
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.configuration import _Reader, load, read  # pyright: ignore[reportPrivateUsage]
from extauth.errors import ConfigError
from extauth.plugins import InstalledKinds
from extauth.settings import BackendTable, Daemon, Domain, Listener, Settings
from extauth.values import Checked

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Door:
    """A front end's keys, one of each type."""

    address: str = "here"
    most: int = 10
    patience: float = 1.5
    changes: bool = False
    users: tuple[str, ...] = ()
    reply: Literal["error", "deny"] = "error"
    level: Literal[1, 2] = 1
    group: str | None = None
    domain: str = ""

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError("most: must be at least 1")


@dataclass(frozen=True)
class Nothing:
    """No keys at all."""


@dataclass(frozen=True)
class Needy(Checked):
    """A backend's keys, one of which has no default."""

    servers: tuple[str, ...]
    level: int = 0

    def problems(self) -> Iterator[str]:
        """Yield what is wrong."""
        if not self.servers:
            yield "servers: name at least one"
        if self.level < len(self.servers):
            yield "servers: there are more than level says"


class SomeKinds:
    """Plug-ins of these tests alone."""

    LISTENERS: Mapping[str, type[Any]] = {"door": Door, "admin": Nothing}
    BACKENDS: Mapping[str, type[Any]] = {"plain": Nothing, "needy": Needy}

    def listener(self, protocol: str) -> type[Any]:
        """Find a front end's keys."""
        if protocol not in self.LISTENERS:
            raise LookupError(f"no protocol {protocol!r}")
        return self.LISTENERS[protocol]

    def backend(self, type_: str) -> type[Any]:
        """Find a backend's keys."""
        if type_ not in self.BACKENDS:
            raise LookupError(f"no backend type {type_!r}")
        return self.BACKENDS[type_]

    def mechanisms(self, modules: Iterable[str]) -> Collection[str]:
        """Name mechanisms."""
        if "broken" in modules:
            raise ConfigError(["daemon.mechanism_modules: broken"])
        return {"PLAIN", "SCRAM-SHA-256", *modules}


MINIMAL = '[domain."example.com"]\nbackends = ["plain"]\n'


def settings(text: str) -> Settings:
    return read(textwrap.dedent(text), SomeKinds())


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        settings(text)
    return caught.value.problems


# What is read -----------------------------------------------------------------------------------------------------------------


def test_a_domain_is_all_that_is_needed() -> None:
    assert settings(MINIMAL) == Settings(
        Daemon(),
        (Listener("admin", "admin", Nothing()),),
        {"plain": BackendTable("plain", "plain", "stop", Nothing())},
        {"example.com": Domain(("plain",))},
    )


def test_every_type_of_key() -> None:
    read_ = settings(
        MINIMAL
        + """
        [daemon]
        state = "sqlite:///s.db"
        drain = 2
        hash_threads = 3
        hash_patience = 0.5
        [listener.front]
        protocol = "door"
        address = "there"
        most = 3
        patience = 2
        changes = true
        level = 2
        users = ["a", "b"]
        reply = "deny"
        group = "g"
        """.replace("        ", "")
    )
    assert read_.daemon == Daemon("sqlite:///s.db", 2.0, 3, 0.5)
    assert isinstance(read_.daemon.drain, float)
    assert read_.listeners[0] == Listener("front", "door", Door("there", 3, 2.0, True, ("a", "b"), "deny", 2, "g"))


def test_a_type_is_the_backends_name_unless_told() -> None:
    backends = settings(
        """
        [backend.plain]
        [backend.people]
        type = "needy"
        servers = ["one"]
        level = 1
        on_reject = "next"
        [domain.localhost]
        backends = ["people", "plain"]
        on_outage = "next"
        """
    ).backends
    assert backends["plain"] == BackendTable("plain", "plain", "stop", Nothing())
    assert backends["people"] == BackendTable("people", "needy", "next", Needy(("one",), 1))


def test_domains_are_known_by_their_canonical_name() -> None:
    assert set(settings('[domain."EXÄMPLE.com."]\nbackends = ["plain"]').domains) == {"xn--exmple-cua.com"}


def test_the_admin_listener_is_always_on() -> None:
    assert [listener.name for listener in settings(MINIMAL).listeners] == ["admin"]
    named = settings(f'{MINIMAL}[listener.boss]\nprotocol = "admin"\n')
    assert [listener.name for listener in named.listeners] == ["boss"]


def test_an_anonymous_domain_needs_no_backend() -> None:
    domain = settings("[domain.a]\nanonymous = true\nproxies = ['Carol']\nports = [5222]").domains["a"]
    assert domain == Domain(anonymous=True, proxies=("Carol",), ports=(5222,))


# What is wrong ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[demon]", "demon: unknown key (did you mean 'daemon'?)"),
        ("zzz = 1", "zzz: unknown key"),
        ("[daemon]\nstat = 'x'", "daemon.stat: unknown key (did you mean 'state'?)"),
        ("daemon = 1", "daemon: must be a table"),
        ("listener = []", "listener: must be a table"),
        ("backend.plain = 1", "backend.plain: must be a table"),
        ("[daemon]\nstate = 1", "daemon.state: must be a string"),
        ("[daemon]\ndrain = true", "daemon.drain: must be a number"),
        ("[daemon]\ndrain = 'long'", "daemon.drain: must be a number"),
        ("[daemon]\ndrain = nan", "daemon.drain: must be a number"),
        ("[daemon]\ndrain = inf", "daemon.drain: must be a number"),
        (f"[daemon]\ndrain = 1{'0' * 400}", "daemon.drain: must be a number"),
        ("[daemon]\ndrain = -1", "daemon.drain: must not be negative"),
        ("[daemon]\nhash_threads = 1025", "daemon.hash_threads: must be 0 (one a processor) to 1024"),
        ("[daemon]\nhash_threads = 1.0", "daemon.hash_threads: must be a whole number"),
        ("[daemon]\nhash_patience = 0", "daemon.hash_patience: must be more than 0"),
        ("[listener.front]", "listener.front.protocol: missing"),
        ("[listener.front]\nprotocol = 1", "listener.front.protocol: must be a string"),
        ("[listener.front]\nprotocol = 'dor'", "listener.front.protocol: no protocol 'dor'"),
        ("[listener.front]\nprotocol = 'door'\nchanges = 1", "listener.front.changes: must be true or false"),
        ("[listener.front]\nprotocol = 'door'\nmost = true", "listener.front.most: must be a whole number"),
        ("[listener.front]\nprotocol = 'door'\nmost = 0", "listener.front.most: must be at least 1"),
        ("[listener.front]\nprotocol = 'door'\nusers = 'a'", "listener.front.users: must be a list, in brackets"),
        ("[listener.front]\nprotocol = 'door'\nusers = ['a', 1]", "listener.front.users: item 2 must be a string"),
        ("[listener.front]\nprotocol = 'door'\ngroup = 1", "listener.front.group: must be a string"),
        (
            "[listener.front]\nprotocol = 'door'\nreply = 'eror'",
            'listener.front.reply: must be "error" or "deny" (did you mean "error"?)',
        ),
        ("[listener.front]\nprotocol = 'door'\nlevel = true", "listener.front.level: must be 1 or 2"),
        ("[listener.front]\nprotocol = 'door'\nreply = true", 'listener.front.reply: must be "error" or "deny"'),
        (
            "[listener.admin]\nprotocol = 'door'",
            'listener.admin.protocol: must be "admin", unless another listener has that protocol',
        ),
        ("[backend.people]\ntype = 'lpda'", "backend.people.type: no backend type 'lpda'"),
        ("[backend.people]\ntype = 3", "backend.people.type: must be a string"),
        ("[backend.plain]\non_reject = 'maybe'", 'backend.plain.on_reject: must be "stop" or "next"'),
        ("[backend.needy]", "backend.needy.servers: missing"),
        ("[domain.a]\nbackends = []", 'domain."a".backends: name at least one, unless anonymous = true'),
        ("[domain.a]", 'domain."a".backends: name at least one, unless anonymous = true'),
        ("[domain.a]\nanonymous = true\nproxies = ['a b']", "domain.\"a\".proxies: 'a b': a local part with U+0020"),
        ("[domain.a]\nbackends = ['needy']", "backend.needy.servers: missing"),
        ("[domain.a]\nbackends = ['other']", "domain.\"a\".backends: no backend 'other': no backend type 'other'"),
        (
            "[backend.people]\ntype = 'plain'\n[domain.a]\nbackends = ['poeple']",
            "domain.\"a\".backends: no backend 'poeple' (did you mean 'people'?)",
        ),
        (
            "[domain.example.com]\nbackends = ['plain']",
            'domain."example": a name with dots needs quotes, as in [domain."example.com"]',
        ),
        ("[domain.'a b']\nbackends = ['plain']", 'domain."a b": not a domain name'),
        ("[domain.'EXAMPLE.com.']\nbackends = ['plain']", 'domain."example.com": the same domain is configured twice'),
    ],
)
def test_a_problem_is_told_in_its_place(text: str, problem: str) -> None:
    assert problems(f"{text}\n{MINIMAL}") == (problem,)


def test_a_domain_is_the_same_however_it_is_written() -> None:
    told = problems(MINIMAL + '[domain."EXAMPLE.com."]\nbackends = ["plain"]\n')
    assert told == ('domain."EXAMPLE.com.": the same domain is configured twice',)


def test_without_a_domain_nothing_can_be_asked() -> None:
    assert problems("") == ('domain: none is configured; add for example [domain."example.com"]',)


def test_all_problems_are_told_at_once() -> None:
    told = problems(
        """
        colour = "blue"
        [daemon]
        drain = "x"
        stat = "y"
        hash_threads = -1
        [listener.front]
        protocol = "door"
        most = 0
        users = [1, "a", 2]
        patiense = 1
        [listener.other]
        protocol = "window"
        [listener.third]
        protcol = "door"
        [listener.fourth]
        protocol = "door"
        domain = "b.c"
        [backend.needy]
        severs = []
        on_rejct = "next"
        learn_days = 0
        [backend.needy.cache]
        ttl = "x"
        grace = -1
        [backend.needier]
        type = "needy"
        on_reject = "perhaps"
        [backend.neediest]
        tpye = "needy"
        [domain.a]
        backends = ["need", "needy", 1]
        [domain."a b"]
        backends = ["plainer"]
        on_outage = "panic"
        proxies = ["a b", "c d"]
        [domain."A"]
        """
    )
    assert told == (
        "colour: unknown key",
        "daemon.stat: unknown key (did you mean 'state'?)",
        "daemon.drain: must be a number",
        "daemon.hash_threads: must be 0 (one a processor) to 1024",
        "listener.front.patiense: unknown key (did you mean 'patience'?)",
        "listener.front.users: item 1 must be a string",
        "listener.front.users: item 3 must be a string",
        "listener.front.most: must be at least 1",
        "listener.other.protocol: no protocol 'window'",
        "listener.third.protcol: unknown key (did you mean 'protocol'?)",
        "listener.fourth.address: listener.front has the same, here",
        "backend.needy.cache.ttl: must be a number",
        "backend.needy.cache.grace: must be 0 (off) to 604800",
        "backend.needy.learn_days: must be more than 0",
        "backend.needy.severs: unknown key (did you mean 'servers'?)",
        "backend.needy.on_rejct: unknown key (did you mean 'on_reject'?)",
        'backend.needier.on_reject: must be "stop" or "next"',
        "backend.needier.servers: missing",
        "backend.neediest.tpye: unknown key (did you mean 'type'?)",
        'domain."a".backends: item 3 must be a string',
        "domain.\"a\".backends: no backend 'need' (did you mean 'needy'?)",
        'domain."a b".on_outage: must be "stop" or "next"',
        "domain.\"a b\".proxies: 'a b': a local part with U+0020",
        "domain.\"a b\".proxies: 'c d': a local part with U+0020",
        "domain.\"a b\".backends: no backend 'plainer': no backend type 'plainer'",
        'domain."a b": not a domain name',
        'domain."A".backends: name at least one, unless anonymous = true',
        'domain."A": the same domain is configured twice',
        "listener.fourth.domain: 'b.c' is not configured",
    )


def test_what_comes_of_a_mistake_is_not_told() -> None:
    told = problems(
        """
        [backend.one]
        type = "needy"
        servers = "a"
        level = "high"
        [backend.two]
        type = "needy"
        servers = ["a"]
        levl = 2
        [domain.a]
        anonymos = true
        """
    )
    assert told == (
        "backend.one.servers: must be a list, in brackets",
        "backend.one.level: must be a whole number",
        "backend.two.levl: unknown key (did you mean 'level'?)",
        "domain.\"a\".anonymos: unknown key (did you mean 'anonymous'?)",
    )


def test_whatever_may_be_written_in_keys_is_told_as_toml_has_it() -> None:
    assert problems('"a b\\n" = 1\n' + MINIMAL) == ('"a b\\n": unknown key',)
    assert problems(f'{MINIMAL}[backend.plain]\n"x.y" = 1') == ('backend.plain."x.y": unknown key',)


def test_mechanisms_have_to_be_there() -> None:
    modules = '[daemon]\nmechanism_modules = ["X-MINE"]\n'
    chosen = 'mechanisms = ["X-MINE", "SCRAM-SHA-265", "plain", "PLAIN"]\n'
    assert problems(modules + MINIMAL + chosen) == (
        "domain.\"example.com\".mechanisms: no mechanism 'SCRAM-SHA-265' (did you mean 'SCRAM-SHA-256'?)",
        "domain.\"example.com\".mechanisms: no mechanism 'plain' (did you mean 'PLAIN'?)",
    )
    assert problems(modules.replace("X-MINE", "broken") + MINIMAL + chosen) == ("daemon.mechanism_modules: broken",)
    assert settings(f'{modules}{MINIMAL}mechanisms = ["X-MINE", "PLAIN"]').domains["example.com"].mechanisms == (
        "X-MINE",
        "PLAIN",
    )


def test_what_is_no_table_is_told_as_such_alone() -> None:
    text = "[listener]\nfront = 1\n[backend]\npeople = 1\n[domain]\nb = 1\n[domain.a]\nbackends = ['people']"
    assert problems(text) == ("listener.front: must be a table", "backend.people: must be a table", "domain.b: must be a table")
    assert problems("domain = 1") == ("domain: must be a table",)
    assert problems(f"backend = 1\n{MINIMAL}") == ("backend: must be a table",)


def test_a_listeners_domain_is_not_missed_where_domains_can_not_be_read() -> None:
    front = '[listener.front]\nprotocol = "door"\ndomain = "b.c"\n'
    assert problems(f'{front}[domain.b.c]\n[domain.a]\nbackends = ["plain"]') == (
        'domain."b": a name with dots needs quotes, as in [domain."example.com"]',
    )
    assert problems(f"{front}[domains.a]") == ("domains: unknown key (did you mean 'domain'?)",)


def test_a_table_that_is_mistyped_is_told_alone() -> None:
    assert problems('[domains."example.com"]\nbackends = ["plain"]') == ("domains: unknown key (did you mean 'domain'?)",)


def test_a_backend_that_lacks_a_key_is_told_once_for_all_domains() -> None:
    told = problems("[domain.a]\nbackends = ['needy']\n[domain.b]\nbackends = ['needy']")
    assert told == ("backend.needy.servers: missing",)


@pytest.mark.parametrize("text", ["[daemon", "a = 1\na = 2", f"a = {'1' * 5000}", "a = '\0'", f"a = {'[' * 5000}"])
def test_what_is_not_toml_is_told(text: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("not TOML: ")


def test_a_mistake_of_toml_has_a_line_and_a_column() -> None:
    assert problems("[daemon]\ndrain = 07") == (
        "not TOML: Expected newline or end of document after a statement (at line 2, column 10)",
    )


def test_an_error_shows_all_of_its_problems() -> None:
    assert str(ConfigError(["one", "two"])) == "one\ntwo"


JUNK = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(["door", "plain", "stop"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


TYPES = [
    "ldap",
    "http",
    "tokens",
    "sqlite",
    "postgres",
    "mysql",
    "jwt",
    "signed",
    "oauth",
    "program",
    "saslauthd",
    "file",
    "local",
]
PROTOCOLS = ["ejabberd", "prosody", "dovecot", "saslauthd", "admin"]


def tables(*keys: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return tables of junk under keys that are known, or nearly."""
    return st.dictionaries(st.one_of(st.sampled_from(keys), st.text(max_size=5)), JUNK, max_size=4)


NAMES = st.one_of(st.sampled_from(["plain", "needy", "admin", "example.com", "EXAMPLE.com."]), st.text(max_size=6))
CONFIGURATIONS = st.fixed_dictionaries(
    {},
    optional={
        "daemon": tables("state", "drain", "hash_threads", "hash_patience"),
        "listener": st.dictionaries(NAMES, tables("protocol", "most", "patience", "users", "reply", "group"), max_size=3),
        "backend": st.dictionaries(NAMES, tables("type", "on_reject", "servers"), max_size=3),
        "domain": st.dictionaries(NAMES, tables("backends", "on_outage"), max_size=3),
        "other": JUNK,
    },
)


@given(CONFIGURATIONS)
def test_whatever_is_configured_the_only_error_is_a_config_error(configuration: dict[str, Any]) -> None:
    with suppress(ConfigError):
        assert _Reader(SomeKinds()).read(configuration).domains


def plugged(key: str, name: str, cls: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return tables of junk, and of what is nearly right, for the keys of a plug-in."""
    values = st.one_of(JUNK, st.sampled_from(["", "/a", "a", ["a"], [""], ["/a"], 0, -1, 1, True, "{user}", "unix:/a"]))
    return st.fixed_dictionaries({key: st.just(name)}, optional={f.name: values for f in fields(cls)})


BACKENDS = st.one_of([plugged("type", name, InstalledKinds().backend(name)) for name in TYPES])
LISTENERS = st.one_of([plugged("protocol", name, InstalledKinds().listener(name)) for name in PROTOCOLS])


@given(
    st.fixed_dictionaries(
        {
            "listener": st.dictionaries(st.sampled_from("ab"), LISTENERS, max_size=2),
            "backend": st.dictionaries(st.sampled_from("ab"), BACKENDS, max_size=2),
            "domain": st.fixed_dictionaries({"a": st.fixed_dictionaries({"backends": st.just(["a"])})}),
        }
    )
)
def test_whatever_a_plug_in_is_told_the_only_error_is_a_config_error(configuration: dict[str, Any]) -> None:
    with suppress(ConfigError):
        assert _Reader(InstalledKinds()).read(configuration).backends


@given(st.text(st.one_of(st.sampled_from("[]=.\"'\n#0a"), st.characters()), max_size=40))
def test_whatever_is_written_the_only_error_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        read(text, SomeKinds())


# The file ---------------------------------------------------------------------------------------------------------------------


def test_a_file_is_read(tmp: Path) -> None:
    path = tmp / "extauth.toml"
    path.write_text(MINIMAL)
    assert load(path, SomeKinds()) == settings(MINIMAL)


def test_a_mark_of_the_encoding_is_no_mistake(tmp: Path) -> None:
    path = tmp / "extauth.toml"
    path.write_text(MINIMAL, encoding="utf-8-sig")
    assert load(path, SomeKinds()) == settings(MINIMAL)


def test_problems_of_a_file_name_it(tmp: Path) -> None:
    path = tmp / "extauth.toml"
    path.write_text("a = 1\nb = 2\n" + MINIMAL)
    with pytest.raises(ConfigError) as caught:
        load(path, SomeKinds())
    assert caught.value.problems == (f"{path}: a: unknown key", f"{path}: b: unknown key")


def test_a_file_that_cannot_be_read_is_named(tmp: Path) -> None:
    path = tmp / "extauth.toml"
    with pytest.raises(ConfigError, match=f"{path}: No such file or directory"):
        load(path, SomeKinds())
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=f"{path}: not UTF-8"):
        load(path, SomeKinds())
    with pytest.raises(ConfigError, match=f"{tmp}: Is a directory"):
        load(tmp, SomeKinds())


# Plug-ins that are installed --------------------------------------------------------------------------------------------------


def test_the_annotated_configuration_shows_defaults() -> None:
    shipped = load(ROOT / "config" / "extauth.toml", InstalledKinds())
    assert shipped.daemon == Daemon()
    assert shipped.backends["local"].config == InstalledKinds().backend("local")()
    assert shipped.domains == {"example.com": Domain(("local",))}


def test_an_unknown_protocol_is_told_with_the_nearest() -> None:
    with pytest.raises(LookupError, match=r"no protocol 'ejaberd' \(did you mean 'ejabberd'\?\)"):
        InstalledKinds().listener("ejaberd")
    with pytest.raises(LookupError, match=r"no protocol 'x' \(there are admin, .*prosody.*\)"):
        InstalledKinds().listener("x")


@pytest.mark.parametrize(
    ("type_", "problem"),
    [
        ("nothing", r"no backend type 'nothing' \(there is no module extauth_nothing\)"),
        ("lpda", r"no backend type 'lpda' \(there is no module extauth_lpda\) \(did you mean 'ldap'\?\)"),
        ("no.such.module", r"no backend type 'no\.such\.module' \(there is no module no\.such\.module\)"),
        ("json.nothing", r"\(there is no module json\.nothing\)"),
        ("a b", "'a b' names no module"),
        (".a", r"'\.a' names no module"),
        ("json.decoder", r"the module json\.decoder is no backend: it has no Config and open"),
    ],
)
def test_a_type_that_is_no_backend_is_told(type_: str, problem: str) -> None:
    with pytest.raises(LookupError, match=problem):
        InstalledKinds().backend(type_)


def test_a_dotted_type_is_a_module_path() -> None:
    assert InstalledKinds().backend("extauth_local.__init__").__name__ == "Config"


@pytest.fixture
def on_path(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder from which modules are imported."""
    monkeypatch.setattr(sys, "path", [str(tmp), *sys.path])
    importlib.invalidate_caches()
    return tmp


def test_a_third_partys_backend_is_found_by_its_name(on_path: Path) -> None:
    (on_path / "extauth_theirs.py").write_text("class Config: ...\ndef open(config, context): ...\n")
    assert InstalledKinds().backend("theirs").__module__ == "extauth_theirs"


@pytest.mark.parametrize("missing", ["no_such_library", "extauth_need"])
def test_a_library_that_a_backend_lacks_is_named(on_path: Path, missing: str) -> None:
    (on_path / "extauth_needing.py").write_text(f"import {missing}\n")
    with pytest.raises(LookupError, match=f"backend type 'needing' needs the module '{missing}', which is not installed"):
        InstalledKinds().backend("needing")


@pytest.mark.parametrize("name", ["a b", "a\\nb", "", "ä"])
def test_names_that_would_break_an_audit_line_are_refused(name: str) -> None:
    text = f'[listener."{name}"]\nprotocol = "ejabberd"\n[domain.localhost]\nbackends = ["local"]'
    with pytest.raises(ConfigError) as refused:
        read(text, InstalledKinds())
    assert "a name is of letters" in refused.value.problems[0]


def test_mistakes_in_many_tables_are_each_told_once() -> None:
    text = """
        [daemon]
        state = "/var/lib/extauth/state.db"
        hash_thread = 4
        [listener.one]
        protocol = "ejabberd"
        mode = "rw"
        deadline = 60
        max_connections = 0
        allow_changes = "no"
        [listener.two]
        protocol = "dovecot"
        address = "tcp:192.0.2.1:80"
        domain = "exmaple.com"
        [listener.three]
        protocol = "saslauthd"
        domain = "a b"
        [listener.four]
        protocol = "ejabberd"
        [backend.people]
        type = "ldap"
        servers = ["ldap://ldap.example.com", "https://ldap.example.com"]
        bse = "dc=example"
        scram = ["SHA-1", "SHA256"]
        threads = 0
        [backend.app]
        type = "http"
        ulr = "https://app.example.com/"
        api = "jsxc"
        timeout = -1
        [backend.web]
        type = "postgres"
        database = 5
        usr = "x"
        query = "SELECT 1"
        port = 70000
        [backend.tokens]
        access_lifetime = 0
        grace = 11
        max_sessions = 0
        [backend.id]
        type = "jwt"
        preset = "oidcc"
        skew = -1
        jwks_url = "http://id.example.com"
        [domain."example.com"]
        backends = ["tokns", "people"]
        certificate_names = ["mail", "xmppaddr"]
        mechanisms = ["EXTERNL", "PLAIN"]
        ports = [0]
        """
    with pytest.raises(ConfigError) as caught:
        read(text, InstalledKinds())
    assert caught.value.problems == (
        "daemon.hash_thread: unknown key (did you mean 'hash_threads'?)",
        "daemon.state: must be of the form sqlite:///absolute/path or postgresql://user@host/database",
        "listener.one.allow_changes: must be true or false",
        'listener.one.mode: must be an octal string such as "0660"',
        "listener.one.max_connections: must be more than 0",
        "listener.one.deadline: must be at most 28: ejabberd itself gives up after 30 seconds",
        "listener.two.address: 'tcp:192.0.2.1:80': must be a loopback address and a port, such as tcp:127.0.0.1:23662",
        "listener.three.domain: 'a b': not a domain name",
        "listener.four.address: listener.one has the same, unix:/run/extauth/ejabberd.sock",
        "backend.people.bse: unknown key (did you mean 'base'?)",
        'backend.people.scram: item 2 must be "SHA-1" or "SHA-256" or "SHA-384" or "SHA-512" (did you mean "SHA-256"?)',
        (
            "backend.people.servers: ldap://ldap.example.com: needs start_tls = true, "
            "or allow_plaintext = true if passwords may be read"
        ),
        "backend.people.servers: https://ldap.example.com: must be ldaps://HOST, ldap://HOST, or with :PORT",
        "backend.people.threads: must be more than 0",
        "backend.app.ulr: unknown key (did you mean 'url'?)",
        "backend.app.timeout: must be more than 0",
        'backend.app.secret_file: api = "jsxc" signs its requests',
        "backend.web.usr: unknown key (did you mean 'user'?)",
        "backend.web.database: must be a string",
        "backend.web.query: holds neither $user nor $jid",
        "backend.web.port: must be 1 to 65535",
        "backend.tokens.access_lifetime: must be 1 second to 10000 days",
        "backend.tokens.grace: must be 0 to 10 seconds",
        "backend.tokens.max_sessions: must be 1 to 1000",
        'backend.id.preset: must be "none" or "oidc" or "ejabberd" or "talkjs" (did you mean "oidc"?)',
        "backend.id.jwks_url: http:// shows passwords to the network; use https:// or set allow_plaintext = true",
        "backend.id.skew: must be 0 to 60",
        (
            'domain."example.com".certificate_names: item 2 must be '
            '"xmppAddr" or "mail" or "emailAddress" or "commonName" or "userId" (did you mean "xmppAddr"?)'
        ),
        'domain."example.com".ports: 0 is no port',
        "domain.\"example.com\".backends: no backend 'tokns' (did you mean 'tokens'?)",
        "listener.two.domain: 'exmaple.com' is not configured (did you mean 'example.com'?)",
        "domain.\"example.com\".mechanisms: no mechanism 'EXTERNL' (did you mean 'EXTERNAL'?)",
    )


def test_what_a_backend_finds_wrong_is_told_one_by_one_in_its_place() -> None:
    text = "[domain.a]\nbackends = ['app']\n[backend.app]\ntype = 'jwt'\nissuer = 'x'"
    with pytest.raises(ConfigError) as caught:
        read(text, InstalledKinds())
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "backend.app.secret_files, key_files, jwks_url",
        "backend.app.audience",
    ]
