"""Debian's Prosody with contrib/prosody/mod_auth_extauth, against a stand-in for the daemon."""

import base64
import hashlib
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import example, given
from hypothesis import strategies as st

from tests import needs
from tests.certificates import Certificates, make_certificates
from tests.prosody_stub import ProsodyStub, offer
from tests.rawxmpp import SASL, BoshStream, Stream, TcpStream, WebsocketStream, condition, decode, encode
from tests.servers.dovecot import Dovecot
from tests.servers.process import poll, temporary_folder
from tests.servers.prosody import Prosody
from tests.xmppclient import Job, Outcome, XmppClient

pytestmark = needs.debian("prosody")

_ROOT = Path(__file__).parent.parent
_PLUGINS = (_ROOT / "contrib" / "prosody", _ROOT / "tests" / "lua", "/usr/lib/prosody/modules/mod_sasl2")
_HOSTS = """\
    VirtualHost "xmpp.test"
    VirtualHost "anonymous.xmpp.test"
    """
_EXTRA = """\
    allow_registration = true
    c2s_ssl = { verify = { "peer"; "client_once" } }
    """
_TRANSPORTS = ("tcp", "websocket", "bosh")
_PASSWORD = "fake alice"


@dataclass(frozen=True)
class Site:
    """A Prosody and its stand-in."""

    stub: ProsodyStub
    prosody: Prosody
    certificates: Certificates

    def stream(self, transport: str, domain: str = "xmpp.test") -> Stream:
        """Connect."""
        if transport == "tcp":
            return TcpStream(self.prosody.port, domain, self.certificates.ca)
        if transport == "websocket":
            return WebsocketStream(self.prosody.http_port, domain)
        return BoshStream(self.prosody.http_port, domain)

    def job(self, user: str = "alice", password: str = _PASSWORD) -> Job:
        """Return a login by slixmpp."""
        return Job(port=self.prosody.port, jid=f"{user}@xmpp.test", password=password, mechanism="PLAIN")


def _prosody(folder: Path, stub: ProsodyStub, certificates: Certificates) -> Prosody:
    authentication = f"""\
        authentication = "extauth"
        extauth_socket = "{stub.sasl}"
        extauth_accounts_socket = "{stub.accounts_socket}"
        """
    modules = ("legacyauth", "sasl2", "user_account_management", "admin_shell", "extauth_probe")
    return Prosody(
        folder,
        certificates,
        authentication,
        plugin_paths=_PLUGINS,
        modules=modules,
        virtual_hosts=_HOSTS,
        extra=_EXTRA,
    )


@pytest.fixture(scope="module")
def running(certificates: Certificates) -> Iterator[Site]:
    with (
        temporary_folder() as folder,
        ProsodyStub(folder) as stub,
        _prosody(folder, stub, certificates) as prosody,
    ):
        yield Site(stub, prosody, certificates)


@pytest.fixture
def site(running: Site) -> Site:
    """Give a running site whose stand-in has forgotten the tests before."""
    stub = running.stub
    stub.accounts = {"alice": _PASSWORD}
    for collection in (stub.logins, stub.account_questions, stub.held, stub.odd, stub.attributes):
        collection.clear()
    stub.cancelled = 0
    return running


def test_connects_at_the_first_attempt(running: Site) -> None:
    with running.stream("tcp") as stream:
        assert stream.offered()
    assert "No authentication service" not in running.prosody.log()


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_right_and_wrong_password(site: Site, transport: str) -> None:
    with site.stream(transport) as stream:
        assert "PLAIN" in stream.offered()
        refused = stream.plain("alice", "wrong")
        assert (refused.tag, condition(refused)) == (f"{SASL}failure", "not-authorized")
        assert stream.plain("alice", _PASSWORD).tag == f"{SASL}success"
        assert stream.bind().startswith("alice@xmpp.test/")
    first, second = site.stub.logins
    assert first["resp"] == encode(b"\0alice\0wrong")
    assert second["resp"] == encode(b"\0alice\0" + _PASSWORD.encode())


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_many_steps_with_empty_messages_and_final_data(site: Site, transport: str) -> None:
    with site.stream(transport) as stream:
        challenge = stream.auth("X-STEPS")
        assert "resp" not in site.stub.logins[-1]
        assert (challenge.tag, decode(challenge)) == (f"{SASL}challenge", b"")
        assert decode(stream.respond(b"abc")) == b"cba"
        assert decode(stream.respond(b"")) == b""
        success = stream.respond(b"alice")
        assert (success.tag, decode(success)) == (f"{SASL}success", b"done")
    with site.stream(transport) as stream:
        stream.auth("X-STEPS", b"")
        assert site.stub.logins[-1]["resp"] == "="


def test_slixmpp_logs_in(site: Site, xmpp: XmppClient) -> None:
    assert xmpp.run(site.job()).jid.startswith("alice@xmpp.test/")
    assert xmpp.run(site.job(password="wrong")).condition == "not-authorized"


def test_the_daemon_learns_of_the_stream(site: Site) -> None:
    with site.stream("tcp") as stream:
        assert isinstance(stream, TcpStream)
        assert stream.bindings() == ["tls-exporter", "tls-server-end-point"]
        assert "SCRAM-SHA-256-PLUS" in stream.offered()
        assert stream.plain("alice", _PASSWORD).tag == f"{SASL}success"
        assert stream.tls is not None
        exported = stream.tls.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    login = site.stub.logins[-1]
    certificate = x509.load_pem_x509_certificate(site.certificates.server_certificate.read_bytes())
    end_point = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()
    assert base64.b64decode(login["cb-tls-exporter"]) == exported
    assert base64.b64decode(login["cb-tls-server-end-point"]) == end_point
    assert login["offered-cb"] == "tls-exporter,tls-server-end-point"
    assert sorted(login["offered"].split(",")) == stream.offered()
    assert (login["service"], login["domain"], login["secured"]) == ("xmpp", "xmpp.test", "tls")
    assert (login["rip"], login["lip"], login["lport"]) == ("127.0.0.1", "127.0.0.1", str(site.prosody.port))
    assert "final-resp-ok" in login
    assert "cert" not in login


@pytest.mark.parametrize(
    ("key", "digest", "expected"),
    [
        ("ec", "sha384", "sha384"),
        ("rsa:2048", "sha512", "sha512"),
        ("rsa:2048", "sha1", "sha256"),
        ("ed25519", "sha256", None),
    ],
)
def test_the_end_point_is_hashed_as_the_certificate(
    running: Site, tmp: Path, key: str, digest: str, expected: str | None
) -> None:
    path = tmp / "server.crt"
    command = f"openssl req -x509 -newkey {key} -{digest} -nodes -keyout {tmp}/server.key -out {path} -subj /CN=xmpp.test"
    curve = ["-pkeyopt", "ec_paramgen_curve:prime256v1"] if key == "ec" else []
    subprocess.run([*command.split(), *curve], check=True, capture_output=True)
    own = replace(running.certificates, ca=path, server_certificate=path, server_key=tmp / "server.key")
    with _prosody(tmp, running.stub, own) as prosody, Site(running.stub, prosody, own).stream("tcp") as stream:
        stream.plain("alice", _PASSWORD)
    sent = running.stub.logins[-1].get("cb-tls-server-end-point")
    if expected is None:
        assert sent is None
    else:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        der = certificate.public_bytes(serialization.Encoding.DER)
        assert sent == encode(hashlib.new(expected, der).digest())


@pytest.mark.parametrize("transport", ["websocket", "bosh"])
def test_no_binding_to_streams_protected_by_others(site: Site, transport: str) -> None:
    with site.stream(transport) as stream:
        assert stream.bindings() == []
        assert stream.offered() == ["PLAIN", "X-STEPS"]
        stream.plain("alice", _PASSWORD)
    login = site.stub.logins[-1]
    assert login["secured"] == ""
    assert not any(key.startswith("cb-") for key in login)


def test_tls_unique_on_tls_1_2(site: Site, xmpp: XmppClient) -> None:
    assert xmpp.run(replace(site.job(), tls_1_2=True)).ok
    login = site.stub.logins[-1]
    assert len(base64.b64decode(login["cb-tls-unique"])) == 12
    assert "cb-tls-exporter" not in login


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_a_slow_answer_stops_nobody_else(site: Site, xmpp: XmppClient, transport: str) -> None:
    site.stub.accounts["slow"] = "fake slow"
    site.stub.held.add("slow")
    with site.stream(transport) as stream, ThreadPoolExecutor() as pool:
        answer = pool.submit(stream.plain, "slow", "fake slow")
        poll(lambda: len(site.stub.logins) == 1, "the slow login arrived")
        others = [xmpp.submit(site.job()) for _ in range(20)]
        assert all(other.result().ok for other in others)
        assert not answer.done()
        site.stub.release("slow")
        assert answer.result().tag == f"{SASL}success"


def test_a_session_gone_while_waiting_is_not_authenticated(site: Site) -> None:
    site.stub.accounts["ghost"] = "fake ghost"
    site.stub.held.add("ghost")
    gone = site.prosody.log().count("Client disconnected")
    with site.stream("tcp") as stream:
        assert isinstance(stream, TcpStream)
        stream.send(
            f'<auth xmlns="{SASL[1:-1]}" mechanism="PLAIN">{encode(bytes(1) + b"ghost" + bytes(1) + b"fake ghost")}</auth>'
        )
        poll(lambda: len(site.stub.logins) == 1, "the login arrived")
        stream.reset()
    poll(lambda: site.prosody.log().count("Client disconnected") > gone, "Prosody notices")
    poll(lambda: site.stub.cancelled == 1, "the daemon is told")
    site.stub.release("ghost")
    with site.stream("tcp") as stream:  # whatever Prosody did with the answer, it did before this
        assert stream.plain("alice", _PASSWORD).tag == f"{SASL}success"
    log = site.prosody.log()
    assert "Authenticated as ghost" not in log
    assert "Traceback" not in log


def test_an_exchange_the_client_ends_is_cancelled(site: Site) -> None:
    with site.stream("tcp") as stream:
        stream.auth("X-STEPS")
        stream.send(f'<abort xmlns="{SASL[1:-1]}"/>')
        assert condition(stream.receive()) == "aborted"
        poll(lambda: site.stub.cancelled == 1, "CANCEL after an abort")
        stream.auth("X-STEPS")
    poll(lambda: site.stub.cancelled == 2, "CANCEL after a closed connection")


@pytest.mark.parametrize(
    ("line", "expected", "text"),
    [
        ("FAIL\t{id}", "not-authorized", None),
        ("FAIL\t{id}\ttemp", "temporary-auth-failure", None),
        ("FAIL\t{id}\tcode=temp_fail", "temporary-auth-failure", None),
        ("FAIL\t{id}\tauthz", "invalid-authzid", None),
        ("FAIL\t{id}\tcode=authz_fail", "invalid-authzid", None),
        ("FAIL\t{id}\tcode=pass_expired", "credentials-expired", None),
        ("FAIL\t{id}\tcode=what\treason=", "not-authorized", ""),
        ("FAIL\t{id}\treason=a\1tb\1n<c/>\tcode=user_disabled", "account-disabled", "a b <c/>"),
        ("OK\t{id}", "temporary-auth-failure", None),
        ("OK\t{id}\tuser=", "temporary-auth-failure", None),
        ("OK\t{id}\tuser=odd@other.test", "temporary-auth-failure", None),
        ("OK\t{id}\tuser=odd\tresp=!", "temporary-auth-failure", None),
        ("CONT\t{id}\t#", "temporary-auth-failure", None),
        ("CONT\t{id}\tYQ", "temporary-auth-failure", None),
        ("MECHS\t{id}\tPLAIN", "temporary-auth-failure", None),
        ("TOKENS\t{id}\taccess=x\trefresh=x", "temporary-auth-failure", None),
    ],
)
def test_refusals_and_malformed_answers(site: Site, line: str, expected: str, text: str | None) -> None:
    site.stub.odd["odd"] = line.encode()
    site.stub.accounts["slow"] = "fake slow"
    site.stub.held.add("slow")
    with site.stream("tcp") as other, site.stream("tcp") as stream, ThreadPoolExecutor() as pool:
        answer = pool.submit(other.plain, "slow", "fake slow")
        poll(lambda: len(site.stub.logins) == 1, "the other login arrived")
        failure = stream.plain("odd", "x")
        assert (failure.tag, condition(failure)) == (f"{SASL}failure", expected)
        told = failure.find(f"{SASL}text")
        assert (told is None) if text is None else (told is not None and (told.text or "") == text)
        assert stream.plain("alice", _PASSWORD).tag == f"{SASL}success"
        site.stub.release("slow")
        assert answer.result().tag == f"{SASL}success"


@pytest.mark.parametrize(
    "lines",
    [
        "OK\t99999999\tuser=mallory\nOK\t{id}\tuser=odd",
        "OK\t{id}\tuser=odd\nOK\t{id}\tuser=mallory",
        "\nOK\nOK\t\nOK\tx\tuser=mallory\nWHAT\t{id}\nOK\t{id}\tuser=odd",
        "OK\t{id}\tuser=odd@xmpp.test",
    ],
)
def test_stray_lines_reach_nobody(site: Site, lines: str) -> None:
    site.stub.odd["odd"] = lines.encode()
    for _ in range(2):
        with site.stream("tcp") as stream:
            assert stream.plain("odd", "x").tag == f"{SASL}success"
            assert stream.bind().startswith("odd@xmpp.test/")


@given(st.lists(st.binary(max_size=40)))
@example([b"A" * 20000, b"OK\t\xff\t", b"\0\1"])
def test_garbage_between_answers(running: Site, garbage: list[bytes]) -> None:
    lines = [line.replace(b"\n", b"").replace(b"{id}", b"") for line in garbage]
    running.stub.odd["odd"] = b"\n".join([*lines, b"OK\t{id}\tuser=odd"])
    with running.stream("websocket") as stream:
        assert stream.plain("odd", "x").tag == f"{SASL}success"


def test_a_line_too_many_ends_that_exchange_alone(site: Site) -> None:
    site.stub.odd["odd"] = b"CONT\t{id}\t=\nCONT\t{id}\t="
    with site.stream("tcp") as stream:
        assert stream.plain("odd", "x").tag == f"{SASL}challenge"
        assert condition(stream.respond(b"")) == "temporary-auth-failure"
        assert stream.plain("alice", _PASSWORD).tag == f"{SASL}success"


def test_attributes_of_a_login_are_handed_over(site: Site) -> None:
    site.stub.attributes["alice"] = "\trole=prosody:member\tgroup=a\1tb"
    with site.stream("tcp") as stream:
        stream.plain("alice", _PASSWORD)
        stream.bind()
    site.prosody.wait_for_log('attributes of alice: group="a\\9b",role="prosody:member"; role ')


def test_external(site: Site, xmpp: XmppClient) -> None:
    certificate = str(site.certificates.client("alice@xmpp.test"))
    job = replace(site.job(), password="", mechanism="EXTERNAL", certificate=certificate)
    outcome = xmpp.run(job)
    assert outcome.ok, outcome
    assert outcome.jid.startswith("alice@xmpp.test/")
    login = site.stub.logins[-1]
    sent = x509.load_der_x509_certificate(base64.b64decode(login["cert"]))
    assert sent == x509.load_pem_x509_certificate(Path(certificate).read_bytes())
    assert login["cert_username"] == "alice"


def test_a_certificate_of_nobody_we_trust_counts_for_nothing(site: Site, xmpp: XmppClient, tmp: Path) -> None:
    stranger = str(make_certificates(tmp, ["other.test"]).client("alice@xmpp.test"))
    outcome = xmpp.run(replace(site.job(), certificate=stranger))
    assert outcome.ok
    assert "EXTERNAL" not in outcome.offered
    assert "cert" not in site.stub.logins[-1]


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_anonymous_on_its_own_host(site: Site, transport: str) -> None:
    with site.stream(transport, "anonymous.xmpp.test") as stream:
        assert stream.offered() == ["ANONYMOUS"]
        assert stream.auth("ANONYMOUS").tag == f"{SASL}success"
        assert stream.bind().startswith("anonymous-1@anonymous.xmpp.test/")
        _send_elsewhere(stream, f"anonymous-{transport}.test")
    with site.stream(transport) as stream:
        stream.plain("alice", _PASSWORD)
        stream.bind()
        _send_elsewhere(stream, f"known-{transport}.test")
    assert f"routed to known-{transport}.test" in site.prosody.log()
    assert f"routed to anonymous-{transport}.test" not in site.prosody.log()


def _send_elsewhere(stream: Stream, domain: str) -> None:
    stream.send(f'<message xmlns="jabber:client" id="m" to="somebody@{domain}"><body>Hi</body></message>')
    assert stream.receive().get("type") == "error"


def test_a_client_registers_changes_and_removes_its_account(site: Site, xmpp: XmppClient) -> None:
    first = site.job("bob", "fake: first")
    second = replace(first, password="fake second")
    assert not xmpp.run(first).ok
    assert xmpp.run(replace(first, action="register")).ok
    assert xmpp.run(first).ok
    assert not xmpp.run(replace(first, action="change-password", new_password="refuse this")).ok
    assert xmpp.run(replace(first, action="change-password", new_password="fake second")).ok
    assert not xmpp.run(first).ok
    assert xmpp.run(second).ok
    assert xmpp.run(replace(second, action="register")).condition == "conflict"
    assert xmpp.run(replace(second, action="unregister")).ok
    assert not xmpp.run(second).ok
    assert "bob" not in site.stub.accounts


def test_legacy_authentication(site: Site) -> None:
    def login(user: str, password: str) -> str | None:
        with site.stream("tcp") as stream:
            stream.send(
                f'<iq type="set" id="a" to="xmpp.test"><query xmlns="jabber:iq:auth"><username>{user}</username>'
                f"<password>{password}</password><resource>r</resource></query></iq>"
            )
            return stream.receive().get("type")

    assert login("alice", "wrong") == "error"
    assert login("nobody", "wrong") == "error"
    for user in ("outage", "twice"):  # here no answer is a yes, nor that to another's question
        assert login(user, "wrong") == "error"
        assert login("alice", "wrong") == "error"
    assert login("alice", _PASSWORD) == "result"


def test_sasl2(site: Site) -> None:
    def login(password: str) -> str:
        with site.stream("tcp") as stream:
            response = encode(f"\0alice\0{password}".encode())
            stream.send(
                '<authenticate xmlns="urn:xmpp:sasl:2" mechanism="PLAIN">'
                f"<initial-response>{response}</initial-response></authenticate>"
            )
            return stream.receive().tag.rpartition("}")[2]

    assert login("wrong") == "failure"
    assert login(_PASSWORD) == "success"


def test_questions_where_prosody_cannot_wait(site: Site) -> None:
    site.stub.accounts["probe"] = "fake probe"
    with site.stream("tcp") as stream:
        stream.plain("probe", "fake probe")
    site.prosody.wait_for_log("outside: true false false true")


def test_the_list_of_mechanisms_follows_the_daemon(site: Site) -> None:
    def offered() -> list[str]:
        with site.stream("tcp") as stream:
            return stream.offered()

    site.stub.offered = lambda parameters: [*offer(parameters), "X-NEW"]
    poll(lambda: "X-NEW" in offered(), "a new mechanism")
    site.stub.offered = offer
    poll(lambda: "X-NEW" not in offered(), "a mechanism gone")


def test_prosodyctl(site: Site) -> None:
    configuration = site.prosody.folder / "prosody.cfg.lua"
    command = ["prosodyctl", "--config", str(configuration), "adduser", "carol@xmpp.test"]
    subprocess.run(command, check=True, input="fake carol\nfake carol\n", text=True, capture_output=True, timeout=60)
    assert site.stub.accounts["carol"] == "fake carol"


def test_the_daemon_comes_after_prosody(tmp: Path, certificates: Certificates) -> None:
    stub = ProsodyStub(tmp)
    stub.accounts["alice"] = _PASSWORD
    with _prosody(tmp, stub, certificates) as prosody:
        site = Site(stub, prosody, certificates)
        for transport in ("websocket", "bosh"):
            with site.stream(transport) as stream:
                closed = stream.features
                assert closed.tag.endswith("}error")
                assert condition(closed) == "remote-connection-failed"
        with stub:
            for transport in _TRANSPORTS:
                poll(partial(_logs_in, site, transport), "a login")
        stub.stop()
        with site.stream("tcp") as stream:
            assert condition(stream.plain("alice", _PASSWORD)) == "temporary-auth-failure"


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_a_login_waits_for_a_daemon_that_comes_back(site: Site, transport: str) -> None:
    def counts(text: str) -> int:
        return site.prosody.log().count(text)

    def lost() -> int:
        return counts("No authentication service")

    poll(lambda: counts("Connected to the authentication service") == lost(), "both hosts have the daemon")
    before, waiting = lost(), counts("changed state from ready to waiting")
    with site.stream(transport) as stream, ThreadPoolExecutor() as pool:
        site.stub.stop()
        poll(lambda: lost() >= before + 2, "both hosts have lost the daemon")
        answer = pool.submit(stream.plain, "alice", _PASSWORD)
        poll(lambda: counts("changed state from ready to waiting") > waiting, "the login waits")
        site.stub.start()
        assert answer.result().tag == f"{SASL}success"


def _logs_in(site: Site, transport: str) -> bool:
    with site.stream(transport) as stream:
        return bool(stream.offered()) and stream.plain("alice", _PASSWORD).tag == f"{SASL}success"


def test_the_daemon_restarts_under_load(site: Site, xmpp: XmppClient) -> None:
    stub = site.stub
    for _ in range(3):
        jobs = [site.job(password=password) for password in (_PASSWORD, "wrong") * 30]
        outcomes = [xmpp.submit(job) for job in jobs]
        stub.logins.clear()
        poll(lambda: len(stub.logins) > 5, "some logins arrived")
        stub.stop()
        stub.start()
        wait(outcomes)
        for job, outcome in zip(jobs, (future.result() for future in outcomes), strict=True):
            assert _possible(job, outcome), outcome
    assert xmpp.run(site.job()).ok
    assert "Traceback" not in site.prosody.log()


def _possible(job: Job, outcome: Outcome) -> bool:
    if outcome.condition == "temporary-auth-failure":
        return True
    return outcome.ok if job.password == _PASSWORD else outcome.condition == "not-authorized"


@needs.debian("dovecot")
def test_a_plain_dovecot(tmp: Path, certificates: Certificates, xmpp: XmppClient) -> None:
    hosts = "\n".join(f'VirtualHost "{host}"' for host in ("xmpp.test", "other.xmpp.test"))
    with temporary_folder() as folder, Dovecot(folder, {"alice": _PASSWORD}) as dovecot:
        authentication = f'authentication = "extauth"; extauth_socket = "{dovecot.socket}"'
        with Prosody(tmp, certificates, authentication, plugin_paths=_PLUGINS, virtual_hosts=hosts) as prosody:
            for domain in ("xmpp.test", "other.xmpp.test"):
                job = Job(port=prosody.port, jid=f"alice@{domain}", password=_PASSWORD)
                for mechanism in ("PLAIN", "SCRAM-SHA-256"):
                    outcome = xmpp.run(replace(job, mechanism=mechanism))
                    assert outcome.ok, dovecot.log()
                    assert outcome.jid.startswith(f"alice@{domain}/")
                    wrong = xmpp.run(replace(job, mechanism=mechanism, password="wrong"))
                    assert wrong.condition == "not-authorized"
