"""The keys that an issuer publishes: fetched when they are needed, kept for a while, and no longer than that."""

import json
import math
from typing import Any, Protocol, cast

import structlog
import trio
from msgspec import Struct

from extauth.errors import BackendDown
from extauth.fetch import FetchConfig, Fetcher
from extauth.soon import Soon
from extauth_jwt.keys import BadKey, Keyset, read_jwks, usable

_log = structlog.get_logger("jwt")

PAUSE = 60.0  # seconds between two fetches: a key id that nobody knows must not become a way to flood the issuer
_RETRY = 5.0  # as long as there are no keys at all
_OK = 200


class Source(Protocol):
    """Where keys come from."""

    def find(self, kid: str) -> Soon[Keyset]:
        """Return the keys, looked for anew if none has this id.

        Raises (at once or when awaited):
            BackendDown: they can't be had.
        """
        ...


class Held(Struct, frozen=True):
    """Keys of the configuration."""

    keys: Keyset

    def find(self, kid: str) -> Keyset:  # noqa: ARG002 - they are all there are
        """Return them."""
        return self.keys


class Published:
    """Keys at `url`, or where the issuer's description of itself says (OpenID Connect Discovery section 4)."""

    def __init__(
        self,
        config: FetchConfig,
        fetcher: Fetcher,
        *,
        url: str,
        issuer: str,
        algorithms: tuple[str, ...],
        fresh: int,
        stale: int,
    ) -> None:
        self._config = config
        self._fetcher = fetcher
        self._url = url
        self._issuer = issuer
        self._algorithms = algorithms
        self._fresh = fresh
        self._stale = stale
        self._keys = Keyset(())
        self._fetched = -math.inf  # by trio's clock, as all times here
        self._next = -math.inf
        self._failure = "no keys yet"
        self._lock = trio.Lock()

    def find(self, kid: str) -> Soon[Keyset]:
        """Return the keys; see `Source`."""
        now = trio.current_time()
        known = bool(self._keys.keys) and self._keys.knows(kid)
        if known and now < self._fetched + self._fresh:
            return self._keys
        # Who needs a key that is just being fetched waits for it; who has one does not.
        if now >= self._next or (not known and self._lock.locked()):
            return self._renewed(kid)
        return self._kept(kid)

    async def _renewed(self, kid: str) -> Keyset:
        async with self._lock:
            now = trio.current_time()
            if now >= self._next:
                self._next = now + (PAUSE if self._is_usable() else _RETRY)
                await self._renew()
        return self._kept(kid)

    def _is_usable(self) -> bool:
        return trio.current_time() < self._fetched + self._stale

    def _kept(self, kid: str) -> Keyset:
        if not self._is_usable():
            raise BackendDown(self._failure)
        if self._failure and not self._keys.knows(kid):  # it may be the key that could not be fetched
            raise BackendDown(self._failure)
        return self._keys

    async def _renew(self) -> None:
        try:
            url = self._url or await self._discover()
            self._keys = usable(read_jwks(await self._get(url)), self._algorithms)
        except (BackendDown, BadKey) as error:
            self._failure = f"keys of {self._issuer or self._url}: {error}"
            _log.warning("keys can't be fetched", issuer=self._issuer, why=str(error))
        else:
            self._failure = ""
            self._fetched = trio.current_time()
            self._next = self._fetched + PAUSE

    async def _discover(self) -> str:
        found = await self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        described = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        url = described.get("jwks_uri")
        if described.get("issuer") != self._issuer:
            raise BackendDown("describes itself as another issuer")
        if not isinstance(url, str) or self._config.check_url("jwks_uri", url):
            raise BackendDown("names no jwks_uri that may be asked")
        return url

    async def _get(self, url: str) -> object:
        response = await self._fetcher.fetch("GET", url, {"Accept": "application/json"})
        if response.status != _OK:
            raise BackendDown(f"status {response.status}")
        try:
            found: object = json.loads(response.body)
        except (ValueError, RecursionError):
            raise BackendDown("not JSON") from None
        return found
