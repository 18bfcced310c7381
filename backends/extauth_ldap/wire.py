"""One connection to one directory server: ldap3, with its exceptions and its defaults kept behind this border."""

import ssl
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import ldap3

from extauth.errors import BackendDown
from extauth.model import Secret

SUCCESS, SIZE_LIMIT_EXCEEDED, REFERRAL, NO_SUCH_OBJECT = 0, 4, 10, 32  # RFC 4511 appendix A
BUSY, UNAVAILABLE = 51, 52

PPOLICY = "1.3.6.1.4.1.42.2.27.8.5.1"  # draft-behera-ldap-password-policy section 6: both of the request and the response
_ASK_POLICY = (PPOLICY, False, None)  # not critical: a server that doesn't know it ignores it
_ERROR_TAG = 0x81


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


class Outcome(NamedTuple):
    """What a server said to an operation: result code, its name, the diagnostic message, the password policy's error."""

    code: int
    name: str
    message: str
    policy: int | None


class Entry(NamedTuple):
    """An entry of the directory. Names of attributes are in lower case; values that are no text are left out."""

    dn: str
    attributes: Mapping[str, tuple[str, ...]]


class _VerifiedTls(ldap3.Tls):
    """TLS by a context that is made once, verifies, and knows the host's name; with a limit to the handshake."""

    def __init__(self, context: ssl.SSLContext, deadline: float) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)  # pyright: ignore[reportUnknownMemberType]
        self._context = context
        self._deadline = deadline

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:  # noqa: ANN401, FBT001, FBT002, ARG002
        """Put TLS around the connection's socket; what ldap3 calls for ldaps and for StartTLS."""
        connection.socket.settimeout(_left(self._deadline))
        connection.socket = self._context.wrap_socket(connection.socket, server_hostname=connection.server.host)


class Connection:
    """An open connection; blocks. `deadline` is always a time of `time.monotonic()`.

    Each method raises:
        ServerDown: the server can't be reached, is not who it should be, or does not answer in time.
    """

    def __init__(self, address: Address, deadline: float) -> None:
        self._url = address.url
        self._ldap: Any = None
        try:
            with self._border():
                self._open(address, deadline)
        except ServerDown:
            self.close()
            raise

    def _open(self, address: Address, deadline: float) -> None:
        encrypted_at_once = address.context is not None and not address.start_tls
        server = ldap3.Server(
            address.host,
            port=address.port,
            use_ssl=encrypted_at_once,
            tls=_VerifiedTls(address.context, deadline) if address.context else None,
            get_info=ldap3.NONE,
            connect_timeout=_left(deadline),
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

    def search(self, base: str, filter_: str, attributes: list[str], deadline: float, *, one: bool = False) -> list[Entry]:
        """Return the entries below `base`, or with `one` that entry alone; none if there is no such base.

        Raises:
            BackendDown: the server refuses, or refers to another server.
        """
        scope = ldap3.BASE if one else ldap3.SUBTREE
        with self._border():
            self._limit(deadline)
            self._ldap.search(base, filter_, scope, attributes=attributes or ["1.1"])
            outcome = self._outcome()
            responses: list[Any] = self._ldap.response or []
            found = [response for response in responses if response["type"] == "searchResEntry"]
            entries = [Entry(response["dn"], _texts(response["raw_attributes"])) for response in found]
        if outcome.code == NO_SUCH_OBJECT:
            return []
        if outcome.code == SIZE_LIMIT_EXCEEDED and len(entries) > 1:
            return entries
        if outcome.code == REFERRAL:
            raise BackendDown(f"{self._url}: refers to another server, which is not followed")
        if outcome.code != SUCCESS:
            raise BackendDown(f"{self._url}: search refused: {outcome.name}")
        return entries

    def set_password(self, dn: str, password: Secret, deadline: float, *, active_directory: bool) -> Outcome:
        """Give an entry a new password: by RFC 3062, in Active Directory by its unicodePwd ([MS-ADTS] 3.1.1.3.1.5)."""
        with self._border():
            self._limit(deadline)
            try:
                if active_directory:
                    quoted = f'"{password.reveal()}"'.encode("utf-16-le")
                    self._ldap.modify(dn, {"unicodePwd": [(ldap3.MODIFY_REPLACE, [quoted])]}, controls=[_ASK_POLICY])
                else:
                    self._ldap.extend.standard.modify_password(dn, None, password.reveal().encode(), controls=[_ASK_POLICY])
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
        self._ldap.socket.settimeout(_left(deadline))

    def _outcome(self) -> Outcome:
        result = self._ldap.result
        outcome = Outcome(result["result"], result["description"], result["message"], _policy_error(result))
        if outcome.code in (BUSY, UNAVAILABLE):
            raise ServerDown(f"{outcome.name}")
        return outcome

    @contextmanager
    def _border(self) -> Generator[None]:
        try:
            yield
        except Exception as error:
            # Without its cause: a traceback through ldap3 has the password among its values.
            raise ServerDown(f"{self._url}: {error}") from None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left


def _texts(raw: Mapping[str, list[bytes]]) -> dict[str, tuple[str, ...]]:
    texts: dict[str, tuple[str, ...]] = {}
    for name, values in raw.items():
        with suppress(UnicodeDecodeError):
            texts[name.lower()] = tuple(value.decode() for value in values)
    return texts


def _policy_error(result: Mapping[str, Any]) -> int | None:
    controls: dict[str, Any] = result.get("controls") or {}
    control = controls.get(PPOLICY)
    return parse_policy(control["value"] or b"") if control else None


def parse_policy(value: bytes) -> int | None:
    """Return the error of a PasswordPolicyResponseValue, None if it holds none or is none.

    It is a SEQUENCE of an optional warning [0] and an optional error [1], each a few octets.
    """
    body = value[2:]
    while len(body) > 2:  # noqa: PLR2004 - tag, length, content
        tag, length = body[0], body[1]
        if tag == _ERROR_TAG:
            return int.from_bytes(body[2 : 2 + length])
        body = body[2 + length :]
    return None
