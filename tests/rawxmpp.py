"""XMPP streams with SASL by hand, over TCP, websocket (RFC 7395) and BOSH (XEP-0206), for what slixmpp cannot do.

Blocking; names of elements are in ElementTree's form.
"""

import base64
import http.client
import secrets
import socket
import struct
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, cast
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element

from OpenSSL import SSL

SASL = "{urn:ietf:params:xml:ns:xmpp-sasl}"
_SASL_NS = "urn:ietf:params:xml:ns:xmpp-sasl"
_TIMEOUT = 30


class Stream:
    """A stream to `domain`, up to and including SASL; a context manager that closes the connection.

    Attributes:
        features: the stream's latest features.
    """

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.features: Element

    @abstractmethod
    def open(self) -> None:
        """Open or restart the stream, and take its features."""

    @abstractmethod
    def send(self, xml: str) -> None:
        """Send one element."""

    @abstractmethod
    def receive(self) -> Element:
        """Return the next element; EOFError when the server closed the stream."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    def offered(self) -> list[str]:
        """Return the mechanisms in the features, sorted."""
        return sorted(element.text or "" for element in self.features.iter(f"{SASL}mechanism"))

    def bindings(self) -> list[str]:
        """Return the channel binding types in the features (XEP-0440), sorted."""
        return sorted(element.attrib["type"] for element in self.features.iter("{urn:xmpp:sasl-cb:0}channel-binding"))

    def auth(self, mechanism: str, response: bytes | None = None) -> Element:
        """Send <auth/>, with an initial response unless None; return the server's answer."""
        text = "" if response is None else encode(response)
        self.send(f'<auth xmlns="{_SASL_NS}" mechanism="{mechanism}">{text}</auth>')
        return self.receive()

    def respond(self, response: bytes) -> Element:
        """Answer a challenge; return the server's answer."""
        self.send(f'<response xmlns="{_SASL_NS}">{encode(response) if response else ""}</response>')
        return self.receive()

    def plain(self, user: str, password: str) -> Element:
        """Log in by PLAIN; return the server's answer."""
        return self.auth("PLAIN", f"\0{user}\0{password}".encode())

    def bind(self) -> str:
        """Open the stream again after SASL and bind a resource; return the full JID."""
        self.open()
        self.send('<iq type="set" id="b" xmlns="jabber:client"><bind xmlns="urn:ietf:params:xml:ns:xmpp-bind"/></iq>')
        jid = self.receive().find(".//{urn:ietf:params:xml:ns:xmpp-bind}jid")
        assert jid is not None
        assert jid.text is not None
        return jid.text

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def encode(data: bytes) -> str:
    """Return base64 as SASL in XMPP has it: "=" for nothing (RFC 6120, 6.4.2)."""
    return base64.b64encode(data).decode() or "="


def decode(element: Element) -> bytes:
    """Return the data of a challenge or success."""
    return b"" if element.text in (None, "=") else base64.b64decode(element.text)


def condition(failure: Element) -> str:
    """Return the condition of a SASL failure or stream error."""
    return failure[0].tag.rpartition("}")[2]


class TcpStream(Stream):
    """RFC 6120 with STARTTLS, or in the clear if `ca` is None.

    Attributes:
        tls: the TLS connection.
    """

    def __init__(self, port: int, domain: str, ca: Path | None) -> None:
        super().__init__(domain)
        self._ca = ca
        self._socket = socket.create_connection(("127.0.0.1", port), _TIMEOUT)
        self.tls: SSL.Connection | None = None

    def __enter__(self) -> Self:
        self.open()
        if self._ca is not None:
            self.send('<starttls xmlns="urn:ietf:params:xml:ns:xmpp-tls"/>')
            assert self.receive().tag == "{urn:ietf:params:xml:ns:xmpp-tls}proceed"
            self._start_tls(self._ca)
            self.open()
        return self

    def _start_tls(self, ca: Path) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.load_verify_locations(str(ca))
        context.set_verify(SSL.VERIFY_PEER)
        self._socket.settimeout(None)  # pyOpenSSL wants a blocking socket, so the kernel keeps the time
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _TIMEOUT, 0))
        self.tls = SSL.Connection(context, self._socket)
        self.tls.set_tlsext_host_name(self.domain.encode())
        self.tls.set_connect_state()
        self.tls.do_handshake()

    def open(self) -> None:
        """Send the opening tag and take the features."""
        self._parser: ET.XMLPullParser[Element] = ET.XMLPullParser(["start", "end"])
        self._elements = self._read()
        self.send(
            f'<?xml version="1.0"?><stream:stream to="{self.domain}" version="1.0" xmlns="jabber:client" '
            'xmlns:stream="http://etherx.jabber.org/streams">'
        )
        self.features = self.receive()

    def send(self, xml: str) -> None:
        """Send text."""
        (self.tls or self._socket).sendall(xml.encode())

    def receive(self) -> Element:
        """Return the next element; EOFError at the end."""
        element = next(self._elements, None)
        if element is None:
            raise EOFError
        return element

    def _read(self) -> Iterator[Element]:
        depth = 0
        while data := self._receive_some():
            self._parser.feed(data)
            for event, element in cast("Iterator[tuple[str, Element]]", self._parser.read_events()):
                depth += 1 if event == "start" else -1
                if event == "end" and depth == 1:
                    yield element
                if depth == 0:
                    return

    def _receive_some(self) -> bytes:
        if self.tls is None:
            return self._socket.recv(65536)
        try:
            return self.tls.recv(65536)
        except (SSL.ZeroReturnError, SSL.SysCallError):
            return b""

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def reset(self) -> None:
        """End the connection as a crash would: by a TCP reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


class WebsocketStream(Stream):
    """RFC 7395 without TLS."""

    def __init__(self, port: int, domain: str) -> None:
        super().__init__(domain)
        self._socket = socket.create_connection(("127.0.0.1", port), _TIMEOUT)
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self._socket.sendall(
            f"GET /xmpp-websocket HTTP/1.1\r\nHost: {domain}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n".encode()
        )
        self._file = self._socket.makefile("rb")
        assert b" 101 " in self._file.readline()
        while self._file.readline().strip():
            pass

    def open(self) -> None:
        """Send the opening tag and take the features."""
        self.send(f'<open xmlns="urn:ietf:params:xml:ns:xmpp-framing" to="{self.domain}" version="1.0"/>')
        assert self.receive().tag.endswith("}open")
        self.features = self.receive()

    def send(self, xml: str) -> None:
        """Send text."""
        data = xml.encode()
        mask = secrets.token_bytes(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        self._socket.sendall(struct.pack(">BBH", 0x81, 0xFE, len(data)) + mask + masked)

    def receive(self) -> Element:
        """Return the next element; EOFError at the end."""
        first, length = self._file.read(2)
        if length == 126:
            (length,) = struct.unpack(">H", self._file.read(2))
        data = self._file.read(length)
        # Prosody 13 does not declare this prefix in a stream error.
        stream = b'<x xmlns:stream="http://etherx.jabber.org/streams">%s</x>' % data
        element = ET.fromstring(stream)[0] if first == 0x81 else None  # noqa: S314 -- our own server's
        if element is None or element.tag.endswith("}close"):
            raise EOFError
        return element

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()


class BoshStream(Stream):
    """XEP-0206 without TLS."""

    def __init__(self, port: int, domain: str) -> None:
        super().__init__(domain)
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
        self._number = secrets.randbelow(1000000)
        self._session = ""
        self._received: list[Element] = []

    def open(self) -> None:
        """Send the opening tag and take the features."""
        if self._session:
            attributes = 'xmpp:restart="true"'
        else:
            attributes = 'wait="20" hold="1" ver="1.6" xmpp:version="1.0" xml:lang="en"'
        self._exchange(attributes, "")
        self.features = self.receive()

    def send(self, xml: str) -> None:
        """Send text."""
        self._exchange("", xml)

    def _exchange(self, attributes: str, content: str) -> None:
        self._number += 1
        session = f' sid="{self._session}"' if self._session else ""
        body = (
            f'<body xmlns="http://jabber.org/protocol/httpbind" xmlns:xmpp="urn:xmpp:xbosh" to="{self.domain}" '
            f'rid="{self._number}"{session} {attributes}>{content}</body>'
        )
        self._http.request("POST", "/http-bind", body.encode(), {"Host": self.domain})
        answer = ET.fromstring(self._http.getresponse().read())  # noqa: S314 -- our own server's
        self._session = answer.get("sid", self._session)
        self._received += answer
        if answer.get("type") == "terminate" and not len(answer):
            raise EOFError

    def receive(self) -> Element:
        """Return the next element; EOFError at the end."""
        for _ in range(2):  # of 20 s
            if self._received:
                break
            self._exchange("", "")
        return self._received.pop(0)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()
