"""What a site has already - a web application, a script, password files, saslauthd - behind Debian's Prosody and ejabberd."""

import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from extauth.passwords.stored import make
from tests import needs
from tests.certificates import Certificates
from tests.connector import CONNECT
from tests.daemons import Daemon, extauth, head
from tests.servers.ejabberd import Ejabberd
from tests.servers.process import poll, temporary_folder
from tests.servers.prosody import Prosody
from tests.servers.saslauthd import Saslauthd
from tests.servers.slapd import Slapd
from tests.servers.webapp import AUTHORIZATION, WebApp
from tests.xmppclient import Job, Outcome, XmppClient

pytestmark = [needs.debian("prosody"), needs.debian("slapd"), needs.debian("saslauthd")]

RIGHT, WRONG, NEW = "fake r\u00efght: one", "fake wrong", "fake new one"
STRONGEST = "SCRAM-SHA-512"
SCRIPT = Path(__file__).parent / "programs" / "accounts.py"
MODULE = Path(__file__).parent.parent / "contrib" / "prosody"
HOSTS = ("web", "script", "file", "unix")
CONFIGURATION = (
    head("{folder}", ejabberd="allow_changes = true", sasl=True)
    + """\
[backend.web]
type = "http"
url = "https://localhost:{app}/check"
ca_file = "{ca}"
allow_private = true
authorization_file = "{folder}/authorization"
accept_member = "ok"
name_member = "account.name"
[backend.web.names]
template = "{{user}}@{{domain}}"
[backend.script]
type = "program"
command = ["{python}", "-SI", "{script}", "{folder}/accounts.db"]
allow_changes = true
learn_scram = "offer"
learn_iterations = 4096
[backend.file]
type = "file"
path = "{folder}/users"
[backend.unix]
type = "saslauthd"
path = "{mux}"
realm = "none"
[domain."web.xmpp.test"]
backends = ["web"]
[domain."script.xmpp.test"]
backends = ["script"]
[domain."file.xmpp.test"]
backends = ["file"]
[domain."unix.xmpp.test"]
backends = ["unix"]
"""
)


@dataclass(frozen=True)
class Site:
    """The daemon, and what it asks."""

    daemon: Daemon
    app: WebApp

    def decision(self) -> dict[str, Any]:
        """Return the latest decision."""
        told = extauth("audit", "tail", "-n", "1", "--json", "-c", self.daemon.config)
        assert told.returncode == 0, told.stderr
        decision: dict[str, Any] = json.loads(told.stdout)
        return decision


def line(user: str, password: str) -> str:
    """Return a line of the file."""
    return f"{user}:{make('sha512-crypt', password, (1000,))}\n"


@pytest.fixture(scope="module")
def site(certificates: Certificates) -> Iterator[Site]:
    """Give a daemon with a domain for each of them, where alice has an account."""
    with ExitStack() as stack:
        folder, slapd, mux = (stack.enter_context(temporary_folder()) for _ in range(3))
        app = stack.enter_context(WebApp(certificates.server, {("alice@web.xmpp.test", "web.xmpp.test"): RIGHT}))
        directory = stack.enter_context(Slapd(slapd, certificates, {"alice": RIGHT}))
        saslauthd = stack.enter_context(Saslauthd(mux, directory, filter_="(uid=%u)"))
        with closing(sqlite3.connect(folder / "accounts.db")) as database, database:
            database.execute("CREATE TABLE account (name TEXT PRIMARY KEY, password TEXT)")
            names = [(f"{name}@script.xmpp.test", RIGHT) for name in ("alice", "rubbish", "die")]
            database.executemany("INSERT INTO account VALUES (?, ?)", names)
        (folder / "users").write_text(line("alice", RIGHT))
        (folder / "authorization").write_text(AUTHORIZATION)
        (folder / "authorization").chmod(0o600)
        text = CONFIGURATION.format(
            folder=folder, app=app.port, ca=certificates.ca, python=sys.executable, script=SCRIPT, mux=saslauthd.path
        )
        yield Site(stack.enter_context(Daemon(folder, text)), app)


@pytest.fixture(scope="module")
def prosody(site: Site, certificates: Certificates) -> Iterator[Prosody]:
    """Give a Prosody with our module, and a host for each domain."""
    authentication = f"""\
        authentication = "extauth"
        extauth_socket = "{site.daemon.folder}/sasl.sock"
        extauth_accounts_socket = "{site.daemon.folder}/ejabberd.sock"
        allow_registration = true
        """
    hosts = "\n".join(f'VirtualHost "{host}.xmpp.test"' for host in HOSTS)
    with (
        temporary_folder() as folder,
        Prosody(
            folder,
            certificates,
            authentication,
            plugin_paths=(MODULE,),
            modules=("user_account_management",),
            virtual_hosts=hosts,
        ) as server,
    ):
        yield server


@pytest.mark.parametrize("host", HOSTS)
def test_people_log_in_through_prosody(site: Site, prosody: Prosody, xmpp: XmppClient, host: str) -> None:
    jid = f"alice@{host}.xmpp.test"
    right = xmpp.login(prosody.port, jid, RIGHT, "PLAIN")
    assert right.ok, right
    assert right.jid.startswith(f"{jid}/")
    assert site.decision()["trail"] == f"{host}:accept"
    assert xmpp.login(prosody.port, jid, WRONG, "PLAIN").condition == "not-authorized"
    assert site.decision()["trail"] == f"{host}:bad-password"
    assert xmpp.login(prosody.port, f"nobody@{host}.xmpp.test", RIGHT, "PLAIN").condition == "not-authorized"


def test_a_web_application_that_fails_is_an_outage(site: Site, prosody: Prosody, xmpp: XmppClient) -> None:
    site.app.fault = (500, "fake traceback")
    try:
        outcome = xmpp.login(prosody.port, "alice@web.xmpp.test", RIGHT, "PLAIN")
    finally:
        site.app.fault = None
    assert outcome.condition == "temporary-auth-failure"
    assert site.decision()["reason"] == "backend-down"
    assert xmpp.login(prosody.port, "alice@web.xmpp.test", RIGHT, "PLAIN").ok


@pytest.mark.parametrize(("user", "told"), [("rubbish", "neither 0 nor 1"), ("die", "the database is gone")])
def test_a_script_that_fails_is_an_outage(site: Site, prosody: Prosody, xmpp: XmppClient, user: str, told: str) -> None:
    assert xmpp.login(prosody.port, f"{user}@script.xmpp.test", RIGHT, "PLAIN").condition == "temporary-auth-failure"
    decision = site.decision()
    assert decision["reason"] == "backend-down"
    assert told in decision["detail"]
    poll(lambda: xmpp.login(prosody.port, "alice@script.xmpp.test", RIGHT, "PLAIN").ok, "the script is back")


def test_people_of_a_script_get_scram_and_may_change_their_password(site: Site, prosody: Prosody, xmpp: XmppClient) -> None:
    def login(password: str, mechanism: str = STRONGEST) -> Outcome:
        return xmpp.login(prosody.port, "alice@script.xmpp.test", password, mechanism)

    assert login(RIGHT, "PLAIN").ok
    poll(lambda: login(RIGHT).ok, "the keys are learned")
    assert site.decision()["trail"] == "script:accept(learned:script)"
    assert login(WRONG).condition == "not-authorized"
    job = Job(port=prosody.port, jid="alice@script.xmpp.test", password=RIGHT, action="change-password", new_password=NEW)
    assert xmpp.run(job).ok
    assert login(RIGHT).condition == "not-authorized"
    assert login(RIGHT, "PLAIN").condition == "not-authorized"
    assert login(NEW).ok
    assert xmpp.run(Job(port=prosody.port, jid=job.jid, password=NEW, action="change-password", new_password=RIGHT)).ok


def test_a_file_that_is_replaced_is_read_again(site: Site, prosody: Prosody, xmpp: XmppClient) -> None:
    assert not xmpp.login(prosody.port, "bob@file.xmpp.test", NEW, "PLAIN").ok
    users = site.daemon.folder / "users"
    (users.parent / "replacement").write_text(line("alice", RIGHT) + line("bob", NEW))
    os.replace(users.parent / "replacement", users)
    poll(lambda: xmpp.login(prosody.port, "bob@file.xmpp.test", NEW, "PLAIN").ok, "the new file is read")
    assert xmpp.login(prosody.port, "alice@file.xmpp.test", RIGHT, "PLAIN").ok


@needs.debian("ejabberd")
def test_people_log_in_through_ejabberd(site: Site, certificates: Certificates, xmpp: XmppClient, tmp: Path) -> None:
    hosts = tuple(f"{host}.xmpp.test" for host in HOSTS)
    program = f"/usr/bin/python3 -SIE {CONNECT} ejabberd unix:{site.daemon.folder}/ejabberd.sock"
    with Ejabberd(tmp, certificates, program, hosts=hosts) as ejabberd:
        for host in hosts:
            jid = f"alice@{host}"
            assert xmpp.login(ejabberd.port, jid, RIGHT).ok, host
            assert xmpp.login(ejabberd.port, jid, WRONG).condition == "not-authorized", host
            assert xmpp.login(ejabberd.port, f"nobody@{host}", RIGHT).condition == "not-authorized", host
