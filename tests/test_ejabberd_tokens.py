"""Debian's ejabberd, whose clients send tokens as their passwords: our own, xcauth's, and JSON Web Tokens."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from extauth.model import Identity
from tests import needs
from tests.certificates import Certificates
from tests.connector import CONNECT
from tests.daemons import Daemon, extauth
from tests.jwts import SECRET, sign, write_secret
from tests.servers.ejabberd import Ejabberd
from tests.servers.process import temporary_folder
from tests.test_signed import token
from tests.xmppclient import Outcome, XmppClient

pytestmark = needs.debian("ejabberd")

SITE = b"fake secret of a site"
PASSWORD = "fake password of alice"
ALICE = Identity("alice", "xmpp.test")
DAEMON = """\
[daemon]
state = "sqlite://{folder}/state/state.db"
[listener.admin]
protocol = "admin"
address = "unix:{folder}/admin.sock"
[listener.ejabberd]
protocol = "ejabberd"
address = "unix:{folder}/ejabberd.sock"
[backend.tokens]
revocable_access = true
[backend.app]
type = "jwt"
preset = "ejabberd"
secret_files = ["{folder}/jwt.secret"]
[backend.cloud]
type = "signed"
format = "xcauth"
secret_files = ["{folder}/xcauth.secret"]
[backend.people]
type = "tests.backends.memory"
accounts = ["alice:{password}"]
[domain."xmpp.test"]
backends = ["tokens", "app", "cloud", "people"]
"""


@dataclass
class Site:
    """An ejabberd and its daemon."""

    ejabberd: Ejabberd
    daemon: Daemon
    client: XmppClient

    def login(self, password: str, user: str = "alice") -> Outcome:
        """Log in by PLAIN over STARTTLS."""
        return self.client.login(self.ejabberd.port, f"{user}@xmpp.test", password)


@pytest.fixture(scope="module")
def site(certificates: Certificates, xmpp: XmppClient) -> Iterator[Site]:
    with temporary_folder() as folder, temporary_folder() as other:
        write_secret(folder / "jwt.secret")
        write_secret(folder / "xcauth.secret", SITE)
        with Daemon(folder, DAEMON.format(folder=folder, password=PASSWORD)) as daemon:
            connector = other / "extauth-ejabberd"
            connector.symlink_to(CONNECT)
            program = f"/usr/bin/python3 -SIE {connector} unix:{folder}/ejabberd.sock"
            with Ejabberd(other, certificates, program) as ejabberd:
                yield Site(ejabberd, daemon, xmpp)


def test_our_own_access_token(site: Site) -> None:
    def run(*command: str) -> str:
        done = extauth(*command, "-c", site.daemon.config)
        assert done.returncode == 0, done.stderr
        return done.stdout

    tokens = json.loads(run("token", "issue", str(ALICE), "--json"))
    outcome = site.login(tokens["access"])
    assert (outcome.ok, outcome.mechanism) == (True, "PLAIN")
    for _ in range(2):
        assert site.login(tokens["refresh"]).condition == "not-authorized"
        assert site.login(tokens["access"]).ok
    assert site.login(tokens["access"], "bob").condition == "not-authorized"
    run("session", "end", str(ALICE))
    assert site.login(tokens["access"]).condition == "not-authorized"


def test_a_token_of_xcauth(site: Site) -> None:
    now = int(time.time())
    good = token(ALICE, now + 600, SITE)
    assert site.login(good).ok
    assert site.login(good).mechanism == "PLAIN"
    for bad in (token(ALICE, now - 1, SITE), token(Identity("bob", "xmpp.test"), now + 600, SITE), good[::-1]):
        assert site.login(bad).condition == "not-authorized"
    assert not site.login(good, "bob").ok


def test_a_json_web_token(site: Site) -> None:
    now = int(time.time())
    good = sign({"jid": str(ALICE), "exp": now + 600})
    assert site.login(good).ok
    for bad in (sign({"jid": str(ALICE), "exp": now - 1}), sign({"jid": "bob@xmpp.test", "exp": now + 600}), good[:-2]):
        assert site.login(bad).condition == "not-authorized"
    assert not site.login(sign({"jid": str(ALICE), "exp": now + 600}, SECRET[::-1])).ok


def test_a_password_as_ever(site: Site) -> None:
    assert site.login(PASSWORD).ok
    assert not site.login(PASSWORD + "!").ok


def test_no_token_is_in_the_log(site: Site) -> None:
    """The last test here: it looks at what the others left behind."""
    log = site.daemon.log()
    assert "backend=cloud" in log
    assert "backend=app" in log
    assert "expired-token" in log
    assert "eyJ" not in log
    assert "xcauth.secret" not in log
