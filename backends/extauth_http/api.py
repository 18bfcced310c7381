"""What an API of a web application is: how a request becomes an HTTP request, and what the response means. Pure."""

import json
from collections.abc import Mapping
from typing import Any, Protocol, cast

from msgspec import Struct, field

from extauth import jid
from extauth.errors import BackendDown
from extauth.model import Accept, Answer, Request


class Call(Struct, frozen=True):
    """An HTTP request. Its repr shows neither headers nor body: they hold passwords and signatures."""

    method: str
    path: str  # below the configured URL; "" for the URL itself
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""

    def __repr__(self) -> str:
        return f"Call({self.method!r}, {self.path!r}, ...)"


class Api(Protocol):
    """One kind of API."""

    @property
    def handles(self) -> frozenset[type[Request]]:
        """What it can be asked."""
        ...

    def call(self, request: Request) -> Call:
        """Return the HTTP request to make."""
        ...

    def judge(self, request: Request, status: int, body: bytes) -> Answer | None:
        """Return what the response means; None: unknown user.

        Raises:
            BackendDown: nothing that this API says.
        """
        ...


def nonsense(status: int, what: str = "a response that this API does not give") -> BackendDown:
    """Return what to raise for a response that can't be understood; its text never holds the response."""
    return BackendDown(f"status {status}: {what}")


def as_json(status: int, body: bytes) -> dict[str, Any]:
    """Return a response that must be a JSON object.

    Raises:
        BackendDown: it is none.
    """
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise nonsense(status, "not JSON") from error
    if not isinstance(found, dict):
        raise nonsense(status, "no JSON object")
    return cast("dict[str, Any]", found)


def member(found: Mapping[str, Any], path: str) -> object:
    """Return the member of nested JSON objects that `path` ("data.uid") names; None if there is none."""
    value: object = found
    for name in path.split("."):
        value = cast("Mapping[str, object]", value).get(name) if isinstance(value, Mapping) else None
    return value


def named(request: Request, name: object) -> Accept | None:
    """Accept under the application's own name of the user, where it tells one; None if that can be no user of ours."""
    asked = request.identity
    if name is None or jid.is_name(str(name), asked):
        return Accept(asked)
    user, at, domain = str(name).rpartition("@")
    try:
        return Accept(jid.identity(user, domain) if at else jid.identity(domain, asked.domain))
    except jid.InvalidName:
        return None
