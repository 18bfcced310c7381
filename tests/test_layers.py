"""The layers in a running daemon, and on its command line."""

import json
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from extauth.cli.advice import advice
from extauth.daemon import open_service, open_without_listeners
from extauth.errors import ConfigError
from extauth.journal import Journal
from extauth.layers.rules import CacheRules, Layers, NameRules
from extauth.model import CheckPassword, Identity, Secret
from extauth.sasl.mechanism import Stream
from extauth.soon import settle
from tests.daemons import Daemon, configuration, extauth, read, serve_here
from tests.fakes import ORIGIN
from tests.servers.process import poll

SASL = '[listener.sasl]\nprotocol = "dovecot"\naddress = "unix:{folder}/sasl.sock"\n'
LAYERS = """\
learn_scram = "{learn}"
learn_iterations = 4096
[backend.people.cache]
ttl = 600
repeats = 600
"""


def text(folder: Path, learn: str = "offer", more: str = "") -> str:
    """Return a configuration with all layers around the accounts in memory."""
    return configuration(folder, memory=more + LAYERS.format(learn=learn)) + SASL.format(folder=folder)


@pytest.fixture
def daemon(tmp: Path) -> Iterator[Daemon]:
    """Give a running daemon with layers."""
    with Daemon(tmp, text(tmp)) as running:
        yield running


def run(daemon: Daemon, *arguments: str, stdin: str = "") -> str:
    """Run the command line and return what it printed."""
    found = extauth(*arguments, "-c", daemon.config, stdin=stdin)
    assert found.returncode == 0, found.stderr
    return found.stdout


def login(daemon: Daemon, mechanism: str, password: str = "fake right") -> bool:
    """Log alice in by a mechanism."""
    arguments = ("login", "alice@xmpp.test", "--mechanism", mechanism, "--password-stdin", "-c", daemon.config)
    return extauth(*arguments, stdin=password).returncode == 0


def trails(daemon: Daemon) -> list[str]:
    """Return the trails of the decisions so far, the last of each kind of login."""
    return re.findall(r" trail=(\S+)", run(daemon, "audit", "tail", "-n", "100"))


def test_by_password_then_by_scram_and_from_memory(daemon: Daemon) -> None:
    assert not login(daemon, "SCRAM-SHA-512")
    assert login(daemon, "PLAIN")
    poll(lambda: "backend people: 1 of 1 active users of xmpp.test have SCRAM keys" in run(daemon, "status"), "keys")
    assert login(daemon, "SCRAM-SHA-512")
    assert not login(daemon, "SCRAM-SHA-512", "fake wrong")
    assert login(daemon, "PLAIN")
    for _ in range(2):
        assert not login(daemon, "PLAIN", "fake wrong")
    assert trails(daemon) == [
        "-:no-user",
        "people:accept",
        "people:accept(learned:people)",
        "people:bad-password",
        "people:accept(cache)",
        "people:bad-password",
        "people:bad-password(repeat)",
    ]
    assert "backend people: remembers 2 logins" in run(daemon, "status")
    assert run(daemon, "cache", "flush", "bob@xmpp.test") == "0 forgotten here\n"
    assert json.loads(run(daemon, "cache", "flush", "Alice@*", "--json")) == {"forgotten": 2}
    assert login(daemon, "PLAIN")
    assert trails(daemon)[-1] == "people:accept"
    assert run(daemon, "cache", "flush") == "1 forgotten here\n"


# Generations ------------------------------------------------------------------------------------------------------------------


async def test_what_is_remembered_outlives_a_reload_that_does_not_concern_it(tmp: Path) -> None:
    settings = read(text(tmp))
    async with open_service(settings.daemon, Journal(None)) as service, AsyncExitStack() as stack:
        first = await service.open_generation(settings, stack)
        service.adopt(first)
        others = text(tmp, more="delay = 2.0\n"), text(tmp).replace("ttl = 600", "ttl = 60")
        for changed, kept in ((others[0], False), (others[1], False), (text(tmp), True)):
            generation = await service.open_generation(read(changed), stack)
            assert (generation.layered["people"].remembered is first.layered["people"].remembered) is kept, changed


async def test_a_user_can_be_forgotten_by_other_parts(tmp: Path) -> None:
    async with serve_here(tmp, text(tmp)) as served:
        remembered = served.service.layered["people"].remembered
        alice = Identity("alice", "xmpp.test")
        for identity in (alice, Identity("slow", "xmpp.test")):
            await settle(served.service.ask(CheckPassword(identity, ORIGIN, Secret("fake right"))))
        assert len(remembered) == 2
        await served.service.caches.forget(alice)
        assert len(remembered) == 1


# What is advertised -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("learn", "offered"), [("off", False), ("collect", False), ("offer", True)])
async def test_scram_is_advertised_if_learned_keys_are_offered(tmp: Path, learn: str, *, offered: bool) -> None:
    async with serve_here(tmp, text(tmp, learn)) as served:
        names = served.service.offer(Stream(domain="xmpp.test", origin=ORIGIN, secure=True)).mechanisms
        assert ("SCRAM-SHA-512" in names) is offered
        assert "PLAIN" in names
        assert served.service.advice() == []
        decoys = served.service._generation.sasl["xmpp.test"].options.iterations  # pyright: ignore[reportPrivateUsage]
        assert decoys == (4096 if offered else 10_000)
    assert any("learn_scram" in warning for warning in advice(served.service.settings)) is offered


# Configuration ----------------------------------------------------------------------------------------------------------------


def test_the_layers_are_read(tmp: Path) -> None:
    table = """\
learn_scram = "collect"
learn_days = 7
[backend.people.cache]
ttl = 5
grace = 3600
[backend.people.names]
strip_suffix = "-corp"
"""
    layers = read(configuration(tmp, memory=table)).backends["people"].layers
    expected = Layers(CacheRules(ttl=5.0, grace=3600.0), NameRules(strip_suffix="-corp"), "collect", 7.0)
    assert layers == expected
    assert read(configuration(tmp)).backends["people"].layers == Layers()


def test_everything_wrong_with_them_is_told_in_its_place(tmp: Path) -> None:
    table = """\
learn_scram = "offers"
[backend.people.cache]
tll = 5
[backend.people.names]
template = "{user.__class__}"
"""
    with pytest.raises(ConfigError) as caught:
        read(configuration(tmp, memory=table).replace("[domain.", "[backend.local]\ncache = 5\n[domain."))
    assert sorted(caught.value.problems) == [
        "backend.local.cache: must be a table",
        "backend.people.cache.tll: unknown key (did you mean 'ttl'?)",
        'backend.people.learn_scram: must be "off" or "collect" or "offer" (did you mean "offer"?)',
        "backend.people.names.template: {user.__class__} is no place; there are {user} and {domain}",
    ]


async def test_a_backend_of_tokens_has_no_cache(tmp: Path) -> None:
    table = '[backend.app]\ntype = "tests.backends.bearer"\n[backend.app.cache]\nttl = 5\n[domain.'
    settings = read(configuration(tmp).replace("[domain.", table).replace('["people"]', '["app", "people"]'))
    with pytest.raises(ConfigError, match=r"^backend\.app\.cache: this backend takes tokens"):
        async with open_without_listeners(settings):
            pass


# Who knows a name -------------------------------------------------------------------------------------------------------------


def test_check_names_the_backends_that_know_a_user(tmp: Path) -> None:
    more = """\
[backend.others]
type = "tests.backends.memory"
accounts = ["alice:fake other", "bob:fake bob"]
[backend.app]
type = "tests.backends.bearer"
[domain."empty.test"]
backends = ["others"]
[domain."""
    config = tmp / "extauth.toml"
    config.write_text(configuration(tmp).replace("[domain.", more, 1).replace('["people"]', '["app", "people", "others"]'))
    found = extauth("check", "--online", "--user", "Alice", "-c", config)
    assert found.returncode == 0, found.stderr
    for line in (
        "alice@xmpp.test: app can't tell: it can't be asked",
        "alice@xmpp.test: people knows it",
        "alice@xmpp.test: others knows it",
        "alice@xmpp.test: seen does not know it",
        "warning: alice@xmpp.test is known to people and others: people decides",
        "alice@empty.test: others knows it",
    ):
        assert line in found.stdout.splitlines()
    one = json.loads(extauth("check", "--online", "--user", "bob@xmpp.test", "--json", "-c", config).stdout)
    assert {entry["backend"]: entry["knows"] for entry in one["knowing"]} == {
        "app": None, "people": False, "others": True, "seen": False,
    }  # fmt: skip
    assert not any("is known to" in warning for warning in one["warnings"])
    down = json.loads(extauth("check", "--online", "--user", "down@xmpp.test", "--json", "-c", config).stdout)
    told = {"jid": "down@xmpp.test", "backend": "people", "knows": None, "problem": "out to lunch", "down": True}
    assert told in down["knowing"]


@pytest.mark.parametrize(("arguments", "status"), [(("--user", "alice"), 64), (("--online", "--user", "a/b@xmpp.test"), 65)])
def test_a_name_that_can_not_be_asked_for_is_told(tmp: Path, arguments: tuple[str, ...], status: int) -> None:
    (tmp / "extauth.toml").write_text(configuration(tmp))
    assert extauth("check", *arguments, "-c", tmp / "extauth.toml").returncode == status
