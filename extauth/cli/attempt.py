"""A login as a server makes it, in the protocol of each listener that takes passwords."""

import base64
import hmac
import os
import secrets
from collections.abc import Callable
from typing import NamedTuple, Protocol

from extauth.passwords import scram
from extauth.passwords.prepare import for_storing
from extauth.tokens import relogin

CLOSED = "connection closed without an answer"
SASL = "dovecot"  # the protocol whose listeners take any mechanism


class Wire(Protocol):
    """A buffered connection to a listener."""

    def read(self, size: int = -1, /) -> bytes:
        """Read so many bytes, or all."""
        ...

    def readline(self) -> bytes:
        """Read a line."""
        ...

    def write(self, data: bytes, /) -> int:
        """Write into the buffer."""
        ...

    def flush(self) -> None:
        """Write what is in the buffer."""
        ...


class Login(NamedTuple):
    """Who wants to log in, and how."""

    user: str
    domain: str
    password: str
    mechanism: str = "PLAIN"


class Unable(ValueError):  # noqa: N818 - a refusal of ours
    """This login can't be asked about. The message says why."""


def ejabberd(wire: Wire, login: Login) -> str:
    """Ask as ejabberd does."""
    question = f"auth:{login.user}:{login.domain}:{login.password}".encode()
    if len(question) > 0xFFFF:  # noqa: PLR2004
        raise Unable("this password is too long to be asked about")
    _send(wire, len(question).to_bytes(2, "big") + question)
    size = wire.read(2)
    return _shown(size + wire.read(int.from_bytes(size, "big")))


def prosody(wire: Wire, login: Login) -> str:
    """Ask as Prosody's mod_auth_external does."""
    _send(wire, f"auth:{login.user}:{login.domain}:{login.password}\n".encode())
    return _shown(wire.readline())


def saslauthd(wire: Wire, login: Login) -> str:
    """Ask as Cyrus SASL does."""
    strings = [text.encode() for text in (login.user, login.password, "xmpp", login.domain)]
    if any(len(string) > 0xFFFF for string in strings):  # noqa: PLR2004
        raise Unable("this password is too long to be asked about")
    _send(wire, b"".join(len(string).to_bytes(2, "big") + string for string in strings))
    return _shown(wire.read())


def dovecot(wire: Wire, login: Login) -> str:
    """Ask as an XMPP server does that relays SASL."""
    client = _client(login)
    while (line := wire.readline()) != b"DONE\n":
        if not line:
            return CLOSED
    _send(wire, f"VERSION\t1\t2\nCPID\t{os.getpid()}\n".encode())
    start = f"AUTH\t1\t{login.mechanism}\tservice=xmpp\tsecured=tls\tdomain={login.domain}\tresp="
    _send(wire, f"{start}{_b64(client(b''))}\n".encode())
    while (line := wire.readline()).startswith(b"CONT\t1\t"):
        _send(wire, f"CONT\t1\t{_b64(client(base64.b64decode(line.split()[2])))}\n".encode())
    verb, *fields = line.decode(errors="replace").rstrip("\n").split("\t") if line else [CLOSED]
    final = next((field.removeprefix("resp=") for field in fields if field.startswith("resp=")), None)
    if verb == "OK" and final is not None:
        client(base64.b64decode(final))
    # What the mechanism says last is no secret and no help.
    return " ".join([verb, *(field for field in fields[1:] if not field.startswith("resp="))])


ASKING: dict[str, Callable[[Wire, Login], str]] = {
    "ejabberd": ejabberd,
    "prosody": prosody,
    SASL: dovecot,
    "saslauthd": saslauthd,
}


def _client(login: Login) -> Callable[[bytes], bytes]:
    """Return the client's side of a mechanism: from each message of the server its answer, b"" first."""
    if login.mechanism == "PLAIN":
        return lambda _: f"\0{login.user}\0{login.password}".encode()
    if login.mechanism == "X-OAUTH":
        token = _decoded(login.password)
        return lambda _: token
    for family in scram.Hash:
        if login.mechanism == f"SCRAM-{family.value}":
            return _Scram(family, login).answer
    known = ", ".join(["PLAIN", *(f"SCRAM-{family.value}" for family in scram.Hash), "X-OAUTH"])
    raise Unable(f"can't play the client of {login.mechanism} (only of {known})")


class _Scram:
    """The client's side of SCRAM (RFC 5802 section 3), without channel binding."""

    def __init__(self, family: scram.Hash, login: Login) -> None:
        self._family = family
        self._password = for_storing(login.password) or login.password
        name = login.user.replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={name},r={secrets.token_urlsafe(18)}"
        self._signature: bytes | None = None

    def answer(self, message: bytes) -> bytes:
        """Return the client's next message; Unable if the server can't prove that it knows the keys."""
        if not message:
            return f"n,,{self._bare}".encode()
        fields = dict(field.split("=", 1) for field in message.decode().split(","))
        if self._signature is None:
            return self._final(message.decode(), fields)
        if not hmac.compare_digest(base64.b64decode(fields.get("v", "")), self._signature):
            raise Unable("the daemon does not know the keys that it should")
        return b""

    def _final(self, server_first: str, fields: dict[str, str]) -> bytes:
        salted = scram.salted_password(self._family, self._password, base64.b64decode(fields["s"]), int(fields["i"]))
        keys = scram.keys(self._family, salted)
        without_proof = f"c=biws,r={fields['r']}"
        signed = f"{self._bare},{server_first},{without_proof}".encode()
        client_key = hmac.digest(salted, b"Client Key", self._family.digest)
        mask = hmac.digest(keys.stored_key, signed, self._family.digest)
        proof = bytes(a ^ b for a, b in zip(client_key, mask, strict=True))
        self._signature = hmac.digest(keys.server_key, signed, self._family.digest)
        return f"{without_proof},p={_b64(proof)}".encode()


def _decoded(token: str) -> bytes:
    """Return a token as X-OAUTH has it; people hold it in base64, unless it is a relogin key."""
    if relogin.recognise(token):
        return token.encode()
    try:
        return base64.b64decode(token, validate=True)
    except ValueError:
        raise Unable("this is not the base64 of a token") from None


def _send(wire: Wire, data: bytes) -> None:
    wire.write(data)
    wire.flush()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode() or "="


def _shown(reply: bytes) -> str:
    return repr(reply)[2:-1] if reply else CLOSED
