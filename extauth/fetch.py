"""Requests to web applications and identity providers: the one HTTP client, on httpcore.

https with verified certificates; no redirects, no proxies of the environment, a cap on size and time; and only public
addresses, unless the configuration allows private ones: a URL must not become a way into the site's own network. The address
that is judged is the one that is connected to.
"""

import ipaddress
import socket
import ssl
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httpcore
import trio
from msgspec import Struct

from extauth.errors import BackendDown, ConfigError
from extauth.values import Checked

AGENT = "extauth"


@dataclass(frozen=True)
class FetchConfig(Checked):
    """The keys of every backend that asks by HTTP; a backend's `Config` inherits them. Times are in seconds."""

    ca_file: str | None = None  # whose certificates are trusted, instead of the system's
    allow_private: bool = False  # let the host have an address that is not public
    allow_plaintext: bool = False  # let secrets go unencrypted over http://
    timeout: float = 4.0  # that a request may take, with all that it needs
    connections: int = 32  # at a time
    max_response: int = 65_536  # bytes, its headers included

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        yield from self.not_positive("timeout", "connections", "max_response")

    def check_url(self, key: str, url: str) -> list[str]:
        """Return what is wrong with the URL that `key` holds."""
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            return [f"{key}: no URL"]
        if parts.scheme == "http" and not self.allow_plaintext:
            return [f"{key}: http:// shows passwords to the network; use https:// or set allow_plaintext = true"]
        if parts.scheme not in ("https", "http") or not parts.hostname:
            return [f"{key}: must be of the form https://host/path"]
        if parts.username is not None or parts.password is not None or parts.fragment:
            return [f"{key}: must hold neither user, password nor fragment"]
        return []


class Response(Struct, frozen=True):
    """What came back. The repr doesn't show the body: it may hold a token."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def __repr__(self) -> str:
        return f"Response({self.status})"


class Fetcher:
    """Makes requests."""

    def __init__(self, config: FetchConfig, pool: httpcore.AsyncConnectionPool) -> None:
        self._config = config
        self._pool = pool

    @classmethod
    @asynccontextmanager
    async def open(cls, config: FetchConfig, name: str) -> AsyncGenerator["Fetcher", None]:
        """Prepare for requests; nothing is connected to before it is needed. `name` is the backend's.

        Raises:
            ConfigError: the file of authorities can't be used.
        """
        try:
            context = ssl.create_default_context(cafile=config.ca_file)
        except OSError as error:  # also ssl.SSLError
            raise ConfigError([f"backend.{name}.ca_file: {config.ca_file}: {error.strerror or error}"]) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        backend = _Guard(config)
        async with httpcore.AsyncConnectionPool(
            ssl_context=context, max_connections=config.connections, keepalive_expiry=30.0, network_backend=backend
        ) as pool:
            yield cls(config, pool)

    async def fetch(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"", *, changes: bool = False
    ) -> Response:
        """Make one request.

        A server may close an idle connection just when it is used again: then the request is made once more, unless
        it `changes` something there.

        Raises:
            BackendDown: there is no response, or one that is too large or comes too late; the text leaves out the URL's query.
        """
        shown = url.partition("?")[0]
        sent = {"User-Agent": AGENT, "Accept-Encoding": "identity", "Content-Length": str(len(body)), **headers}
        try:
            with trio.fail_after(self._config.timeout):
                try:
                    response = await self._pool.request(method, url, headers=list(sent.items()), content=body)
                except (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError):
                    if changes:
                        raise
                    response = await self._pool.request(method, url, headers=list(sent.items()), content=body)
        except trio.TooSlowError as error:
            raise BackendDown(f"{shown}: no response within {self._config.timeout:g} s") from error
        except _RefusedError as error:
            raise BackendDown(f"{shown}: {error}") from error
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
            httpcore.UnsupportedProtocol,
        ) as error:
            raise BackendDown(f"{shown}: {_cause(error)}") from error

        names = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        return Response(response.status, names, response.content)


class _RefusedError(Exception):
    """We don't go on with this request."""


class _Guard(httpcore.AsyncNetworkBackend):
    """Connects to the addresses of a host that are allowed."""

    def __init__(self, config: FetchConfig) -> None:
        self._config = config
        self._trio = cast("httpcore.AsyncNetworkBackend", httpcore.TrioBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface has it
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that is allowed and answers."""
        try:
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"{host}: {error.strerror}") from error
        addresses = [str(entry[4][0]) for entry in found]
        allowed = [address for address in addresses if self._config.allow_private or is_public(address)]
        if not allowed:
            raise _RefusedError(f"{host} has no public address (allow_private = true lets it have others)")
        for address in allowed[:-1]:
            share = self._config.timeout / len(allowed)  # or one address that nobody answers at would take all of it
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._connect(address, port, share, local_address, socket_options)
        return await self._connect(allowed[-1], port, timeout, local_address, socket_options)

    async def _connect(self, *arguments: Any) -> httpcore.AsyncNetworkStream:  # noqa: ANN401 - those of connect_tcp
        return _Capped(await self._trio.connect_tcp(*arguments), self._config.max_response)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await trio.sleep(seconds)


class _Capped(httpcore.AsyncNetworkStream):
    """Reads no more than `cap` bytes after what was written last, which was a request.

    Here, since whoever leaves a response unread leaves generators behind that trio complains of.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream, cap: int) -> None:
        self._stream = stream
        self._cap = cap
        self._read = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the interface has it
        """Read, within the cap."""
        data = await self._stream.read(max_bytes, timeout)
        self._read += len(data)
        if self._read > self._cap:
            raise _RefusedError(f"a response of more than {self._cap} bytes")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the interface has it
        """Write, and begin to count again."""
        self._read = 0
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface has it
    ) -> httpcore.AsyncNetworkStream:
        """Encrypt; what is read within is counted."""
        return _Capped(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._cap)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - the interface has it
        """Describe the connection."""
        return self._stream.get_extra_info(info)


# The last four bytes are an IPv4 address: mapped and compatible (RFC 4291 section 2.5.5), and behind NAT64 (RFC 6052).
_TRANSLATED = [ipaddress.IPv6Network(network) for network in ("::ffff:0:0/96", "::/96", "64:ff9b::/96")]


def is_public(address: str) -> bool:
    """Tell whether an IP address belongs to the Internet at large."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and any(ip in network for network in _TRANSLATED):
        ip = ipaddress.IPv4Address(ip.packed[-4:])
    return ip.is_global and not ip.is_multicast


def _cause(error: BaseException) -> str:
    """Return in words what went wrong below."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, ssl.SSLCertVerificationError):
            return f"certificate: {below.verify_message}"
        below = below.__cause__ or below.__context__
    return str(error) or type(error).__name__
