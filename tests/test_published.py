"""Keys that an issuer publishes: when they are fetched, for how long they are good, and what an issuer may get wrong."""

import json
from collections.abc import Mapping
from typing import cast

import pytest
import trio
import trio.testing
from extauth_jwt.keys import Keyset
from extauth_jwt.published import PAUSE, Published

from extauth.errors import BackendDown
from extauth.fetch import FetchConfig, Fetcher, Response
from extauth.soon import settle
from tests.jwts import ISSUER, jwk

URL = "https://id.example.org/keys"
DISCOVERY = f"{ISSUER}/.well-known/openid-configuration"
FRESH, STALE = 600, 3600


class Web:
    """Answers instead of the network, after `delay` seconds; remembers what was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, object] = {URL: {"keys": [jwk("RSA", kid="a")]}}
        self.status = 200
        self.down = False
        self.delay = 0.0
        self.asked: list[str] = []

    async def fetch(self, method: str, url: str, headers: Mapping[str, str]) -> Response:
        assert (method, headers["Accept"]) == ("GET", "application/json")
        self.asked.append(url)
        await trio.sleep(self.delay)
        if self.down:
            raise BackendDown("no route")
        page = self.pages[url]
        return Response(self.status, {}, page if isinstance(page, bytes) else json.dumps(page).encode())


def publish(web: Web, *, url: str = URL, issuer: str = ISSUER) -> Published:
    fetcher = cast("Fetcher", web)
    return Published(FetchConfig(), fetcher, url=url, issuer=issuer, algorithms=(), fresh=FRESH, stale=STALE)


async def kids(source: Published, kid: str = "a") -> list[str]:
    """Return the ids of the keys that are found for a token of this key."""
    keys: Keyset = await settle(source.find(kid))
    return [key.kid for key in keys.keys]


async def test_keys_are_fetched_once_and_then_after_a_while(autojump_clock: trio.testing.MockClock) -> None:
    web = Web()
    source = publish(web)
    for _ in range(3):
        assert await kids(source) == ["a"]
    assert web.asked == [URL]
    assert isinstance(source.find("a"), Keyset)  # at once
    await trio.sleep(FRESH)
    assert await kids(source) == ["a"]
    assert len(web.asked) == 2


async def test_an_unknown_key_is_looked_for_once_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    web = Web()
    source = publish(web)
    assert await kids(source) == ["a"]
    web.pages[URL] = {"keys": [jwk("RSA", kid="b")]}
    for number in range(20):  # somebody makes ids up
        assert await kids(source, f"made up {number}") == ["a"]
    assert len(web.asked) == 1
    await trio.sleep(PAUSE)
    assert await kids(source, "b") == ["b"]
    assert await kids(source, "a") == ["b"]  # withdrawn
    assert len(web.asked) == 2


async def test_old_keys_are_good_for_a_while_without_the_issuer(autojump_clock: trio.testing.MockClock) -> None:
    web = Web()
    source = publish(web)
    assert await kids(source) == ["a"]
    web.down = True
    await trio.sleep(FRESH)
    assert await kids(source) == ["a"]
    for _ in range(5):
        assert await kids(source) == ["a"]
        with pytest.raises(BackendDown, match="no route"):  # it may be a key that can't be fetched just now
            await kids(source, "b")
    assert len(web.asked) == 2
    await trio.sleep(STALE - FRESH)
    with pytest.raises(BackendDown, match=r"keys of https://id\.example\.org: no route"):
        await kids(source)
    web.down = False
    await trio.sleep(PAUSE)
    assert await kids(source) == ["a"]


async def test_many_at_the_start_wait_for_one_fetch(autojump_clock: trio.testing.MockClock) -> None:
    web = Web()
    web.delay = 3.0
    source = publish(web)
    found: list[list[str]] = []

    async def one() -> None:
        found.append(await kids(source))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(one)
    assert (found, len(web.asked)) == ([["a"]] * 10, 1)


async def test_a_slow_renewal_holds_up_nobody_who_has_a_key(autojump_clock: trio.testing.MockClock) -> None:
    web = Web()
    source = publish(web)
    assert await kids(source) == ["a"]
    web.delay = 3.0
    await trio.sleep(FRESH)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kids, source)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(source.find("a"), Keyset)
    assert len(web.asked) == 2


async def test_a_fetch_that_is_given_up_does_not_end_all_others(autojump_clock: trio.testing.MockClock) -> None:
    web = Web()
    web.delay = 30.0
    source = publish(web)
    with trio.move_on_after(1):
        await kids(source)
    web.delay = 0.0
    await trio.sleep(10)
    assert await kids(source) == ["a"]


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        (b"<html>", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        ([], "no JSON object"),
        ({"keys": {}}, "keys is no list"),
        ({"keys": []}, "no key that can be used"),
        ({"keys": [1, {"kty": "oct", "k": "c2VjcmV0IGJ1dCBwdWJsaXNoZWQ"}]}, "no key that can be used"),
    ],
)
async def test_nonsense_is_an_outage(page: object, problem: str, autojump_clock: trio.testing.MockClock) -> None:
    web = Web()
    good, web.pages[URL] = web.pages[URL], page
    source = publish(web)
    with pytest.raises(BackendDown, match=problem):
        await kids(source)
    web.pages[URL] = good
    await trio.sleep(10)
    assert await kids(source) == ["a"]
    web.pages[URL] = page  # what is there stays
    await trio.sleep(FRESH)
    assert await kids(source) == ["a"]


async def test_a_status_is_told(autojump_clock: trio.testing.MockClock) -> None:
    web = Web()
    web.status = 302
    with pytest.raises(BackendDown, match="status 302"):
        await kids(publish(web))


async def test_discovery(autojump_clock: trio.testing.MockClock) -> None:
    web = Web()
    web.pages[DISCOVERY] = {"issuer": ISSUER, "jwks_uri": URL}
    assert await kids(publish(web, url="")) == ["a"]
    assert web.asked == [DISCOVERY, URL]


@pytest.mark.parametrize(
    ("described", "problem"),
    [
        ({"issuer": f"{ISSUER}/", "jwks_uri": URL}, "another issuer"),
        ({"jwks_uri": URL}, "another issuer"),
        ([], "another issuer"),
        ({"issuer": ISSUER}, "no jwks_uri"),
        ({"issuer": ISSUER, "jwks_uri": 1}, "no jwks_uri"),
        ({"issuer": ISSUER, "jwks_uri": "http://id.example.org/keys"}, "no jwks_uri"),
        ({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}, "no jwks_uri"),
    ],
    ids=str,
)
async def test_an_issuer_is_not_believed_everything(
    described: object, problem: str, autojump_clock: trio.testing.MockClock
) -> None:
    web = Web()
    web.pages[DISCOVERY] = described
    with pytest.raises(BackendDown, match=problem):
        await kids(publish(web, url=""))
    assert web.asked == [DISCOVERY]
