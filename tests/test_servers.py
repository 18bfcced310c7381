"""The real servers of tests/servers start, decide logins of a real client, and stop."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest

from tests import needs
from tests.certificates import Certificates
from tests.servers.dovecot import Dovecot
from tests.servers.ejabberd import Ejabberd
from tests.servers.process import Server, temporary_folder
from tests.servers.prosody import Prosody
from tests.xmppclient import Job, XmppClient

# Holds one account in memory; speaks ejabberd's external authentication, two bytes of length and a text.
_PROGRAM = """\
    import struct, sys
    accounts = {"alice": "a:lice pw"}
    while header := sys.stdin.buffer.read(2):
        verb, user, _, *rest = sys.stdin.buffer.read(*struct.unpack(">H", header)).decode().split(":", 3)
        password = "".join(rest)
        if verb == "auth":
            answer = accounts.get(user) == password
        elif verb in ("tryregister", "setpass"):
            accounts[user], answer = password, True
        elif verb == "removeuser":
            answer = accounts.pop(user, None) is not None
        else:
            answer = user in accounts
        sys.stdout.buffer.write(struct.pack(">HH", 2, answer))
        sys.stdout.buffer.flush()
    """


@pytest.fixture(scope="module")
def ejabberd(certificates: Certificates) -> Iterator[Ejabberd]:
    with temporary_folder() as folder:
        program = folder / "program.py"
        program.write_text(dedent(_PROGRAM))
        command = f"{sys.executable} {program}"
        with Ejabberd(folder, certificates, command, pool_size=1, register=True) as server:
            yield server


@needs.debian("ejabberd")
def test_ejabberd_asks_the_program(ejabberd: Ejabberd, xmpp: XmppClient) -> None:
    outcome = xmpp.login(ejabberd.port, "alice@xmpp.test", "a:lice pw")
    assert outcome.ok
    assert outcome.mechanism == "PLAIN"
    assert outcome.jid.startswith("alice@xmpp.test/")
    refused = xmpp.login(ejabberd.port, "alice@xmpp.test", "wrong")
    assert (refused.ok, refused.condition) == (False, "not-authorized")
    assert ejabberd.api("check_account", user="alice", host="xmpp.test") == 0


@needs.debian("ejabberd")
def test_a_client_registers_changes_and_removes_its_account(ejabberd: Ejabberd, xmpp: XmppClient) -> None:
    first = Job(port=ejabberd.port, jid="bob@xmpp.test", password="first")
    second = replace(first, password="second")
    assert not xmpp.run(first).ok
    assert xmpp.run(replace(first, action="register")).ok
    assert xmpp.run(first).ok
    assert xmpp.run(replace(first, action="change-password", new_password="second")).ok
    assert not xmpp.run(first).ok
    assert xmpp.run(second).ok
    assert xmpp.run(replace(second, action="unregister")).ok
    assert not xmpp.run(second).ok


@needs.debian("ejabberd")
def test_many_logins_at_once(ejabberd: Ejabberd, xmpp: XmppClient) -> None:
    passwords = ["a:lice pw", "wrong"] * 10
    jobs = [Job(port=ejabberd.port, jid="alice@xmpp.test", password=password) for password in passwords]
    outcomes = [future.result().ok for future in [xmpp.submit(job) for job in jobs]]
    assert outcomes == [True, False] * 10


@needs.debian("prosody")
def test_prosody(certificates: Certificates, xmpp: XmppClient, tmp: Path) -> None:
    extra = "allow_registration = true"
    with Prosody(tmp, certificates, 'authentication = "internal_hashed"', extra=extra) as server:
        registered = xmpp.run(Job(port=server.port, jid="alice@xmpp.test", password="alice pw", action="register"))
        assert registered.ok, registered
        login = xmpp.login(server.port, "alice@xmpp.test", "alice pw")
        assert (login.ok, login.mechanism) == (True, "SCRAM-SHA-1")
        bound = xmpp.run(Job(port=server.port, jid="alice@xmpp.test", password="alice pw", tls_1_2=True))
        assert (bound.ok, bound.mechanism) == (True, "SCRAM-SHA-1-PLUS")
        direct = xmpp.run(Job(port=server.tls_port, jid="alice@xmpp.test", password="alice pw", tls="direct"))
        assert direct.ok
        refused = xmpp.login(server.port, "alice@xmpp.test", "wrong", "PLAIN")
        assert (refused.ok, refused.condition) == (False, "not-authorized")
        assert "PLAIN" in refused.offered
        assert xmpp.login(server.port, "alice@xmpp.test", "x", "X-OAUTH2").condition == "no-mechanism"
    gone = xmpp.login(server.port, "alice@xmpp.test", "alice pw")
    assert gone.condition == "connection-failed"


@needs.debian("dovecot")
@pytest.mark.parametrize(("password", "status"), [("alice pw", 0), ("wrong", 77)])
def test_dovecot(tmp: Path, password: str, status: int) -> None:
    with Dovecot(tmp, {"alice": "alice pw"}) as server:
        command = f"doveadm -c {server.configuration} auth test -a {server.socket} alice".split()
        done = subprocess.run([*command, password], capture_output=True, check=False)
        assert done.returncode == status, server.log()


class _Broken(Server):
    command = ("sh", "-c", "echo no configuration; exit 3")

    def ready(self) -> bool:
        return False


def test_a_server_that_ends_at_once_is_named(tmp: Path) -> None:
    with pytest.raises(AssertionError, match="_Broken ended with 3") as caught:
        _Broken(tmp).start()
    assert caught.value.__notes__ == ["no configuration\n"]


class _Unfurnished(Server):
    command = ("sleep", "1000")

    def ready(self) -> bool:
        return True

    def furnish(self) -> None:
        self.started = self.pid
        raise RuntimeError("no furniture")


def test_a_server_that_can_not_be_furnished_is_ended(tmp: Path) -> None:
    server = _Unfurnished(tmp)
    with pytest.raises(RuntimeError, match="no furniture"):
        server.start()
    assert not Path(f"/proc/{server.started}").exists()
