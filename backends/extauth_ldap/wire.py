"""One connection to one directory server: ldap3, with its exceptions and its defaults kept behind this border."""

import ssl
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ldap3

from extauth.errors import BackendDown
from extauth.model import Secret
from extauth_ldap.answers import POLICY, Answered, Entry, Outcome, outcome
from extauth_ldap.lookup import addresses, left

_ASK_POLICY = (POLICY, False, None)  # not critical: a server that doesn't know it ignores it


class ServerDown(BackendDown):
    """This server can't be used; another one may."""


@dataclass(frozen=True)
class Address:
    """Where a server is and how to speak to it. `context` is None where the configuration allows plain text."""

    url: str
    host: str
    port: int
    context: ssl.SSLContext | None
    start_tls: bool


class _VerifiedTls(ldap3.Tls):
    """TLS by a context that is made once, verifies, and knows the host's name; with a limit to the handshake."""

    def __init__(self, context: ssl.SSLContext, host: str, deadline: float) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)  # pyright: ignore[reportUnknownMemberType]
        self._context = context
        self._host = host
        self._deadline = deadline

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:  # noqa: ANN401, FBT001, FBT002, ARG002
        """Put TLS around the connection's socket; what ldap3 calls for ldaps and for StartTLS."""
        connection.socket.settimeout(left(self._deadline))
        connection.socket = self._context.wrap_socket(connection.socket, server_hostname=self._host)


class Connection:
    """An open connection; blocks. `deadline` is always a time of `time.monotonic()`.

    Each method raises:
        ServerDown: the server can't be reached, is not who it should be, or does not answer in time.
    """

    def __init__(self, address: Address, deadline: float) -> None:
        self._url = address.url
        self._ldap: Any = None
        with self._border():
            candidates = addresses(address.host, address.port, deadline)
        for others, candidate in reversed(list(enumerate(reversed(candidates)))):
            share = time.monotonic() + (deadline - time.monotonic()) / (others + 1)  # a silent one leaves some to the next
            try:
                with self._border():
                    self._open(address, candidate, share)
            except ServerDown:
                self.close()
                if not others:
                    raise
            else:
                break

    def _open(self, address: Address, candidate: str, deadline: float) -> None:
        server = ldap3.Server(
            candidate,
            port=address.port,
            use_ssl=address.context is not None and not address.start_tls,
            tls=_VerifiedTls(address.context, address.host, deadline) if address.context else None,
            get_info=ldap3.NONE,
            connect_timeout=left(deadline),
        )
        self._ldap = ldap3.Connection(server, auto_referrals=False, raise_exceptions=False, check_names=False)
        self._ldap.open(read_server_info=False)
        if address.start_tls:
            self._limit(deadline)
            if not self._ldap.start_tls(read_server_info=False):
                raise ServerDown("StartTLS was refused")

    def bind(self, name: str, password: Secret, deadline: float) -> Outcome:
        """Bind with a name and a password, which must not be empty: that would be a success that proves nothing.

        RFC 4513 section 5.1.2.
        """
        octets = password.reveal().encode()
        if not octets or not name:
            raise ValueError("an empty name or password is never bound with")
        with self._border():
            self._limit(deadline)
            try:
                self._ldap.rebind(user=name, password=octets, read_server_info=False, controls=[_ASK_POLICY])
            finally:
                self._ldap.password = self._ldap.request = None  # ldap3 would keep it as long as the connection lives
            return self._outcome()

    def search(self, base: str, filter_: str, attributes: Sequence[str], one: bool, deadline: float) -> Answered:  # noqa: FBT001
        """Ask for the entries below `base`, or with `one` for that entry alone."""
        with self._border():
            self._limit(deadline)
            self._ldap.search(base, filter_, ldap3.BASE if one else ldap3.SUBTREE, attributes=attributes or ["1.1"])
            result = self._outcome()
            responses: list[Any] = self._ldap.response or []
            found = [response for response in responses if response["type"] == "searchResEntry"]
            entries = [Entry(response["dn"], _texts(response["raw_attributes"])) for response in found]
            references = [tuple(response["uri"]) for response in responses if response["type"] == "searchResRef"]
        return Answered(result, entries, references)

    def set_password(self, dn: str, password: Secret, deadline: float) -> Outcome:
        """Give an entry a new password by the Password Modify operation (RFC 3062): the directory stores it in its own way."""
        with self._border():
            self._limit(deadline)
            try:
                self._ldap.extend.standard.modify_password(dn, None, password.reveal().encode(), controls=[_ASK_POLICY])
            finally:
                self._ldap.request = None
            return self._outcome()

    def replace(self, dn: str, attribute: str, value: bytes, deadline: float) -> Outcome:
        """Put one value in the place of all that an attribute has."""
        with self._border():
            self._limit(deadline)
            try:
                self._ldap.modify(dn, {attribute: [(ldap3.MODIFY_REPLACE, [value])]}, controls=[_ASK_POLICY])
            finally:
                self._ldap.request = None
            return self._outcome()

    def close(self) -> None:
        """Hang up without a word."""
        if self._ldap is not None and self._ldap.socket is not None:
            with suppress(OSError):
                self._ldap.socket.close()
            self._ldap = None

    def _limit(self, deadline: float) -> None:
        self._ldap.socket.settimeout(left(deadline))

    def _outcome(self) -> Outcome:
        found = outcome(self._ldap.result)
        if found.is_outage:
            raise ServerDown(f"{found.name} {found.message[:200]}".rstrip())
        return found

    @contextmanager
    def _border(self) -> Generator[None]:
        try:
            yield
        except Exception as error:
            # Without its cause: a traceback through ldap3 has the password among its values.
            raise ServerDown(f"{self._url}: {error}") from None


def _texts(raw: Mapping[str, list[bytes]]) -> dict[str, tuple[str, ...]]:
    texts: dict[str, tuple[str, ...]] = {}
    for name, values in raw.items():
        with suppress(UnicodeDecodeError):
            texts[name.lower()] = tuple(value.decode() for value in values)
    return texts
