"""EXTERNAL: whom a certificate names, by its ASN.1 or by the server."""

import base64
import datetime as dt
from collections.abc import Sequence
from functools import cache
from typing import get_args

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from extauth.model import CheckCertificate, Identity, Reason
from extauth.sasl import certificate
from extauth.sasl.exchange import Challenge, Options, Success, Turn
from extauth.settings import CertificateField
from tests.sasl import DOMAIN, OPTIONS, STREAM, VECTORS, Client, People, is_malformed, is_refused

USER = Identity("user", DOMAIN)
NAMED_BY_SERVER = replace(STREAM, certificate_user="user")
NO_MAIL: frozenset[str] = frozenset()
NO_SAN: Sequence[x509.GeneralName] = ()


@cache
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def xmpp(address: str, *, tag: int = 0x0C) -> x509.OtherName:
    data = address.encode()
    length = bytes([len(data)]) if len(data) < 128 else b"\x81" + bytes([len(data)])
    return x509.OtherName(certificate.XMPP_ADDR, bytes([tag]) + length + data)


def make(alternatives: Sequence[x509.GeneralName] = NO_SAN, subject: Sequence[tuple[x509.ObjectIdentifier, str]] = ()) -> bytes:
    """Return a certificate with these names (DER)."""
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(x509.Name([]))
        .public_key(key().public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(key(), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def play(der: bytes, *messages: bytes | None, options: Options = OPTIONS, people: People | None = None) -> Turn:
    stream = replace(STREAM, certificate=der)
    return Client("EXTERNAL", people or People({"user": "", "alice": ""}), stream=stream, options=options).play(*messages)


def names(der: bytes, *fields: str, mail_domains: frozenset[str] = NO_MAIL) -> list[str]:
    options = replace(OPTIONS, certificate_names=fields or ("xmppAddr",), mail_domains=mail_domains)
    return [str(identity) for identity in certificate.accounts(replace(STREAM, certificate=der), options)]


# The exchange -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("authzid", [b"", b"user@example.com", b"user", b"User@EXAMPLE.com"])
def test_one_identity(authzid: bytes) -> None:
    assert play(make([xmpp("user@example.com")]), authzid) == Success(USER)
    client = Client("EXTERNAL", stream=NAMED_BY_SERVER)
    assert client.begin(authzid) == Success(USER)
    (request,) = client.people.asked
    assert isinstance(request, CheckCertificate)
    assert request.identity == USER


def test_without_an_initial_response_the_client_is_asked() -> None:
    client = Client("EXTERNAL", stream=NAMED_BY_SERVER)
    assert client.begin() == Challenge(b"")
    assert client.respond(b"") == Success(USER)


def test_what_strophe_sends() -> None:
    stream = replace(STREAM, domain="example.org", certificate_user="alice@example.org")
    for key_ in ("external_authcid_omitted_or_node", "external_authcid_bare_jid"):
        message = base64.b64decode(VECTORS["strophe_observed"][key_]["b64"])
        assert Client("EXTERNAL", People({"alice": ""}), stream=stream).begin(message) == Success(
            Identity("alice", "example.org")
        )


@pytest.mark.parametrize("authzid", [b"alice", b"admin@example.com", b"user@other.example", b"user@example.com/x", b"@"])
def test_nobody_is_somebody_else(authzid: bytes) -> None:
    assert is_refused(Client("EXTERNAL", stream=NAMED_BY_SERVER).begin(authzid), "invalid-authzid", Reason.NOT_ALLOWED)
    two = make([xmpp("user@example.com"), xmpp("bob@example.com")])
    assert is_refused(play(two, authzid), "invalid-authzid", Reason.NOT_ALLOWED)


def test_several_identities_need_a_choice() -> None:
    der = make([xmpp("user@example.com"), xmpp("alice@example.com"), xmpp("user@other.example")])
    assert play(der, b"alice@example.com") == Success(Identity("alice", DOMAIN))
    assert play(der, b"user@example.com") == Success(USER)
    assert is_refused(play(der, b""), "invalid-authzid", Reason.BAD_CERTIFICATE)
    assert play(make([xmpp("user@example.com"), xmpp("USER@example.com")]), b"") == Success(USER)


def test_no_identity_and_the_client_claims_one() -> None:
    for der in (make(), make([xmpp("user@other.example")]), make(subject=[(NameOID.COMMON_NAME, "admin")]), b"", b"nonsense"):
        for authzid in (b"", b"admin", b"user@example.com"):
            step = play(der, authzid, people=People({"user": "", "admin": ""}))
            assert is_refused(step, "not-authorized", Reason.BAD_CERTIFICATE) or (der == b"" and authzid)


def test_without_a_certificate_there_is_no_external() -> None:
    assert is_refused(Client("EXTERNAL").begin(b"user"), "invalid-mechanism", Reason.NOT_SUPPORTED)
    named = replace(STREAM, certificate_user="")
    assert is_refused(Client("EXTERNAL", stream=named).begin(b"user"), "invalid-mechanism", Reason.NOT_SUPPORTED)


@pytest.mark.parametrize("name", ["user@other.example", "us er", "user@", "@example.com"])
def test_a_name_by_the_server_that_is_none_of_ours(name: str) -> None:
    stream = replace(STREAM, certificate_user=name)
    assert is_refused(Client("EXTERNAL", stream=stream).begin(b""), "not-authorized", Reason.BAD_CERTIFICATE)


@pytest.mark.parametrize("authzid", [b"\xff", b"us\0er", b"\0"])
def test_malformed(authzid: bytes) -> None:
    assert is_malformed(Client("EXTERNAL", stream=NAMED_BY_SERVER).begin(authzid))


def test_the_authority_decides() -> None:
    step = Client("EXTERNAL", People({}), stream=NAMED_BY_SERVER).begin(b"")
    assert is_refused(step, "not-authorized", Reason.NO_USER)


# Whom a certificate names -----------------------------------------------------------------------------------------------------


def test_only_the_fields_that_count() -> None:
    der = make(
        [xmpp("user@example.com"), x509.RFC822Name("mail@example.com"), x509.DNSName("example.com")],
        [(NameOID.COMMON_NAME, "common"), (NameOID.USER_ID, "uid"), (NameOID.EMAIL_ADDRESS, "old@example.com")],
    )
    assert names(der) == ["user@example.com"]
    assert names(der, "mail") == ["mail@example.com"]
    assert names(der, "emailAddress") == ["old@example.com"]
    assert names(der, "commonName") == ["common@example.com"]
    assert names(der, "userId") == ["uid@example.com"]
    assert names(der, "xmppAddr", "commonName") == ["user@example.com"]
    assert names(make(subject=[(NameOID.COMMON_NAME, "common")]), "xmppAddr", "mail", "commonName") == ["common@example.com"]


def test_the_configuration_knows_the_fields() -> None:
    assert set(get_args(CertificateField)) == certificate._FIELDS.keys()  # pyright: ignore[reportPrivateUsage]


def test_mail_domains() -> None:
    der = make([x509.RFC822Name("user@corp.example"), x509.RFC822Name("alice@example.com")])
    assert names(der, "mail") == ["alice@example.com"]
    assert names(der, "mail", mail_domains=frozenset({"corp.example"})) == ["user@example.com", "alice@example.com"]
    common = make(subject=[(NameOID.COMMON_NAME, "user@corp.example")])
    assert names(common, "commonName", mail_domains=frozenset({"corp.example"})) == []


def test_who_is_named_for_another_domain_is_not_ours_by_another_field() -> None:
    der = make([xmpp("alice@other.example"), x509.RFC822Name("alice@example.com")], [(NameOID.COMMON_NAME, "alice")])
    assert names(der, "xmppAddr", "mail", "commonName") == []
    host = make([xmpp("example.com")], [(NameOID.COMMON_NAME, "example.com")])
    assert names(host, "xmppAddr", "commonName") == []


def test_the_text_of_a_subject_names_nobody() -> None:
    der = make(
        subject=[
            (NameOID.ORGANIZATIONAL_UNIT_NAME, "CN=admin,"),
            (NameOID.COMMON_NAME, "user"),
            (NameOID.ORGANIZATION_NAME, "x/CN=admin"),
        ]
    )
    assert names(der, "commonName") == ["user@example.com"]
    several = make(subject=[(NameOID.COMMON_NAME, "user"), (NameOID.COMMON_NAME, "admin")])
    assert names(several, "commonName") == ["user@example.com", "admin@example.com"]
    assert names(make(subject=[(NameOID.COMMON_NAME, "user,CN=admin=")]), "commonName") == ["user,cn=admin=@example.com"]


@pytest.mark.parametrize(
    "name",
    [
        xmpp("user@example.com", tag=0x16),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.7"), b"\x0c\x10user@example.com"),
        x509.OtherName(certificate.XMPP_ADDR, b"\x0c\x11user@example.com\xff"),
        xmpp("user@example.com/resource"),
        xmpp('us"er@example.com'),
        xmpp("user\0@example.com"),
        xmpp("user@example.com\0.other.example"),
        xmpp("@example.com"),
        xmpp(""),
    ],
)
def test_other_names_that_name_nobody(name: x509.OtherName) -> None:
    assert names(make([name])) == []


@pytest.mark.parametrize("start", [b"\x0c\x0f", b"\x0c\x11", b"\x0c\x80", b"\x0c\x84", b"\x0c\xff", b"\x30\x10", b"\x00\x00"])
def test_other_names_that_lie_about_themselves(start: bytes) -> None:
    der = make([xmpp("user@example.com")])
    assert der.count(b"\x0c\x10user@") == 1
    assert names(der.replace(b"\x0c\x10user@", start + b"user@")) == []


def test_a_long_name() -> None:
    user = "u" * 150
    assert names(make([xmpp(f"{user}@example.com")])) == [f"{user}@example.com"]


GOOD = make([xmpp("user@example.com")])


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.integers(0, len(GOOD)))
def test_a_damaged_certificate_raises_nothing(place: int, byte: int, end: int) -> None:
    damaged = GOOD[:place] + bytes([byte]) + GOOD[place + 1 :]
    for der in (damaged, GOOD[:end], GOOD[end:]):
        certificate.named_by(der, DOMAIN, ("xmppAddr", "mail", "commonName"), NO_MAIL)


@pytest.mark.parametrize("der", [b"", b"\x0c", b"\x0c\x01", b"\x0c\x01ab", b"\x0c\x81", b"\x0c\x81\x02a", b"\x0c\x01\xff"])
def test_what_is_no_utf8_string(der: bytes) -> None:
    with pytest.raises(ValueError, match=r"not|can't decode"):
        certificate.utf8_string(der)
