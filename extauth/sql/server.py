"""The keys of a database that is a server: where it is, who asks, and whether the way there is encrypted."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from msgspec import Struct

from extauth.model import Secret
from extauth.secretfile import read_secret
from extauth.sql.config import SqlConfig
from extauth.tls import client_context

_LOCAL = {"localhost", "127.0.0.1", "::1"}


class Address(Struct, frozen=True):
    """Where the server is, who asks it, and how to encrypt. A host that begins with "/" is a Unix socket, or its folder."""

    host: str
    port: int
    database: str
    user: str
    password: Secret | None
    tls: ssl.SSLContext | None


@dataclass(frozen=True, kw_only=True)
class ServerConfig(SqlConfig):
    """What the table of a backend may have whose database is a server."""

    standard_port: ClassVar[int]

    host: str = "localhost"  # or the path of a Unix socket
    port: int | None = None
    database: str
    user: str
    password_file: str | None = None
    tls: Literal["verify", "off"] | None = None  # none: "verify", except to this very machine
    ca_file: str | None = None  # whose certificates are trusted, instead of the system's
    client_certificate: str | None = None  # PEM files to show to the server
    client_key: str | None = None

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        yield from super().problems()
        if not self.host:
            yield "host: is empty"
        if self.port is not None and not 1 <= self.port <= 65535:  # noqa: PLR2004
            yield "port: must be 1 to 65535"
        if not self.encrypted and (self.ca_file or self.client_certificate):
            yield 'ca_file, client_certificate: need tls = "verify", and a host that is no socket'
        if self.client_key is not None and self.client_certificate is None:
            yield "client_key: needs client_certificate"

    @property
    def is_socket(self) -> bool:
        """Whether the server is reached by a Unix socket."""
        return self.host.startswith("/")

    @property
    def encrypted(self) -> bool:
        """Whether the connection is encrypted and the server's certificate verified."""
        return not self.is_socket and (self.tls == "verify" or (self.tls is None and self.host not in _LOCAL))

    def address(self, name: str) -> Address:
        """Return where and how to connect. `name` is the backend's.

        Raises:
            ConfigError: a file of the configuration can't be used.
        """
        password = None if self.password_file is None else read_secret(self.password_file, f"backend.{name}.password_file")
        port = self.port or self.standard_port
        return Address(self.host, port, self.database, self.user, password, self._tls_context(name))

    def _tls_context(self, name: str) -> ssl.SSLContext | None:
        if not self.encrypted:
            return None
        return client_context(f"backend.{name}", self.ca_file, self.client_certificate, self.client_key)
