"""The command line: what it prints, how it ends, and that it never shows a password."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from extauth.cli import common
from extauth.cli.root import cli
from tests.daemons import EXTAUTH, Daemon, configuration, extauth, with_local_accounts
from tests.servers.process import poll, temporary_folder

PASSWORD = "fake password 1"
UNKNOWN_DOMAIN = "this domain is not configured (unknown-domain)"


def run(*arguments: str | Path, stdin: str | bytes = "", environment: dict[str, str] | None = None) -> Result:
    """Run a command within this process; what is a bug is raised."""
    return CliRunner(env={"EXTAUTH_CONFIG": None, **(environment or {})}).invoke(
        cli, [str(argument) for argument in arguments], input=stdin, catch_exceptions=False
    )


def result(ended: Result) -> Any:  # noqa: ANN401 - JSON
    """Return the JSON that a successful command printed."""
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """Give a daemon with accounts in its own store: alice, and bob, who is disabled; and with backends that fail."""
    with temporary_folder() as folder:
        text = with_local_accounts(folder) + (
            f'[listener.prosody]\nprotocol = "prosody"\naddress = "unix:{folder}/prosody.sock"\n'
            f'[listener.sasl]\nprotocol = "dovecot"\naddress = "unix:{folder}/sasl.sock"\n'
            f'[listener.saslauthd]\nprotocol = "saslauthd"\naddress = "unix:{folder}/mux"\n'
            '[backend.people]\ntype = "tests.backends.memory"\n[domain."down.test"]\nbackends = ["people"]\n'
        )
        with Daemon(folder, text) as daemon:
            for name in ("alice", "bob"):
                run("user", "add", f"{name}@xmpp.test", "--password-stdin", "-c", daemon.config, stdin=PASSWORD)
            run("user", "disable", "bob@xmpp.test", "-c", daemon.config)
            yield daemon


@pytest.fixture
def config(tmp: Path) -> Path:
    """Give a configuration that no daemon serves."""
    path = tmp / "extauth.toml"
    path.write_text(with_local_accounts(tmp))
    return path


# Usage ------------------------------------------------------------------------------------------------------------------------


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command."""
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("words", [(), *(words for words in commands() if words != ("connect",))], ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    ended = run(*words, "--help")
    assert ended.exit_code == 0
    assert ended.stdout.startswith("Usage: ")
    assert ended.stderr == ""


def test_the_connector_is_started_by_the_same_program() -> None:
    ended = extauth("connect", "--help")
    assert ended.returncode == 0
    assert "ejabberd" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"], ["serve", "--nonsense"], ["serve", "extra"], ["login"], ["user", "add"], ["user", "nonsense"],
        ["audit", "tail", "-n", "x"], ["login", "a@b", "--password", PASSWORD], ["user", "add", "a@b", PASSWORD],
        ["token", "issue", "a@b", "--kind", "tempory"], ["token", "issue", "a@b", "--one-time"],
        ["token", "issue", "a@b", "--lifetime", "9"], ["token", "issue", "a@b", "--kind", "fast", "--device", "phone"],
        ["token", "issue", "a@b", "--kind", "guest", "--vcard", "<vCard/>"], ["token", "issue", "a@b", "--room", "c@d"],
        ["token", "issue", "a@b", "--kind", "guest", "--mechanism", "PLAIN"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_told(arguments: list[str]) -> None:
    ended = run(*arguments)
    assert ended.exit_code == os.EX_USAGE
    assert "Usage: " in ended.stderr
    assert ended.stdout == ""


def test_no_option_takes_a_password() -> None:
    def options(command: click.Command) -> Iterator[click.Parameter]:
        yield from command.params
        if isinstance(command, click.Group):
            for sub in command.commands.values():
                yield from options(sub)

    passwords = [option for option in options(cli) if any("pass" in text for text in option.opts)]
    assert passwords
    assert all(isinstance(option, click.Option) and option.is_flag for option in passwords)


def test_as_a_process_it_ends_the_same(tmp: Path) -> None:
    assert extauth("--version").stdout.startswith("extauth, version ")
    assert extauth("nonsense").returncode == os.EX_USAGE
    ended = extauth("check", folder=tmp, environment={"EXTAUTH_CONFIG": str(tmp / "none.toml")})
    assert (ended.returncode, ended.stdout) == (os.EX_CONFIG, "")
    assert ended.stderr == f"extauth: {tmp}/none.toml: No such file or directory\n"


# Which configuration ----------------------------------------------------------------------------------------------------------


def test_the_configuration_is_chosen_in_order(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.toml", "b.toml", "extauth.toml"):
        (tmp / name).write_text(with_local_accounts(tmp))
    monkeypatch.chdir(tmp)

    def chosen(*arguments: str, **environment: str) -> str:
        return str(result(run(*arguments, environment=environment))["file"])

    assert chosen("check", "--json") == "extauth.toml"
    assert chosen("check", "--json", EXTAUTH_CONFIG="b.toml") == "b.toml"
    assert chosen("--json", "-c", "a.toml", "check", EXTAUTH_CONFIG="b.toml") == "a.toml"
    assert chosen("check", "-c", "a.toml", "--json", EXTAUTH_CONFIG="b.toml") == "a.toml"
    assert chosen("-c", "b.toml", "check", "--config", "a.toml", "--json") == "a.toml"
    (tmp / "extauth.toml").unlink()
    missing = run("check")
    assert missing.exit_code == (os.EX_CONFIG if not Path("/etc/extauth/extauth.toml").exists() else missing.exit_code)


def test_a_default_that_can_not_be_looked_at_is_no_bug(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp)
    far = "x" * 300  # as a folder is that others may not enter: to look for the file is an error
    monkeypatch.setattr(common, "DEFAULT_FILES", (Path(far) / "a.toml", Path(far) / "b.toml"))
    missing = run("check")
    assert (missing.exit_code, missing.stderr) == (os.EX_CONFIG, f"extauth: {far}/b.toml: File name too long\n")


# check ------------------------------------------------------------------------------------------------------------------------


def test_a_good_configuration_is_good(tmp: Path) -> None:
    path = tmp / "extauth.toml"
    path.write_text(with_local_accounts(tmp, local="min_length = 9").replace("iterations = 4096\n", ""))
    ended = run("check", "-c", path)
    assert ended.exit_code == 0
    assert ended.stdout.splitlines()[-1] == f"{path}: good"
    assert result(run("check", "-c", path, "--json"))["usable"] is True
    assert not (tmp / "state").exists()  # it has touched nothing
    assert run("check", "--online", "-c", path).exit_code == 0
    assert (tmp / "state/state.db").exists()


def test_everything_that_is_wrong_is_told_at_once(tmp: Path) -> None:
    path = tmp / "extauth.toml"
    path.write_text(
        '[daemon]\nstat = "x"\n[listener.a]\nprotocol = "prosody"\naddress = "tcp:192.0.2.1:1"\n'
        '[listener.b]\nprotocol = "jabber"\n[backend.local]\niterations = "many"\n[domain."xmpp.test"]\nbackends = ["locals"]\n'
    )
    for arguments in (["check"], ["check", "--json"], ["check", "--online"], ["serve"], ["status"], ["user", "list"]):
        ended = run(*arguments, "-c", path)
        assert ended.exit_code == os.EX_CONFIG
        assert ended.stdout == ""
        lines = ended.stderr.splitlines()
        assert len(lines) == 5
        assert all(line.startswith(f"extauth: {path}: ") for line in lines)
        for place in (
            "daemon.stat: unknown key (did you mean 'state'?)",
            "listener.a.address: ",
            "listener.b.protocol: no protocol",
        ):
            assert place in ended.stderr
        for place in ("backend.local.iterations: must be a whole number", "no backend 'locals'"):
            assert place in ended.stderr


def test_all_that_can_not_be_opened_is_told_at_once(tmp: Path) -> None:
    path = tmp / "extauth.toml"
    path.write_text(
        with_local_accounts(tmp).replace(
            "[listener.ejabberd]", '[listener.ejabberd]\nallow_users = ["no-1", "no-2"]\ngroup = "no-3"'
        )
        + '[listener.sasl]\nprotocol = "dovecot"\naddress = "unix:/nonexistent/sasl.sock"\n'
    )
    ended = run("serve", "-c", path)
    assert ended.exit_code == os.EX_CONFIG
    assert ended.stderr.splitlines() == [
        "extauth: listener.ejabberd.allow_users: there is no user 'no-1'",
        "extauth: listener.ejabberd.allow_users: there is no user 'no-2'",
        f"extauth: listener.ejabberd.address: unix:{tmp}/ejabberd.sock: there is no group 'no-3'",
        "extauth: listener.sasl.address: unix:/nonexistent/sasl.sock: its folder does not exist",
    ]
    assert not (tmp / "ejabberd.sock").exists()


def test_online_looks_for_the_users_and_groups_of_listeners(tmp: Path) -> None:
    path = tmp / "extauth.toml"
    path.write_text(
        with_local_accounts(tmp).replace(
            "[listener.ejabberd]", '[listener.ejabberd]\nallow_users = ["no-1", "0"]\ngroup = "no-2"'
        )
    )
    here = {
        "listener.ejabberd.allow_users: there is no user 'no-1' on this machine",
        "listener.ejabberd.group: there is no group 'no-2' on this machine",
    }
    assert here.isdisjoint(result(run("check", "-c", path, "--json"))["warnings"])
    assert here < set(result(run("check", "--online", "-c", path, "--json"))["warnings"])


def test_online_opens_the_store_and_every_backend(tmp: Path) -> None:
    path = tmp / "extauth.toml"
    cases = [
        (configuration(tmp, memory='unusable = "no such directory"'), os.EX_CONFIG, "backend.people: no such directory"),
        (configuration(tmp, memory='away = "out to lunch"'), os.EX_TEMPFAIL, "out to lunch"),
        (configuration(tmp).replace("/state/state.db", "/extauth.toml"), os.EX_CONFIG, "daemon.state: "),
        (configuration(tmp).replace("/state/state.db", "/extauth.toml/x.db"), os.EX_CONFIG, "daemon.state: "),
    ]
    for text, status, problem in cases:
        path.write_text(text)
        path.chmod(0o600)
        assert run("check", "-c", path).exit_code == 0
        ended = run("check", "--online", "-c", path)
        assert (ended.exit_code, ended.stdout) == (status, ""), ended.output
        assert problem in ended.stderr
        assert path.read_text() == text


def test_online_names_what_does_not_answer(tmp: Path) -> None:
    path = tmp / "extauth.toml"
    unreachable = f"""\
[backend.app]
type = "sqlite"
path = "{tmp}/absent.db"
preset = "prosody"
[domain."""
    path.write_text(configuration(tmp).replace("[domain.", unreachable, 1).replace('["people"]', '["people", "app"]'))
    ended = run("check", "--online", "-c", path)
    assert ended.exit_code == os.EX_TEMPFAIL
    assert f"backend.app can't be reached: {tmp}/absent.db: " in ended.stderr
    assert "backend.people" not in ended.stderr
    told = run("check", "--online", "--json", "-c", path)
    assert told.exit_code == os.EX_TEMPFAIL
    assert list(json.loads(told.stdout)["unreachable"]) == ["app"]


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("unix:/tmp/e.sock", "/tmp/e.sock: ejabberd's unit has PrivateTmp"),
        ("unix:/var/tmp/e.sock", "/var/tmp/e.sock: ejabberd's unit has PrivateTmp"),
        ("unix:/home/me/e.sock", "/home/me/e.sock: ejabberd's unit has ProtectHome"),
        ("unix:/root/e.sock", "/root/e.sock: ejabberd's unit has ProtectHome"),
        ("unix:/run/extauth/e.sock", None),
        ("unix:/tmpfiles/e.sock", None),
    ],
)
def test_sockets_that_ejabberd_can_not_see_are_told(tmp: Path, address: str, hint: str | None) -> None:
    path = tmp / "extauth.toml"
    path.write_text(with_local_accounts(tmp).replace(f"unix:{tmp}/ejabberd.sock", address))
    warnings = [it for it in result(run("check", "-c", path, "--json"))["warnings"] if it.startswith("listener.ejabberd")]
    assert [hint in warning for warning in warnings if hint] == ([True] if hint else [])
    assert (hint is not None) == bool(warnings)
    text = run("check", "-c", path).stdout
    assert (hint is None) or f"warning: listener.ejabberd.address: {hint}" in text


def test_a_connector_below_home_is_told(tmp: Path, monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    (tmp / "extauth-connect").write_text("#!/bin/sh\n")
    (tmp / "extauth-connect").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp))
    (hint,) = [it for it in result(run("check", "-c", config, "--json"))["warnings"] if "extauth-connect" in it]
    assert "install extauth under /usr or /opt" in hint


@pytest.mark.parametrize(("backends", "told"), [('"local", "tokens"', True), ('"tokens", "local"', False)])
def test_tokens_that_would_be_sent_to_others_are_told(tmp: Path, backends: str, told: bool) -> None:  # noqa: FBT001
    path = tmp / "extauth.toml"
    path.write_text(with_local_accounts(tmp).replace('backends = ["local"]', f"backends = [{backends}]"))
    warnings = result(run("check", "-c", path, "--json"))["warnings"]
    warning = 'domain."xmpp.test".backends: tokens go to local as passwords; name the tokens backend first'
    assert (warning in warnings) == told


@pytest.mark.parametrize("protocol", ["ejabberd", "prosody", "dovecot", "saslauthd"])
def test_few_iterations_and_open_ports_are_told(tmp: Path, protocol: str) -> None:
    path = tmp / "extauth.toml"
    path.write_text(with_local_accounts(tmp) + f'[listener.p]\nprotocol = "{protocol}"\naddress = "tcp:127.0.0.1:20001"\n')
    warnings = result(run("check", "-c", path, "--json"))["warnings"]
    assert "backend.local.iterations: 4096 is less than XEP-0438 advises (10000)" in warnings
    assert "listener.p.address: every user of this machine can connect to tcp:127.0.0.1:20001" in warnings


# user -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("served", [True, False], ids=["daemon", "no daemon"])
def test_accounts_are_managed(served: bool, daemon: Daemon, config: Path) -> None:  # noqa: FBT001
    choice: list[str | Path] = ["-c", daemon.config if served else config]

    def user(*arguments: str, stdin: str = "", status: int = 0) -> Result:
        ended = run("user", *arguments, *choice, stdin=stdin)
        assert ended.exit_code == status, ended.output
        return ended

    def enabled() -> str:
        return str(json.loads(user("show", "carol@xmpp.test", "--json").stdout)["enabled"])

    made = user("add", "Carol@XMPP.test", "--password-stdin", stdin=f"{PASSWORD}\r\nsecond line")
    assert made.stdout == "carol@xmpp.test: made\n"
    again = user("add", "carol@xmpp.test", "--password-stdin", stdin=PASSWORD, status=os.EX_CANTCREAT)
    assert again.stderr == "extauth: there is such an account already (user-exists)\n"
    user("add", "dave@xmpp.test", "--json", "--password-stdin", stdin=PASSWORD)
    assert re.search(
        r"^jid: carol@xmpp.test\nenabled: yes\niterations: 4096\ncreated: \d{4}-", user("show", "carol@xmpp.test").stdout
    )
    listed = user("list").stdout.splitlines()
    assert {"carol@xmpp.test", "dave@xmpp.test"} <= set(listed)
    assert user("disable", "carol@xmpp.test").stdout == "carol@xmpp.test: disabled\n"
    assert enabled() == "no"
    assert "carol@xmpp.test (disabled)" in user("list", "xmpp.test").stdout.splitlines()
    assert user("enable", "carol@xmpp.test").stdout == "carol@xmpp.test: enabled\n"
    assert enabled() == "yes"
    assert (
        user("passwd", "carol@xmpp.test", "--password-stdin", stdin="fake password 2").stdout
        == "carol@xmpp.test: password set\n"
    )
    assert user("remove", "dave@xmpp.test", stdin="n\n", status=1).stdout.startswith("Remove this account")
    assert user("remove", "dave@xmpp.test", "--yes").stdout == "dave@xmpp.test: removed\n"
    assert user("remove", "carol@xmpp.test", stdin="y\n").stdout.endswith("carol@xmpp.test: removed\n")
    names = [account["jid"] for account in json.loads(user("list", "--json").stdout)]
    assert "carol@xmpp.test" not in names
    assert "dave@xmpp.test" not in names


@pytest.mark.parametrize("served", [True, False], ids=["daemon", "no daemon"])
@pytest.mark.parametrize(
    ("arguments", "password", "status", "words"),
    [
        (["show", "nobody@xmpp.test"], "", os.EX_NOUSER, "there is no such account (no-user)"),
        (["disable", "nobody@xmpp.test"], "", os.EX_NOUSER, "there is no such account (no-user)"),
        (["enable", "nobody@xmpp.test"], "", os.EX_NOUSER, "there is no such account (no-user)"),
        (["remove", "--yes", "nobody@xmpp.test"], "", os.EX_NOUSER, "there is no such account (no-user)"),
        (["passwd", "nobody@xmpp.test"], PASSWORD, os.EX_NOUSER, "there is no such account (no-user)"),
        (["add", "nobody"], PASSWORD, os.EX_DATAERR, "not a valid name (bad-name): a JID is needed: user@domain"),
        (["add", "a b@xmpp.test"], PASSWORD, os.EX_DATAERR, "not a valid name (bad-name): "),
        (["add", "@xmpp.test"], PASSWORD, os.EX_DATAERR, "not a valid name (bad-name): "),
        (["add", "new@other.test"], PASSWORD, os.EX_DATAERR, UNKNOWN_DOMAIN),
        (["list", "other.test"], "", os.EX_DATAERR, UNKNOWN_DOMAIN),
        (["add", "new@xmp.test"], PASSWORD, os.EX_DATAERR, f"{UNKNOWN_DOMAIN}: did you mean 'xmpp.test'?"),
        (["list", "xmp.test"], "", os.EX_DATAERR, f"{UNKNOWN_DOMAIN}: did you mean 'xmpp.test'?"),
        (["add", "new@xmpp.test"], "short", os.EX_DATAERR, "the password is too short (password-too-short)"),
        (["add", "new@xmpp.test"], "", os.EX_DATAERR, "the password is empty or holds characters"),
        (["add", "new@xmpp.test"], "x" * 1025, os.EX_DATAERR, "the password is too long (password-too-long)"),
        (["add", "new@xmpp.test"], b"\xff\xfe\xfd" * 9, os.EX_DATAERR, "the password is not UTF-8"),
    ],
)  # fmt: skip
def test_what_can_not_be_done_is_explained(
    served: bool,  # noqa: FBT001
    daemon: Daemon,
    config: Path,
    arguments: list[str],
    password: str | bytes,
    status: int,
    words: str,
) -> None:
    from_stdin = ["--password-stdin"] if arguments[0] in ("add", "passwd") else []
    for form in ([], ["--json"]):
        ended = run("user", *arguments, *from_stdin, *form, "-c", daemon.config if served else config, stdin=password)
        assert ended.exit_code == status
        assert ended.stderr.startswith(f"extauth: {words}")
        assert ended.stdout == ""


def test_a_password_is_asked_for_twice_and_not_shown(config: Path) -> None:
    ended = run("user", "add", "eve@xmpp.test", "-c", config, stdin=f"{PASSWORD}\nanother one\n{PASSWORD}\n{PASSWORD}\n")
    assert ended.exit_code == 0
    assert ended.stderr.count("Password") >= 2
    assert "do not match" in ended.stderr
    assert PASSWORD not in ended.output
    assert ended.stdout == "eve@xmpp.test: made\n"


def test_long_lists_come_in_pages(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{name}@xmpp.test" for name in "abcde"]
    for name in names:
        assert run("user", "add", name, "--password-stdin", "-c", config, stdin=PASSWORD).exit_code == 0
    for page in (1, 2, 5, 6):
        monkeypatch.setattr("extauth.cli.user.PAGE", page)
        assert run("user", "list", "-c", config).stdout.split() == names


def test_an_unusable_store_is_told(tmp: Path, config: Path) -> None:
    (tmp / "state").write_text("not a folder")
    ended = run("user", "list", "-c", config)
    assert ended.exit_code == os.EX_CONFIG
    assert ended.stderr.startswith("extauth: daemon.state: ")


def test_a_backend_that_keeps_no_accounts_says_so(tmp: Path) -> None:
    path = tmp / "extauth.toml"
    path.write_text(configuration(tmp))
    ended = run("user", "disable", "alice@xmpp.test", "-c", path)
    assert ended.exit_code == os.EX_DATAERR
    assert ended.stderr == "extauth: no backend of this domain can do that (not-supported)\n"
    ended = run("user", "passwd", "down@xmpp.test", "-c", path, "--password-stdin", stdin=PASSWORD)
    assert ended.exit_code == os.EX_TEMPFAIL
    assert ended.stderr == "extauth: backend-down: people: out to lunch\n"


# login ------------------------------------------------------------------------------------------------------------------------


def login(daemon: Daemon, jid: str, *arguments: str, password: str = PASSWORD) -> Result:
    return run("login", jid, "--password-stdin", "-c", daemon.config, *arguments, stdin=password)


@pytest.mark.parametrize(
    ("listener", "replies"), [("ejabberd", (r"\x00\x02\x00\x01", r"\x00\x02\x00\x00")), ("prosody", (r"1\n", r"0\n"))]
)
def test_a_login_takes_the_real_path(daemon: Daemon, listener: str, replies: tuple[str, str]) -> None:
    accepted = login(daemon, "Alice@xmpp.test", "--listener", listener)
    assert accepted.exit_code == 0
    assert accepted.stdout.startswith("alice@xmpp.test: accept (ok)\n")
    assert f"listener {listener} ({listener}), which replied {replies[0]}\n" in accepted.stdout
    assert re.search(r"decided   by local in \d+\.\d ms\n  asked     local said accept\n", accepted.stdout)
    refused = login(daemon, "alice@xmpp.test", "--listener", listener, password="fake wrong")
    assert refused.exit_code == os.EX_NOPERM
    assert refused.stdout.startswith("alice@xmpp.test: reject (bad-password)\n")
    assert f"which replied {replies[1]}\n" in refused.stdout
    assert refused.stdout.endswith("see       docs/reasons.md#bad-password\n")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-1", "scram-sha-512"])
def test_a_login_by_a_mechanism(daemon: Daemon, mechanism: str) -> None:
    accepted = login(daemon, "alice@xmpp.test", "--mechanism", mechanism)
    assert accepted.exit_code == 0
    assert "through   listener sasl (dovecot), which replied OK user=alice\n" in accepted.stdout
    assert "decided   by local in" in accepted.stdout
    refused = login(daemon, "alice@xmpp.test", "--mechanism", mechanism, password="fake wrong")
    assert refused.exit_code == os.EX_NOPERM
    assert refused.stdout.startswith("alice@xmpp.test: reject (bad-password)\n")
    assert login(daemon, "bob@xmpp.test", "--mechanism", mechanism, "--json").exit_code == os.EX_NOPERM


def test_a_mechanism_that_can_not_be_played_is_refused(daemon: Daemon) -> None:
    ended = login(daemon, "alice@xmpp.test", "--mechanism", "EXTERNAL")
    assert ended.exit_code == os.EX_DATAERR
    assert ended.stderr.startswith("extauth: can't play the client of EXTERNAL (only of PLAIN, SCRAM-SHA-1")


def test_a_login_through_saslauthd(daemon: Daemon) -> None:
    accepted = login(daemon, "alice@xmpp.test", "--listener", "saslauthd")
    assert accepted.exit_code == 0
    assert r"which replied \x00\x02OK" in accepted.stdout


@pytest.mark.parametrize(
    ("jid", "status", "outcome", "reason"),
    [
        ("alice@xmpp.test", 0, "accept", "ok"),
        ("bob@xmpp.test", os.EX_NOPERM, "reject", "account-disabled"),
        ("nobody@xmpp.test", os.EX_NOPERM, "reject", "no-user"),
        ("alice@other.test", os.EX_NOPERM, "reject", "unknown-domain"),
        ("down@down.test", os.EX_TEMPFAIL, "unavailable", "backend-down"),
        ("bug@down.test", os.EX_TEMPFAIL, "unavailable", "internal-error"),
    ],
)
def test_a_login_tells_its_reason(daemon: Daemon, jid: str, status: int, outcome: str, reason: str) -> None:
    ended = login(daemon, jid, "--json")
    assert ended.exit_code == status
    told = json.loads(ended.stdout)
    assert (told["user"], told["result"], told["reason"], told["listener"]) == (jid, outcome, reason, "ejabberd")
    assert PASSWORD not in ended.output


def test_the_detail_of_an_outage_is_told(daemon: Daemon) -> None:
    assert "detail    people: out to lunch" in login(daemon, "down@down.test").stdout


def test_logins_that_can_not_be_asked_are_explained(daemon: Daemon, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["extauth.cli.login"], "WAIT", 0.1)  # for a decision that never comes
    assert login(daemon, "alice").exit_code == os.EX_DATAERR
    assert login(daemon, "alice@xmpp.test", "--listener", "admin").exit_code == os.EX_USAGE
    too_long = login(daemon, "alice@xmpp.test", password="x" * 70000)
    assert (too_long.exit_code, too_long.stdout) == (os.EX_DATAERR, "")
    closed = login(daemon, "alice@xmpp.test", "--listener", "prosody", password="x" * 70000)
    assert closed.exit_code == os.EX_TEMPFAIL
    nobody = run("login", "alice@xmpp.test", "--password-stdin", "-c", config, stdin=PASSWORD)
    assert nobody.exit_code == os.EX_UNAVAILABLE
    assert nobody.stderr == f"extauth: no daemon is running (nobody listens at {config.parent}/admin.sock)\n"


# status, audit ----------------------------------------------------------------------------------------------------------------


def test_the_status_is_shown(daemon: Daemon) -> None:
    login(daemon, "alice@xmpp.test")
    told = result(run("status", "--json", "-c", daemon.config))
    assert told["uptime"] >= 0
    assert told["audit_lines_lost"] == 0
    assert told["listeners"]["ejabberd"] == {
        "protocol": "ejabberd", "address": f"unix:{daemon.folder}/ejabberd.sock", "connections": 0,
    }  # fmt: skip
    assert told["backends"] == {"local": "local", "people": "tests.backends.memory"}
    assert told["domains"] == {"xmpp.test": ["local"], "down.test": ["people"]}
    counted = {(it["listener"], it["operation"], it["result"], it["reason"]): it["count"] for it in told["decisions"]}
    assert counted["ejabberd", "check-password", "accept", "ok"] >= 1
    text = run("status", "-c", daemon.config).stdout
    assert re.match(r"up \d+ s, 0 reloads \(0 failed\)\n", text)
    assert f"listener ejabberd: ejabberd at unix:{daemon.folder}/ejabberd.sock, 0 connections\n" in text
    assert "domain xmpp.test: asks local\n" in text
    assert re.search(r"\d+  ejabberd check-password accept ok$", text, re.MULTILINE)


def test_the_last_decisions_are_shown(daemon: Daemon) -> None:
    for number in range(3):
        login(daemon, f"nobody{number}@xmpp.test")
    lines = run("audit", "tail", "-n", "2", "-c", daemon.config).stdout.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ audit ", line) for line in lines)
    assert [re.sub(r"^\S+ | (peer|ms)=\S+", "", line) for line in lines] == [
        f"audit op=check-password user=nobody{number}@xmpp.test result=reject reason=no-user backend=local listener=ejabberd"
        " client=- mech=- trail=local:unknown"
        for number in (1, 2)
    ]
    told = [json.loads(line) for line in run("audit", "tail", "-n", "2", "--json", "-c", daemon.config).stdout.splitlines()]
    assert [(it["user"], it["reason"]) for it in told] == [(f"nobody{number}@xmpp.test", "no-user") for number in (1, 2)]
    assert run("audit", "tail", "-n", "0", "-c", daemon.config).stdout == ""
    assert len(run("audit", "tail", "-n", "999999", "-c", daemon.config).stdout.splitlines()) > 2


def test_decisions_can_be_followed(daemon: Daemon) -> None:
    command = ["env", "--default-signal=INT"]  # it is ignored where the tests run in the background
    command += [EXTAUTH, "audit", "tail", "--follow", "-n", "0", "-c", str(daemon.config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        said = follower.stdout
        assert said
        assert follower.stderr
        try:
            # Not before it is connected does it see a login.
            poll(lambda: bool(login(daemon, "f@xmpp.test") and select.select([said], [], [], 0)[0]), "a decision")
            assert "user=f@xmpp.test" in said.readline()
            follower.send_signal(signal.SIGINT)
            assert follower.wait(60) in (0, 1)  # at once; if it was just about to wait, when its question is over (20 s)
            assert "Traceback" not in follower.stderr.read()
        finally:
            follower.kill()


@pytest.mark.parametrize(
    "arguments", [["status"], ["audit", "tail"], ["status", "--json"], ["login", "alice@xmpp.test"]], ids=" ".join
)
def test_without_a_daemon_that_is_said(config: Path, arguments: list[str]) -> None:
    ended = run(*arguments, "-c", config)
    assert (ended.exit_code, ended.stdout) == (os.EX_UNAVAILABLE, "")
    assert ended.stderr == f"extauth: no daemon is running (nobody listens at {config.parent}/admin.sock)\n"


@pytest.mark.parametrize("behaviour", ["closes", "resets"])
def test_a_daemon_that_goes_away_is_told(config: Path, behaviour: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{config.parent}/admin.sock")
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as connection:
                if behaviour == "closes":
                    connection.recv(65536)
                else:
                    poll(lambda: bool(connection.recv(1, socket.MSG_PEEK)), "a command")  # left unread: a reset

        server = threading.Thread(target=serve)
        server.start()
        ended = run("status", "-c", config)
        server.join()
    assert (ended.exit_code, ended.stdout) == (os.EX_UNAVAILABLE, "")
    assert ended.stderr.startswith("extauth: the daemon ")


def test_an_admin_socket_of_systemd_is_told(tmp: Path) -> None:
    path = tmp / "extauth.toml"
    path.write_text(with_local_accounts(tmp).replace(f"unix:{tmp}/admin.sock", "systemd:admin"))
    for arguments in (["status"], ["user", "list"]):
        ended = run(*arguments, "-c", path)
        assert ended.exit_code == os.EX_UNAVAILABLE
        assert "known to systemd only" in ended.stderr
    assert not (tmp / "state").exists()


# serve --demo -----------------------------------------------------------------------------------------------------------------


class Demo(Daemon):
    """`extauth serve --demo`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "")
        self.command = [EXTAUTH, "serve", "--demo"]

    def ready(self) -> bool:
        """Tell whether it has said everything."""
        return "external_auth_command" in self.output()


def test_the_demonstration_works_as_it_says(tmp: Path) -> None:
    with Demo(tmp) as demo:
        text = demo.output()
        password = re.search(r"^ +password +(\S+)", text, re.MULTILINE)
        command = re.search(r"^ +(\S+extauth) login -c (\S+) (alice@localhost)$", text, re.MULTILINE)
        folder = re.search(r"Everything it keeps is in (\S+) ", text)
        assert password
        assert command
        assert folder
        assert Path(command[1]).resolve() == Path(EXTAUTH).resolve()
        assert Path(folder[1]).stat().st_mode & 0o777 == 0o700
        right = run("login", "-c", command[2], command[3], stdin=password[1] + "\n")
        assert right.exit_code == 0, right.output
        wrong = run("login", "-c", command[2], command[3], stdin="fake wrong\n")
        assert wrong.exit_code == os.EX_NOPERM
        assert "alice@localhost: reject (bad-password)" in wrong.stdout
        addresses = re.findall(r"tcp:(127.0.0.1):(\d+)|@(127.0.0.1):(\d+)", text)
        assert len(addresses) == 3  # for ejabberd, for Prosody with lpty and without
        for address in addresses:
            host, port = filter(None, address)
            socket.create_connection((host, int(port))).close()
        assert len(re.findall(re.escape(password[1]), text)) == 1
        status = result(run("status", "--json", "-c", command[2]))
        assert set(status["listeners"]) >= {"ejabberd", "prosody", "admin"}
        demo.signal(signal.SIGINT)
        assert demo.wait() == 0
    assert not Path(folder[1]).exists()
    assert password[1] not in demo.output().replace(text, "")
