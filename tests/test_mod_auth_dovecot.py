"""Debian's Prosody with its mod_auth_dovecot against the daemon: slixmpp, and streams by hand."""

from collections.abc import Iterator
from typing import Any

import pytest
import scramp

from tests import needs
from tests.certificates import Certificates
from tests.rawxmpp import SASL, TcpStream, condition, decode
from tests.relay import PASSWORD, TOKEN, Relay, relay
from tests.xmppclient import Job, Outcome, XmppClient

pytestmark = needs.debian("prosody")

HOST = "xmpp.test"
WRONG = "fake wrong"


@pytest.fixture(scope="module")
def site(certificates: Certificates) -> Iterator[Relay]:
    hosts = {
        HOST: 'backends = ["tokens", "local"]',
        "other.xmpp.test": 'backends = ["local"]',
        "away.xmpp.test": 'backends = ["away"]',
    }
    with relay(certificates, hosts) as running:
        running.register("alice", HOST)
        yield running


def _job(site: Relay, mechanism: str, password: str = PASSWORD, host: str = HOST) -> Job:
    return Job(port=site.prosody.port, jid=f"alice@{host}", password=password, mechanism=mechanism)


def _is_refused(outcome: Outcome, condition: str = "not-authorized") -> bool:
    return (outcome.ok, outcome.condition) == (False, condition)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_right_and_wrong_passwords(site: Relay, xmpp: XmppClient, mechanism: str) -> None:
    wrong = xmpp.run(_job(site, mechanism, WRONG))
    assert _is_refused(wrong), wrong
    right = xmpp.run(_job(site, mechanism))
    assert (right.ok, right.mechanism) == (True, mechanism), right
    assert right.jid.startswith(f"alice@{HOST}/")
    elsewhere = xmpp.run(_job(site, mechanism, host="other.xmpp.test"))
    assert _is_refused(elsewhere), "the account of one virtual host is none of another"


def test_right_and_wrong_tokens(site: Relay, xmpp: XmppClient) -> None:
    assert xmpp.run(_job(site, "X-OAUTH2", TOKEN)).ok
    assert _is_refused(xmpp.run(_job(site, "X-OAUTH2", "fake-wrong")))


def test_what_is_offered(site: Relay, xmpp: XmppClient) -> None:
    offered = set(xmpp.run(_job(site, "PLAIN")).offered)
    assert {"PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-384", "SCRAM-SHA-512", "OAUTHBEARER", "X-OAUTH2"} <= offered
    # What the module can't serve: it passes neither channel binding nor certificates, and no guests were asked for.
    assert not {name for name in offered if name.endswith("-PLUS")} | (offered & {"EXTERNAL", "ANONYMOUS"})


class _Scram:
    """A stream in the middle of SCRAM: the server has sent its first message."""

    def __init__(self, stream: TcpStream, user: str, password: str) -> None:
        self._client: Any = scramp.ScramClient(["SCRAM-SHA-256"], user, password)
        self._stream = stream
        challenge = stream.auth("SCRAM-SHA-256", self._client.get_client_first().encode())
        self._client.set_server_first(decode(challenge).decode())

    def ends_well(self) -> bool:
        """Send the proof; tell whether it was taken. Raises if the server's own proof is wrong."""
        answer = self._stream.respond(self._client.get_client_final().encode())
        if answer.tag != f"{SASL}success":
            assert condition(answer) == "not-authorized"
            return False
        self._client.set_server_final(decode(answer).decode())
        return True


def test_clients_in_the_middle_of_scram_at_once(site: Relay, certificates: Certificates) -> None:
    def stream() -> TcpStream:
        return TcpStream(site.prosody.port, HOST, certificates.ca)

    with stream() as first, stream() as second, stream() as third:
        right, wrong, other = _Scram(first, "alice", PASSWORD), _Scram(second, "alice", WRONG), _Scram(third, "alice", PASSWORD)
        assert [other.ends_well(), wrong.ends_well(), right.ends_well()] == [True, False, True]
        assert first.bind().startswith(f"alice@{HOST}/")
        assert third.bind().startswith(f"alice@{HOST}/")


def test_clients_that_go_away_in_the_middle_disturb_nobody(site: Relay, xmpp: XmppClient, certificates: Certificates) -> None:
    for _ in range(5):
        with TcpStream(site.prosody.port, HOST, certificates.ca) as stream:
            _Scram(stream, "alice", PASSWORD)
    with TcpStream(site.prosody.port, HOST, certificates.ca) as stream:
        _Scram(stream, "alice", PASSWORD)
        stream.send('<abort xmlns="urn:ietf:params:xml:ns:xmpp-sasl"/>')
        assert condition(stream.receive()) == "aborted"
        assert _Scram(stream, "alice", PASSWORD).ends_well()
    assert xmpp.run(_job(site, "SCRAM-SHA-512")).ok


def test_many_logins_at_once(site: Relay, xmpp: XmppClient) -> None:
    passwords = [PASSWORD, WRONG] * 10
    futures = [xmpp.submit(_job(site, "SCRAM-SHA-512", password)) for password in passwords]
    outcomes = [future.result() for future in futures]
    assert [outcome.ok for outcome in outcomes] == [True, False] * 10, outcomes


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "X-OAUTH2"])
def test_an_outage_is_no_refusal(site: Relay, xmpp: XmppClient, mechanism: str) -> None:
    assert _is_refused(xmpp.run(_job(site, mechanism, host="away.xmpp.test")), "temporary-auth-failure")


def test_the_daemon_restarts(site: Relay, xmpp: XmppClient, certificates: Certificates) -> None:
    with TcpStream(site.prosody.port, HOST, certificates.ca) as stream:
        waiting = _Scram(stream, "alice", PASSWORD)
        site.daemon.stop()
        site.daemon.start()
        # The module learns only from this attempt that its connection is gone; it makes another for the next.
        assert condition(stream.respond(b"whatever")) == "internal-server-error"
        assert waiting
        assert _Scram(stream, "alice", PASSWORD).ends_well()
    for mechanism in ("PLAIN", "SCRAM-SHA-512"):
        assert xmpp.run(_job(site, mechanism)).ok
        assert _is_refused(xmpp.run(_job(site, mechanism, WRONG)))
