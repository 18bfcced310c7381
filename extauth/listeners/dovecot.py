"""The Dovecot authentication protocol, client side of the server: every SASL mechanism, many exchanges on one connection.

Spoken by our own Prosody module, by Prosody's mod_auth_dovecot, Postfix, Exim and doveadm. Lines of fields separated by TAB;
each exchange has an id of the client's. Sources: Dovecot docs "Authentication Protocol" 1.1 to 1.4, src/lib-auth-client,
Postfix xsasl_dovecot_server.c, Exim dovecot.c.

Our own additions are in docs/dovecot.md. The parameter `extauth` of each MECH tells of them: all clients ignore parameters that
they do not know, while Dovecot's own refuses lines that it does not know.
"""

import os
import re
import secrets
import time
from binascii import a2b_base64
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from extauth import jid
from extauth.dovecot import binary, decode, encode, escape, failure_line, names, parse, parse_id, tokens_line
from extauth.engine import Engine
from extauth.errors import ProtocolError
from extauth.lines import Lines
from extauth.model import Identity, Origin, Reason
from extauth.sasl.exchange import TURNS, Challenge, Exchange, Failure, Stream, Terms, Turn
from extauth.server import Server
from extauth.service import Service
from extauth.sockets import SocketConfig, domain_problems
from extauth.soon import Soon, then

MAX_LINE = 65536  # bytes; Dovecot itself takes 16384, too few for a certificate beside a long token
MAX_EXCHANGES = 1024  # open on one connection: Prosody never cancels those that its clients abandon
MAX_TOLD = 16  # sets of parameters that are remembered of a connection
MAX_AGE = 150.0  # seconds from AUTH to the last answer, as Dovecot has it
VERSION = b"VERSION\t1\t4\n"
CANCELLED_SINCE = 4  # minor version of a client that knows the line
EMPTY_RESPONSE_SINCE = 2  # minor version of a client whose `resp=` means an empty response and not none

_MINOR = re.compile(r"[0-9]{1,4}").fullmatch

# What Postfix and Exim want to know of a mechanism (Dovecot docs, "Mechanism parameters").
_FLAGS = {"PLAIN": "\tplaintext", "LOGIN": "\tplaintext", "ANONYMOUS": "\tanonymous"}
_RESPONSE = "resp="
_RESERVED = frozenset(("user", "original_user", "resp", "reason", "temp", "authz", "code", "grant"))


@dataclass(frozen=True)
class Config(SocketConfig):
    """[listener.NAME] with protocol = "dovecot"."""

    address: str = "unix:/run/extauth/sasl.sock"
    domain: str = ""  # for servers that do not say which virtual host
    use_local_name: bool = False  # take the name the client connected to (SNI) for the virtual host
    require_secured: bool = False  # refuse plaintext mechanisms unless the server says that the stream is encrypted
    user_format: Literal["local", "jid"] = "local"  # what an XMPP server wants; mail servers often want user@domain

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        yield from super().problems()
        yield from domain_problems(self.domain)


class _Told(Struct, frozen=True):
    """What AUTH tells, but for the client's response."""

    terms: Terms
    wants_grant: bool
    final_in_ok: bool  # whether the peer takes the mechanism's last data together with OK


class _Open(Struct, frozen=True):
    """An exchange that waits for its client or for an answer."""

    exchange: Exchange
    until: float  # monotonic seconds
    began: int  # Unix time in milliseconds, if the peer wants a grant; else 0
    final_in_ok: bool


class Conversation:
    """One connection of a server."""

    ordered = False

    def __init__(self, service: Service, origin: Origin, config: Config) -> None:
        self._service = service
        self._origin = origin
        self._config = config
        self._lines = Lines(MAX_LINE)
        self._tells_security = config.require_secured  # whether the server says of each stream if it is encrypted
        self._minor: int | None = None  # until the client has said it
        self._open: dict[int, _Open] = {}
        self._finals: dict[int, bytes] = {}  # OK lines that wait for the client to take the last data first
        self._settings = service.settings
        self._told: dict[tuple[str, ...], _Told] = {}  # under these settings; many servers tell the same of each client
        self.requests = self._lines.feed
        self.half = self._lines.half

    def greet(self) -> bytes:
        """Return the handshake: at once, as up to 2.3, because Exim and Postfix wait for it; MECH before SPID."""
        lines = [VERSION, *(f"MECH\t{name}{_FLAGS.get(name, '')}\textauth\n".encode() for name in self._offered({}))]
        lines.append(f"SPID\t{os.getpid()}\nCUID\t{secrets.randbits(31)}\nCOOKIE\t{secrets.token_hex(16)}\n".encode())
        return b"".join([*lines, b"DONE\n"])

    def answer(self, command: bytes) -> Soon[bytes]:
        """Answer one line."""
        verb, *fields = command.decode("utf-8", "replace").split("\t")
        match verb:
            case "AUTH":
                return self._auth(fields)
            case "CONT":
                return self._cont(fields)
            case "VERSION":
                return self._version(fields)
            case "CPID":
                return b""
            case "CANCEL":
                return self._cancel(fields)
            case "MECHS":
                return self._mechs(fields)
            case "TOKENS":
                return self._tokens(fields)
            case _:
                raise ProtocolError("an unknown command")

    def closed(self) -> None:
        """End every exchange that is open."""
        for entry in self._open.values():
            entry.exchange.abort()
        self._open.clear()
        self._finals.clear()
        self._told.clear()

    # Commands -------------------------------------------------------------------------------------------------------------

    def _version(self, fields: list[str]) -> bytes:
        if len(fields) < 2 or fields[0] != "1" or not _MINOR(fields[1]) or self._minor is not None:  # noqa: PLR2004
            raise ProtocolError("not version 1 of the protocol")
        self._minor = int(fields[1])
        return b""

    def _auth(self, fields: list[str]) -> Soon[bytes]:
        if self._minor is None or len(fields) < 2:  # noqa: PLR2004
            raise ProtocolError("AUTH before VERSION, or without a mechanism")
        number = parse_id(fields[0])
        if number in self._open or number in self._finals:
            raise ProtocolError("an id that is in use")
        parameters = fields[2:]
        response = self._initial(parameters)
        try:
            told = self._understand(fields[1], parameters)
        except ValueError:
            return self._refuse(number, parse(parameters))
        now = time.monotonic()
        exchange = self._service.negotiate(told.terms, now)
        began = self._service.milliseconds() if told.wants_grant else 0
        self._forget_old(now, room=1)
        entry = self._open[number] = _Open(exchange, now + MAX_AGE, began, told.final_in_ok)
        return self._turn(number, entry, exchange.begin(response))

    def _cont(self, fields: list[str]) -> Soon[bytes]:
        if len(fields) < 2:  # noqa: PLR2004
            raise ProtocolError("CONT without data")
        number = parse_id(fields[0])
        self._forget_old(time.monotonic())
        final = self._finals.pop(number, None)
        if final is not None:
            return final
        entry = self._open.get(number)
        if entry is None:
            return f"FAIL\t{number}\treason=Authentication request timed out\n".encode()
        data = decode(fields[1])
        if data is None:
            return self._line(number, entry, entry.exchange.refuse("incorrect-encoding"))
        return self._turn(number, entry, entry.exchange.respond(data))

    def _cancel(self, fields: list[str]) -> bytes:
        if not fields:
            raise ProtocolError("CANCEL without an id")
        number = parse_id(fields[0])
        self._finals.pop(number, None)
        entry = self._open.pop(number, None)
        if entry is not None:
            entry.exchange.abort()
        return f"CANCELLED\t{number}\n".encode() if (self._minor or 0) >= CANCELLED_SINCE else b""

    def _mechs(self, fields: list[str]) -> bytes:
        if not fields:
            raise ProtocolError("MECHS without an id")
        number = parse_id(fields[0])
        parameters = parse(fields[1:])
        self._tells_security = True
        self._told.clear()
        names = self._offered(parameters)
        return "\t".join(["MECHS", str(number), *names]).encode() + b"\n"

    def _tokens(self, fields: list[str]) -> Soon[bytes]:
        if not fields:
            raise ProtocolError("TOKENS without an id")
        number, parameters = parse_id(fields[0]), parse(fields[1:])
        verdict = self._service.issue_tokens(parameters.get("grant", ""), parameters.get("device", ""), self._origin)
        return then(verdict, partial(tokens_line, number))

    # One exchange ---------------------------------------------------------------------------------------------------------

    def _turn(self, number: int, entry: _Open, turn: Soon[Turn]) -> Soon[bytes]:
        """Return the line that tells how an exchange goes on."""
        if isinstance(turn, TURNS):
            return self._line(number, entry, turn)
        return self._turn_later(number, entry, turn)

    async def _turn_later(self, number: int, entry: _Open, turn: Awaitable[Turn]) -> bytes:
        settled = await turn
        if self._open.get(number) is not entry:
            return b""  # cancelled meanwhile: no line may follow
        return self._line(number, entry, settled)

    def _line(self, number: int, entry: _Open, turn: Turn) -> bytes:
        if isinstance(turn, Challenge):
            return f"CONT\t{number}\t{encode(turn.data)}\n".encode()
        del self._open[number]
        if isinstance(turn, Failure):
            return failure_line(number, turn)
        user = turn.identity.user if self._config.user_format == "local" else str(turn.identity)
        line = f"OK\t{number}\tuser={escape(user)}"
        for key, value in turn.attributes.items():
            if key not in _RESERVED:
                line += f"\t{key}={escape(value)}"
        grant = self._service.grant(turn.identity, turn.attributes, entry.began) if entry.began else None
        if grant is not None:
            line += f"\tgrant={grant}"
        if turn.data is None:
            return f"{line}\n".encode()
        if entry.final_in_ok:
            return f"{line}\tresp={encode(turn.data)}\n".encode()
        self._finals[number] = f"{line}\n".encode()
        return f"CONT\t{number}\t{encode(turn.data)}\n".encode()

    def _forget_old(self, now: float, room: int = 0) -> None:
        """Give up exchanges whose client has taken too long, and the oldest where there has to be `room` for another."""
        while self._open:
            number, oldest = next(iter(self._open.items()))
            if oldest.until > now and len(self._open) + room <= MAX_EXCHANGES:
                break
            del self._open[number]
            oldest.exchange.abort()
        while len(self._finals) >= MAX_EXCHANGES:
            del self._finals[next(iter(self._finals))]

    def _offered(self, parameters: dict[str, str]) -> tuple[str, ...]:
        try:
            stream = self._stream(parameters)
        except ValueError:
            return ()
        announced = dict.fromkeys(names(parameters, "cb"), b"")
        return self._service.offer(replace(stream, bindings={**announced, **stream.bindings})).mechanisms

    def _refuse(self, number: int, parameters: dict[str, str]) -> bytes:
        """Refuse an exchange for which we don't even know where the client is."""
        domain = Identity("", parameters.get("domain", ""))
        self._service.refuse("authenticate", domain, self._origin, Reason.UNKNOWN_DOMAIN)
        return f"FAIL\t{number}\treason=Authentication failed\n".encode()

    # What the server tells of a stream ------------------------------------------------------------------------------------

    def _initial(self, fields: list[str]) -> bytes | None:
        """Take the initial response out of the fields, of which it is the last (None: there is none).

        Raises:
            ProtocolError: it is no base64.
        """
        if not fields or not fields[-1].startswith(_RESPONSE):
            return None
        value = fields.pop()[len(_RESPONSE) :]
        if not value and (self._minor or 0) < EMPTY_RESPONSE_SINCE:
            return None
        response = decode(value)
        if response is None:
            raise ProtocolError("resp= is not base64")
        return response

    def _understand(self, mechanism: str, fields: list[str]) -> _Told:
        """Return what AUTH tells: a mechanism and parameters.

        Raises:
            ProtocolError: they are not as they have to be.
            ValueError: as `_stream`.
        """
        if self._settings is not self._service.settings:
            self._settings = self._service.settings
            self._told.clear()
        key = (mechanism, *fields)
        told = self._told.get(key)
        if told is None:
            parameters = parse(fields)
            service, protocol = parameters.get("service"), parameters.get("protocol")
            if not service and not protocol:
                raise ProtocolError("AUTH without service=")
            if "resp" in parameters:  # a peer that does not check the client's response could be made to forge fields
                raise ProtocolError("resp= is not the last parameter")
            final_in_ok = "xmpp" in (service, protocol) or "final-resp-ok" in parameters
            terms = self._service.terms(mechanism.upper(), self._stream(parameters))
            told = _Told(terms, "grant" in parameters, final_in_ok)
            if len(self._told) >= MAX_TOLD:
                self._told.clear()
            self._told[key] = told
        return told

    def _stream(self, parameters: dict[str, str]) -> Stream:
        """Return what is known of the client's stream.

        Raises:
            ValueError: the virtual host is no domain, or binary data is not base64.
        """
        name = parameters.get("domain") or (parameters.get("local_name") if self._config.use_local_name else None)
        domain = jid.domain_part(name or self._config.domain or self._service.only_domain)
        secure = "secured" in parameters or not self._tells_security
        server = self._origin
        client, enforces = parameters.get("rip", ""), "enforces" in parameters
        origin = Origin(server.listener, server.peer, client, secure, patience=server.patience, enforces=enforces)
        certificate = a2b_base64(parameters["cert"], strict_mode=True) if parameters.get("cert") else None
        return Stream(
            domain=domain,
            origin=origin,
            secure=secure,
            bindings=binary(parameters, "cb-"),
            certificate=certificate,
            certificate_user=parameters.get("cert_username") if "valid-client-cert" in parameters else None,
            advertised=names(parameters, "offered"),
            advertised_bindings=names(parameters, "offered-cb"),
        )


def server(name: str, config: Config, service: Service) -> Server:
    """Make the listener."""
    return Engine(name, config, service.journal, lambda origin: Conversation(service, origin, config))
