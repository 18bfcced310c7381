"""Backend `oauth`: what an issuer's answer means, what is remembered of it, and what it is never asked."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs

import pytest
import trio
from extauth_oauth import Config
from extauth_oauth.issuer import Issuer
from extauth_oauth.judge import OauthBackend
from hypothesis import given
from hypothesis import strategies as st

from extauth.backend import Context
from extauth.errors import BackendDown
from extauth.fetch import Fetcher, Response
from extauth.model import CheckPassword, CheckToken, Reason, Secret
from extauth.store import open_store
from extauth.threads import Threads
from tests.contract import WRONG
from tests.jwts import ALICE, AUDIENCE, BOB, ISSUER, START, Clock, Judge, claims, sign

URL = "https://id.example.org/introspect"
TOKEN = "opaque-Token_1"
SECRET = "fake:secret of+a client"


class Web:
    """Answers instead of the network."""

    def __init__(self) -> None:
        self.status = 200
        self.answer: object = good()
        self.asked: list[tuple[str, str, Mapping[str, str], bytes]] = []

    async def fetch(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> Response:
        self.asked.append((method, url, headers, body))
        await trio.lowlevel.checkpoint()
        return Response(self.status, {}, self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode())


def good(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what is said of a good token for alice; None takes a member out."""
    return claims(**{"active": True, "token_type": "Bearer", "client_id": "xmpp", "scope": "openid xmpp", **changes})


def config(**keys: Any) -> Config:  # noqa: ANN401
    usual = {
        "introspection_url": URL,
        "client_id": "x m",
        "client_secret_file": "/s",
        "issuer": ISSUER,
        "audience": (AUDIENCE,),
    }
    return Config(**cast("dict[str, Any]", {**usual, **keys}))


def userinfo(**keys: Any) -> Config:  # noqa: ANN401
    return Config(userinfo_url="https://id.example.org/me", any_client=True, issuer=ISSUER, **keys)


@asynccontextmanager
async def judging(web: Web, folder: Path, rules: Config) -> AsyncGenerator[Judge]:
    """Open a backend that asks `web`."""
    clock = Clock()
    with Threads("test", 1, 1.0) as threads:
        async with open_store(f"sqlite://{folder}/state/state.db") as store:
            issuer = Issuer(rules, Secret(SECRET), cast("Fetcher", web))
            yield Judge(OauthBackend(rules, issuer, Context("app", store, threads, clock)), store, clock)


async def test_a_good_token(tmp: Path) -> None:
    web = Web()
    async with judging(web, tmp, config(remember=0)) as judge:
        assert await judge.token(TOKEN) == await judge.token(TOKEN, ALICE) == ALICE
        assert await judge.token(TOKEN, BOB) is Reason.WRONG_TOKEN
        assert judge.backend.handles == {CheckToken, CheckPassword}
    method, url, headers, body = web.asked[0]
    assert (method, url) == ("POST", URL)
    assert parse_qs(body.decode()) == {"token": [TOKEN], "token_type_hint": ["access_token"]}
    assert headers["Authorization"] == "Basic eCttOmZha2UlM0FzZWNyZXQrb2YlMkJhK2NsaWVudA=="  # both parts form-encoded


async def test_the_client_can_say_who_it_is_in_the_form(tmp: Path) -> None:
    web = Web()
    async with judging(web, tmp, config(client_auth="post")) as judge:
        assert await judge.token(TOKEN) == ALICE
    _, _, headers, body = web.asked[0]
    assert "Authorization" not in headers
    assert parse_qs(body.decode())["client_secret"] == [SECRET]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"active": False}, Reason.BAD_TOKEN),
        ({**good(), "active": False}, Reason.BAD_TOKEN),
        (good(aud="other"), Reason.WRONG_AUDIENCE),
        (good(aud=None), Reason.WRONG_AUDIENCE),
        (good(client_id="other"), Reason.WRONG_AUDIENCE),
        (good(client_id=["xmpp"]), Reason.WRONG_AUDIENCE),
        (good(iss="https://other.example"), Reason.FOREIGN_TOKEN),
        (good(iss=None), None),
        (good(token_type=None), Reason.WRONG_TOKEN),
        (good(token_type="refresh_token"), Reason.WRONG_TOKEN),
        (good(token_type="bearer"), None),
        (good(token_type="DPoP"), Reason.WRONG_TOKEN),
        (good(cnf={"jkt": "x"}), Reason.WRONG_TOKEN),
        (good(scope="openid"), Reason.WRONG_TOKEN),
        (good(exp=START), Reason.EXPIRED_TOKEN),
        (good(exp="soon"), Reason.BAD_TOKEN),
        (good(exp=None), None),
        (good(nbf=START + 61), Reason.WRONG_TOKEN),
        (good(sub=None), Reason.BAD_NAME),
        (good(sub="a b"), Reason.BAD_NAME),
        (good(sub="alice@other.example"), Reason.WRONG_TOKEN),
    ],
)
async def test_what_an_answer_means(tmp: Path, answer: dict[str, Any], reason: Reason | None) -> None:
    web = Web()
    web.answer = answer
    async with judging(web, tmp, config(clients=("xmpp",), require=("scope=xmpp",))) as judge:
        for _ in range(2):  # also of what is remembered
            assert await judge.token(TOKEN) == (ALICE if reason is None else reason)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (500, {}),
        (302, {}),
        (401, {}),
        (400, {"error": "invalid_client"}),
        (200, b"<html>"),
        (200, []),
        (200, {}),
        (200, {"active": "true"}),
    ],
    ids=str,
)
async def test_nonsense_is_an_outage(tmp: Path, status: int, answer: object) -> None:
    web = Web()
    web.status, web.answer = status, answer
    async with judging(web, tmp, config()) as judge:
        with pytest.raises(BackendDown) as caught:
            await judge.token(TOKEN)
        assert TOKEN not in str(caught.value)
        web.status, web.answer = 200, good()
        assert await judge.token(TOKEN) == ALICE


async def test_a_yes_is_remembered_for_a_while(tmp: Path, autojump_clock: trio.testing.MockClock) -> None:
    web = Web()
    async with judging(web, tmp, config(remember=30, remember_size=2)) as judge:
        assert [await judge.token(TOKEN), await judge.token(TOKEN)] == [ALICE, ALICE]
        assert len(web.asked) == 1
        assert await judge.token(TOKEN, BOB) is Reason.WRONG_TOKEN
        judge.clock.time += 600  # it has expired meanwhile, whatever is remembered
        assert await judge.token(TOKEN) is Reason.EXPIRED_TOKEN
        judge.clock.time -= 600
        await trio.sleep(30)
        web.answer = {"active": False}
        assert [await judge.token(TOKEN), await judge.token(TOKEN)] == [Reason.BAD_TOKEN] * 2
        assert len(web.asked) == 3  # a no is not
        web.answer = good()
        for number in (1, 2, 3, 1):
            assert await judge.token(f"{TOKEN}{number}") == ALICE
        assert len(web.asked) == 7  # of two only


async def test_passwords_are_never_shown_to_the_issuer(tmp: Path) -> None:
    web = Web()
    async with judging(web, tmp, config(prefix="at_", remember=0)) as judge:
        for password in (*WRONG, TOKEN, "at", " at_x", "at_ with spaces", "at_\u00f6"):
            assert await judge.password(password) is None, password
        assert web.asked == []
        assert await judge.password("at_1") == await judge.password(sign(claims())) == ALICE
        assert len(web.asked) == 2
    async with judging(web, tmp, config()) as judge:
        assert await judge.password("at_1") is await judge.password("") is None


async def test_userinfo(tmp: Path) -> None:
    web = Web()
    web.answer = {"sub": "7", "preferred_username": "alice"}
    async with judging(web, tmp, userinfo(user="{preferred_username}", remember=0)) as judge:
        assert await judge.token(TOKEN) == ALICE
        method, _, headers, body = web.asked[0]
        assert (method, headers["Authorization"], body) == ("GET", f"Bearer {TOKEN}", b"")
        web.answer = {"sub": "8", "preferred_username": "alice"}
        assert await judge.token(TOKEN) is Reason.NAME_TAKEN
        for status in (400, 401, 403):
            web.status = status
            assert await judge.token(TOKEN) is Reason.BAD_TOKEN
        for status, answer in ((200, {}), (200, {"sub": 7}), (500, {"sub": "7"}), (404, {})):
            web.status, web.answer = status, answer
            with pytest.raises(BackendDown):
                await judge.token(TOKEN)


@given(
    answer=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_garbage_lets_nobody_in(answer: object) -> None:
    async def main() -> None:
        web = Web()
        for name in ("aud", "token_type", "exp", "active"):
            web.answer = {**good(), name: answer}
            rules = config()
            issuer = Issuer(rules, Secret(SECRET), cast("Fetcher", web))
            try:
                found = await issuer.ask(TOKEN)
            except BackendDown:
                continue
            assert found is None or found["active"] is True

    trio.run(main)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"userinfo_url": "https://id.example.org/me"}, "introspection_url, userinfo_url: one of them"),
        ({"introspection_url": ""}, "one of them"),
        ({"introspection_url": "http://id.example.org/"}, "introspection_url: http://"),
        ({"client_id": ""}, "client_id, client_secret_file"),
        ({"audience": ()}, "audience, clients: without them"),
        ({"introspection_url": "", "userinfo_url": "https://id.example.org/me"}, "any_client: userinfo does not tell"),
        ({"issuer": ""}, "issuer: missing"),
        ({"require": ("x",)}, "require: 'x'"),
        ({"user": "sub"}, "user: names claims"),
        ({"remember": 301}, "remember: must be 0 to 300"),
        ({"remember_size": 0}, "remember_size: must be more than 0"),
    ],
    ids=str,
)
def test_what_a_configuration_may_not_say(keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        config(**keys)
