"""A throwaway certificate authority for the tests."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_XMPP_ADDR = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.5")  # id-on-xmppAddr, RFC 6120 section 13.7.1.4
_DER_UTF8_STRING = 12
_DER_SHORT_LENGTH = 128


@dataclass(frozen=True)
class Certificates:
    """An authority and a server certificate; the names are paths of PEM files.

    `server` holds the certificate and then its key, `server_certificate` and `server_key` one of them.
    """

    folder: Path
    ca: Path
    server: Path
    server_certificate: Path
    server_key: Path
    _authority: "_Issuer"

    def impostor(self, name: str, hosts: Sequence[str], *, expired: bool = False) -> Path:
        """Issue a server certificate for other hosts, or one whose time is over; return the file of certificate and key."""
        path = self.folder / f"{name}.pem"
        names = [x509.DNSName(host) for host in hosts]
        certificate, key = self._authority.issue(hosts[0], names, age=30 if expired else 1)
        path.write_bytes(certificate + key)
        return path

    def client(self, *jids: str) -> Path:
        """Issue a client certificate with these JIDs as xmppAddr; return the file of certificate and key."""
        names = [x509.OtherName(_XMPP_ADDR, _utf8_string(jid)) for jid in jids]
        path = self.folder / f"client-{'-'.join(jids)}.pem"
        certificate, key = self._authority.issue(jids[0], names)
        path.write_bytes(certificate + key)
        return path


@dataclass(frozen=True)
class _Issuer:
    name: x509.Name
    key: ec.EllipticCurvePrivateKey

    def issue(self, name: str, alternatives: Sequence[x509.GeneralName], age: int = 1) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name), self.name, key.public_key(), age).add_extension(
            x509.SubjectAlternativeName(alternatives), critical=False
        )
        return _pem(builder.sign(self.key, hashes.SHA256())), _key_pem(key)


def make_certificates(folder: Path, hosts: Sequence[str]) -> Certificates:
    """Make an authority and a server certificate for these hosts, localhost and 127.0.0.1 in `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = _Issuer(_name("Test authority"), key)
    root = _builder(issuer.name, issuer.name, key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    ca = folder / "ca.crt"
    ca.write_bytes(_pem(root.sign(key, hashes.SHA256())))
    names = [*(x509.DNSName(host) for host in (*hosts, "localhost")), x509.IPAddress(ip_address("127.0.0.1"))]
    certificate, server_key = issuer.issue(hosts[0], names)
    parts = {"server.pem": certificate + server_key, "server.crt": certificate, "server.key": server_key}
    for file, content in parts.items():
        (folder / file).write_bytes(content)
    server, server_certificate, server_key_file = (folder / file for file in parts)
    return Certificates(folder, ca, server, server_certificate, server_key_file, issuer)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, age: int = 1) -> x509.CertificateBuilder:
    """Begin a certificate that became valid `age` days ago, for eight days."""
    start = dt.datetime.now(dt.UTC) - dt.timedelta(days=age)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=8))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _utf8_string(text: str) -> bytes:
    content = text.encode()
    assert len(content) < _DER_SHORT_LENGTH
    return bytes([_DER_UTF8_STRING, len(content)]) + content


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
