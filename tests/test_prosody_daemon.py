"""Debian's Prosody with contrib/prosody/mod_auth_extauth and extauth itself: the mechanisms end to end."""

import base64
import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest
import scramp
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests import needs
from tests.certificates import Certificates
from tests.daemons import Daemon, with_local_accounts
from tests.rawxmpp import SASL, BoshStream, Stream, TcpStream, WebsocketStream, decode, encode
from tests.servers.process import temporary_folder
from tests.servers.prosody import Prosody
from tests.xmppclient import Job, XmppClient

pytestmark = needs.debian("prosody")

_PASSWORD = "fake right"
_MORE = """\
[listener.sasl]
protocol = "dovecot"
address = "unix:{folder}/sasl.sock"
[domain."guests.xmpp.test"]
backends = []
anonymous = true
"""
_PROSODY = """\
    authentication = "extauth"
    extauth_socket = "{folder}/sasl.sock"
    extauth_accounts_socket = "{folder}/ejabberd.sock"
    allow_registration = true
    c2s_ssl = {{ verify = {{ "peer"; "client_once" }} }}
    """
_PLUGINS = (Path(__file__).parent.parent / "contrib" / "prosody",)
_HOSTS = """\
    VirtualHost "xmpp.test"
    VirtualHost "guests.xmpp.test"
    """


@pytest.fixture(scope="module")
def prosody(certificates: Certificates, xmpp: XmppClient) -> Iterator[Prosody]:
    """Give a Prosody whose daemon has the account alice."""
    with temporary_folder() as folder, temporary_folder() as here:
        text = with_local_accounts(folder, ejabberd="allow_changes = true") + _MORE.format(folder=folder)
        authentication = _PROSODY.format(folder=folder)
        modules = ("user_account_management",)
        server = Prosody(here, certificates, authentication, plugin_paths=_PLUGINS, modules=modules, virtual_hosts=_HOSTS)
        with Daemon(folder, text), server:
            job = Job(port=server.port, jid="alice@xmpp.test", password=_PASSWORD, action="register")
            assert xmpp.run(job).ok
            yield server


def _stream(prosody: Prosody, certificates: Certificates, transport: str) -> Stream:
    if transport == "tcp":
        return TcpStream(prosody.port, "xmpp.test", certificates.ca)
    if transport == "websocket":
        return WebsocketStream(prosody.http_port, "xmpp.test")
    return BoshStream(prosody.http_port, "xmpp.test")


def _scram(stream: Stream, mechanism: str, password: str, binding: tuple[str, bytes] | None = None) -> Element:
    client: Any = scramp.ScramClient([mechanism], "alice", password, channel_binding=binding)
    answer = stream.auth(mechanism, client.get_client_first().encode())
    client.set_server_first(decode(answer).decode())
    answer = stream.respond(client.get_client_final().encode())
    if answer.tag == f"{SASL}success":
        client.set_server_final(decode(answer).decode())
    return answer


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_slixmpp(prosody: Prosody, xmpp: XmppClient, mechanism: str) -> None:
    job = Job(port=prosody.port, jid="alice@xmpp.test", password=_PASSWORD, mechanism=mechanism)
    assert xmpp.run(job).ok
    assert xmpp.run(replace(job, password="fake wrong")).condition == "not-authorized"


@pytest.mark.parametrize("transport", ["tcp", "websocket", "bosh"])
def test_scram_over_each_transport(prosody: Prosody, certificates: Certificates, transport: str) -> None:
    with _stream(prosody, certificates, transport) as stream, _stream(prosody, certificates, transport) as other:
        assert "SCRAM-SHA-512" in stream.offered()
        first: Any = scramp.ScramClient(["SCRAM-SHA-256"], "alice", _PASSWORD)
        challenge = stream.auth("SCRAM-SHA-256", first.get_client_first().encode())
        assert _scram(other, "SCRAM-SHA-512", "fake wrong").tag == f"{SASL}failure"  # two in the middle at once
        assert _scram(other, "SCRAM-SHA-512", _PASSWORD).tag == f"{SASL}success"
        first.set_server_first(decode(challenge).decode())
        success = stream.respond(first.get_client_final().encode())
        first.set_server_final(decode(success).decode())
        assert stream.bind().startswith("alice@xmpp.test/")


def _bound_by_hand(stream: Stream, password: str, kind: str, data: bytes) -> str:
    """Log in by SCRAM-SHA-256-PLUS (RFC 5802, 3) with the binding types that scramp leaves out; return the answer's tag."""

    def mac(key: bytes, text: str | bytes) -> bytes:
        return hmac.digest(key, text.encode() if isinstance(text, str) else text, "sha256")

    header, bare = f"p={kind},,", "n=alice,r=fake-nonce"
    server_first = decode(stream.auth("SCRAM-SHA-256-PLUS", (header + bare).encode())).decode()
    fields = dict(field.split("=", 1) for field in server_first.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
    final = f"c={encode(header.encode() + data)},r={fields['r']}"
    text = f"{bare},{server_first},{final}"
    client_key = mac(salted, "Client Key")
    signature = mac(hashlib.sha256(client_key).digest(), text)
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    answer = stream.respond(f"{final},p={encode(proof)}".encode())
    if answer.tag == f"{SASL}success":
        assert decode(answer) == b"v=" + encode(mac(mac(salted, "Server Key"), text)).encode()
    return answer.tag


def test_scram_bound_by_tls_exporter(prosody: Prosody, certificates: Certificates) -> None:
    def login(password: str, *, other_stream: bool = False) -> str:
        with TcpStream(prosody.port, "xmpp.test", certificates.ca) as stream:
            assert "SCRAM-SHA-256-PLUS" in stream.offered()
            assert "tls-exporter" in stream.bindings()
            assert stream.tls is not None
            data = stream.tls.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
            return _bound_by_hand(stream, password, "tls-exporter", bytes(32) if other_stream else data)

    assert login(_PASSWORD) == f"{SASL}success"
    assert login("fake wrong") == f"{SASL}failure"
    assert login(_PASSWORD, other_stream=True) == f"{SASL}failure"


def test_scram_bound_by_the_end_point(prosody: Prosody, certificates: Certificates) -> None:
    certificate = x509.load_pem_x509_certificate(certificates.server_certificate.read_bytes())
    data = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()
    with TcpStream(prosody.port, "xmpp.test", certificates.ca) as stream:
        binding = ("tls-server-end-point", data)
        assert _scram(stream, "SCRAM-SHA-512-PLUS", "fake wrong", binding).tag == f"{SASL}failure"
        assert _scram(stream, "SCRAM-SHA-512-PLUS", _PASSWORD, ("tls-server-end-point", bytes(32))).tag == f"{SASL}failure"
        assert _scram(stream, "SCRAM-SHA-512-PLUS", _PASSWORD, binding).tag == f"{SASL}success"


def test_scram_bound_by_tls_unique(prosody: Prosody, xmpp: XmppClient) -> None:
    job = Job(port=prosody.port, jid="alice@xmpp.test", password=_PASSWORD, tls_1_2=True)
    outcome = xmpp.run(replace(job, mechanism="SCRAM-SHA-256-PLUS"))
    assert outcome.ok, outcome
    assert not xmpp.run(replace(job, mechanism="SCRAM-SHA-256-PLUS", password="fake wrong")).ok


def test_external(prosody: Prosody, xmpp: XmppClient, certificates: Certificates) -> None:
    job = Job(port=prosody.port, jid="alice@xmpp.test", mechanism="EXTERNAL")
    assert xmpp.run(replace(job, certificate=str(certificates.client("alice@xmpp.test")))).jid.startswith("alice@")
    nobody = xmpp.run(replace(job, jid="bob@xmpp.test", certificate=str(certificates.client("bob@other.test"))))
    assert not nobody.ok
    assert "EXTERNAL" not in nobody.offered


def test_anonymous_on_its_own_host(prosody: Prosody, certificates: Certificates) -> None:
    with TcpStream(prosody.port, "guests.xmpp.test", certificates.ca) as stream:
        assert stream.offered() == ["ANONYMOUS"]
        assert stream.auth("ANONYMOUS").tag == f"{SASL}success"
        assert stream.bind().split("/")[0].endswith("@guests.xmpp.test")


def test_a_client_registers_changes_and_removes_its_account(prosody: Prosody, xmpp: XmppClient) -> None:
    first = Job(port=prosody.port, jid="bob@xmpp.test", password="fake: first", mechanism="SCRAM-SHA-256")
    second = replace(first, password="fake second")
    assert not xmpp.run(first).ok
    assert xmpp.run(replace(first, action="register")).ok
    assert xmpp.run(first).ok
    assert xmpp.run(replace(first, action="change-password", new_password="fake second")).ok
    assert not xmpp.run(first).ok
    assert xmpp.run(second).ok
    assert xmpp.run(replace(second, action="unregister")).ok
    assert not xmpp.run(second).ok
