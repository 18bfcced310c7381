"""Whom a client certificate names: by ASN.1 alone, never by the text of its subject.

The fields that may count, by the name that the configuration gives them: `xmppAddr` (RFC 6120 section 13.7.1.4) and `mail`
(rfc822Name, RFC 5280 section 4.2.1.6) of the subjectAltName; `emailAddress`, `commonName` and `userId` of the subject.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import NameOID

from extauth import jid
from extauth.model import Identity
from extauth.sasl.mechanism import Options, Stream

XMPP_ADDR = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.5")

_UTF8_STRING = 0x0C  # its tag in DER
_LONG_LENGTH = 0x80


def accounts(stream: Stream, options: Options) -> tuple[Identity, ...]:
    """Return the accounts of the stream's domain that its certificate names: as the server says, else by its fields."""
    if stream.certificate_user:
        identity = _account(stream.certificate_user, stream.domain, frozenset(), bare=True)
        return (identity,) if identity is not None else ()
    if stream.certificate is None:
        return ()
    return named_by(stream.certificate, stream.domain, options.certificate_names, options.mail_domains)


@lru_cache(maxsize=256)
def named_by(der: bytes, domain: str, fields: tuple[str, ...], mail_domains: frozenset[str]) -> tuple[Identity, ...]:
    """Return the accounts of `domain` that the first of `fields` names which the certificate has; () if it can't be read.

    A field that is there and names only others hides those after it: who is alice@elsewhere is not our Alice by her mail.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        for field in fields:
            names = list(_FIELDS[field](certificate))
            if names:
                is_mail = field in _MAIL
                found = (_account(name, domain, mail_domains if is_mail else frozenset(), bare=not is_mail) for name in names)
                return tuple(dict.fromkeys(identity for identity in found if identity is not None))
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        pass
    return ()


def _account(name: str, domain: str, mail_domains: frozenset[str], *, bare: bool) -> Identity | None:
    """Return the account called `name`, or None if it is none of ours. `bare`: a local part alone will do."""
    user, at, host = name.rpartition("@")
    try:
        if not at:
            return jid.identity(name, domain) if bare else None
        host = jid.domain_part(host)
        return jid.identity(user, domain) if host == domain or host in mail_domains else None
    except jid.InvalidName:
        return None


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName | tuple[()]:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()


def _xmpp_addresses(certificate: x509.Certificate) -> Iterator[str]:
    for name in _alternatives(certificate):
        if isinstance(name, x509.OtherName) and name.type_id == XMPP_ADDR:
            address = utf8_string(name.value)
            # One without a local part is a server's; it must not count as "the client has no such field", nor as a user.
            yield address if "@" in address else f"@{address}"


def _mail_addresses(certificate: x509.Certificate) -> Iterator[str]:
    for name in _alternatives(certificate):
        if isinstance(name, x509.RFC822Name):
            yield name.value


def _subject(oid: x509.ObjectIdentifier) -> Callable[[x509.Certificate], Iterator[str]]:
    def values(certificate: x509.Certificate) -> Iterator[str]:
        for attribute in certificate.subject.get_attributes_for_oid(oid):
            if isinstance(attribute.value, str):
                yield attribute.value

    return values


def utf8_string(der: bytes) -> str:
    """Decode a UTF8String.

    Raises:
        ValueError: it is none, or something follows it.
    """
    if len(der) < 2 or der[0] != _UTF8_STRING:  # noqa: PLR2004
        raise ValueError("not a UTF8String")
    length, start = der[1], 2
    if length >= _LONG_LENGTH:
        start += length - _LONG_LENGTH
        length = int.from_bytes(der[2:start])
    if len(der) != start + length:
        raise ValueError("not the length it says")
    return der[start:].decode()


_FIELDS: Mapping[str, Callable[[x509.Certificate], Iterator[str]]] = {
    "xmppAddr": _xmpp_addresses,
    "mail": _mail_addresses,
    "emailAddress": _subject(NameOID.EMAIL_ADDRESS),
    "commonName": _subject(NameOID.COMMON_NAME),
    "userId": _subject(NameOID.USER_ID),
}
_MAIL = frozenset({"mail", "emailAddress"})
