"""What is told to the site when logins are revoked: once, in the background, whatever becomes of its command."""

import os
import subprocess
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from extauth import revocation
from extauth.issuing import EndSessions
from extauth.model import (
    Accept,
    Identity,
    Reason,
    Reject,
    RemoveUser,
    Request,
    Secret,
    SetEnabled,
    SetPassword,
    UserExists,
)
from extauth.revocation import Revocations
from extauth.soon import settle
from tests.daemons import Daemon, extauth
from tests.fakes import ALICE, ORIGIN, FakeBackend, Scene
from tests.test_credentials import PASSWORD, configured

ROOT = Path(__file__).parent.parent
YES = Accept(ALICE)


def script(folder: Path, body: str) -> Path:
    path = folder / "revoke"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def telling(folder: Path) -> str:
    """Return a configuration by which revocations are told to the file `told`."""
    told = script(folder, f'echo "$@" >> {folder}/told')
    asked = 'backends = ["tokens", "local"]'
    return configured(folder).replace(asked, f'{asked}\nrevocation_command = ["{told}"]')


# What is told


@pytest.mark.parametrize(
    ("request_", "cause"),
    [
        (SetPassword(ALICE, ORIGIN, Secret("x")), "password"),
        (SetEnabled(ALICE, ORIGIN, enabled=False), "disabled"),
        (SetEnabled(ALICE, ORIGIN, enabled=True), None),
        (RemoveUser(ALICE, ORIGIN), "removed"),
        (EndSessions(ALICE, ORIGIN, "administrator"), "administrator"),
        (UserExists(ALICE, ORIGIN), None),
    ],
    ids=lambda value: getattr(value, "operation", str(value)),
)
async def test_a_revocation_is_told_when_it_has_been_made(request_: Request, cause: str | None) -> None:
    kinds = (SetPassword, SetEnabled, RemoveUser, EndSessions, UserExists)
    scene = Scene([FakeBackend(dict.fromkeys(kinds, YES))])
    assert await settle(scene.authority.ask(request_)) == YES
    assert scene.revoked == ([] if cause is None else [(ALICE, cause)])


async def test_what_was_refused_is_not_told() -> None:
    scene = Scene([FakeBackend({UserExists: YES, SetPassword: Reject(Reason.PASSWORD_REFUSED)})])
    await settle(scene.authority.ask(SetPassword(ALICE, ORIGIN, Secret("x"))))
    assert scene.revoked == []


# The command


async def test_the_command_learns_who_and_why(tmp: Path) -> None:
    told = script(tmp, f'printf "%s|" "$#" "$@" >> {tmp}/told')
    async with Revocations.open() as revocations:
        revocations.tell((str(told), "-x"), Identity("o'neil $(id)", "xmpp.test"), "password")
        revocations.tell((), ALICE, "password")
    assert (tmp / "told").read_text() == "4|-x|o'neil $(id)|xmpp.test|password|"


async def test_a_command_that_fails_is_logged_with_its_words(tmp: Path) -> None:
    with capture_logs() as logs:
        async with Revocations.open() as revocations:
            revocations.tell((str(script(tmp, "echo no such server >&2; exit 3")),), ALICE, "removed")
            revocations.tell((str(tmp / "missing"),), ALICE, "removed")
    assert sorted(entry["problem"] for entry in logs) == ["No such file or directory", "status 3: no such server"]
    assert all(entry["user"] == str(ALICE) for entry in logs)


async def test_a_command_that_hangs_is_given_up_and_holds_up_nobody(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation, "PATIENCE", 0.5)
    with capture_logs() as logs:
        async with Revocations.open() as revocations:
            revocations.tell((str(script(tmp, "exec sleep 1000")),), ALICE, "removed")
            with trio.fail_after(20):
                while not logs:
                    await trio.sleep(0.01)
    assert [entry["problem"] for entry in logs] == ["not within 0.5 s"]


async def test_too_many_are_said(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation, "WAITING", 2)
    with capture_logs() as logs:
        async with Revocations.open() as revocations:
            for _ in range(20):
                revocations.tell((str(script(tmp, "exit 0")),), ALICE, "removed")
    assert any("too many" in entry["event"] for entry in logs)


@pytest.mark.parametrize("served", [True, False], ids=["daemon", "command line"])
def test_it_runs_with_and_without_a_daemon(tmp: Path, served: bool) -> None:  # noqa: FBT001
    daemon = Daemon(tmp, telling(tmp))
    if served:
        daemon.start()
    try:
        for words in (("user", "add"), ("user", "passwd")):
            done = extauth(*words, "alice@xmpp.test", "--password-stdin", "-c", daemon.config, stdin=PASSWORD)
            assert done.returncode == 0, done.stderr
        assert extauth("session", "end", "alice@xmpp.test", "-c", daemon.config).returncode == 0
    finally:
        daemon.stop()
    assert sorted((tmp / "told").read_text().splitlines()) == ["alice xmpp.test administrator", "alice xmpp.test password"]


# The examples


@pytest.mark.parametrize(
    ("server", "user", "commands"),
    [
        ("ejabberd", "alice", ["kick_user alice xmpp.test", "clear_cache"]),
        ("ejabberd", "", ["connected_users_vhost xmpp.test", "kick_user bob xmpp.test", "clear_cache"]),
        ("prosody", "alice", ["shell c2s:close('alice@xmpp.test')"]),
        ("prosody", "", ["shell c2s:closeall('xmpp.test')"]),
    ],
)
def test_the_examples(tmp: Path, server: str, user: str, commands: list[str]) -> None:
    control = script(tmp, f'echo "$@" >> {tmp}/told; case $1 in connected*) echo bob@xmpp.test/phone;; esac')
    environment = {**os.environ, "EJABBERDCTL": str(control), "PROSODYCTL": str(control)}
    example = ROOT / "contrib" / server / "extauth-revoke"
    subprocess.run([example, user, "xmpp.test", "password"], env=environment, check=True)
    assert (tmp / "told").read_text().splitlines() == commands
