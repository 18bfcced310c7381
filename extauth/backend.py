"""What a backend is: a module named `extauth_<type>` with a `Config` and an `open`.

    @dataclass(frozen=True)
    class Config: ...                                   # its keys in the configuration, by annotation

    @asynccontextmanager
    async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]: ...

`Config` raises `ValueError` with one argument ("KEY: ...") for each thing that is wrong, best as an `extauth.values.Checked`.
`open` raises `ConfigError` for what a
person must mend and `BackendDown` only for what nobody can go without: a directory that is away at start is no reason not to
start.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from extauth.model import Answer, Identity, Request
from extauth.soon import Soon
from extauth.store import Store
from extauth.threads import Load, Threads


class Down(NamedTuple):
    """Why a server counts as down, and since when (Unix time in seconds)."""

    problem: str
    since: float


class Insight(NamedTuple):
    """What a backend knows of itself: which of its servers are down, by URL, and the load of its threads, if it has some."""

    down: Mapping[str, Down] = MappingProxyType({})
    load: Load | None = None


def no_insight() -> Insight:
    """Return what is known of a backend that tells nothing."""
    return Insight()


class Backend(Protocol):
    """Holds accounts or judges credentials.

    One that answers FindKeys, but not for every hash, also has `hashes: frozenset[str]`: those it has keys for ("SHA-1" ...).
    One whose SCRAM keys are all in `extauth.keyring`, beside those of app passwords, has `keyring = True`.
    One that has several servers or threads may have `insight() -> Insight`, for `extauth status`.
    """

    @property
    def handles(self) -> frozenset[type[Request]]:
        """The kinds of request that this backend can answer; it is asked no other."""
        ...

    def answer(self, request: Request) -> Soon[Answer | None]:
        """Answer, at once if that needs no waiting. None: I don't know this user, ask the next.

        Raises (at once or when awaited):
            BackendDown: it can't tell at present.
        """
        ...


def _forget(_: Identity | None) -> None:
    """Where nothing is remembered."""


@dataclass(frozen=True)
class Context:
    """What a backend may use of the daemon.

    `now` is Unix time in seconds; `hashing` are the threads for key derivation; `forget` drops what is remembered of an account
    (None: of all), for a backend that is told of changes.
    """

    name: str
    store: Store
    hashing: Threads
    now: Callable[[], float]
    forget: Callable[[Identity | None], object] = _forget


class BackendModule(Protocol):
    """The module of a backend."""

    Config: type[Any]
    open: Callable[[Any, Context], AbstractAsyncContextManager[Backend]]
