"""Backend `http`: the contract with each kind of API by real TLS, and what an application may answer beside."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import extauth_http
import pytest
from extauth_http import Config
from extauth_http.api import Api, Call
from extauth_http.generic import Generic, Rules
from extauth_http.jsxc import Jsxc
from extauth_http.mongooseim import MongooseIM
from hypothesis import given
from hypothesis import strategies as st

from extauth.backend import Backend, Context
from extauth.errors import BackendDown, ConfigError
from extauth.model import (
    Accept,
    CheckPassword,
    CreateUser,
    Identity,
    Reason,
    Reject,
    RemoveUser,
    Secret,
    SetPassword,
    UserExists,
)
from extauth.store import Store
from extauth.threads import Threads
from tests.certificates import Certificates
from tests.contract import ACCOUNTS, ALICE, DOMAIN, ORIGIN, BackendContract, ask, is_yes, login
from tests.servers.webapp import AUTHORIZATION, SECRET, WebApp

CONTEXT = Context("app", cast("Store", None), Threads("hash", 1, 1), time.time)
CHECK = CheckPassword(ALICE, ORIGIN, Secret("correct horse"))


@pytest.fixture
def app(certificates: Certificates) -> Iterator[WebApp]:
    """Give a web application with the contract's accounts."""
    with WebApp(certificates.server, {(user, DOMAIN): password for user, password in ACCOUNTS.items()}) as app:
        yield app


class Site:
    """What opens backends on the application."""

    def __init__(self, app: WebApp, certificates: Certificates, folder: Path) -> None:
        self.app = app
        self._ca = str(certificates.ca)
        self._secret = self._file(folder / "secret", SECRET)
        self._authorization = self._file(folder / "authorization", AUTHORIZATION)

    @staticmethod
    def _file(path: Path, text: str) -> str:
        path.write_text(text + "\n")
        path.chmod(0o600)
        return str(path)

    @asynccontextmanager
    async def open(self, path: str, **keys: Any) -> AsyncGenerator[Backend]:  # noqa: ANN401
        usual: dict[str, Any] = {"ca_file": self._ca, "allow_private": True, "timeout": 20, "secret_file": self._secret}
        usual |= {"authorization_file": self._authorization, "url": f"https://localhost:{self.app.port}{path}"}
        async with extauth_http.open(Config(**{**usual, **keys}), CONTEXT) as backend:
            yield backend


@pytest.fixture
def site(app: WebApp, certificates: Certificates, tmp: Path) -> Site:
    """Give what opens backends."""
    return Site(app, certificates, tmp)


class TestJsxc(BackendContract):
    """The API of Nextcloud's JSXC."""

    handles = frozenset({CheckPassword, UserExists})

    @pytest.fixture
    async def backend(self, site: Site) -> AsyncIterator[Backend]:
        async with site.open("/jsxc", api="jsxc") as backend:
            yield backend


class TestMongooseIM(BackendContract):
    """The API of MongooseIM and ejabberd-contrib."""

    handles = frozenset({CheckPassword, UserExists, SetPassword, CreateUser, RemoveUser})

    @pytest.fixture
    async def backend(self, site: Site) -> AsyncIterator[Backend]:
        async with site.open("/mi/", api="mongooseim", password_in_url=True, allow_changes=True) as backend:
            yield backend


class TestGeneric(BackendContract):
    """An API of one's own."""

    handles = frozenset({CheckPassword})

    @pytest.fixture(params=["json", "form"])
    async def backend(self, site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
        async with site.open("/check", body=request.param, accept_member="ok", name_member="account.name") as backend:
            yield backend


async def test_a_role_is_handed_on(site: Site) -> None:
    async with site.open("/check", accept_member="ok", role_member="account.role") as backend:
        assert await login(backend, "alice", ACCOUNTS["alice"]) == Accept(ALICE, {"role": "staff"})


async def test_changes_have_to_be_allowed(site: Site) -> None:
    async with site.open("/mi", api="mongooseim", password_in_url=True) as backend:
        assert backend.handles == {CheckPassword, UserExists}


@pytest.mark.parametrize("fault", [(500, "oops"), (200, "<html>"), (302, ""), (200, ""), (200, "[1]"), (200, "[" * 60000)])
async def test_nonsense_is_an_outage(site: Site, fault: tuple[int, str]) -> None:
    site.app.fault = fault
    for path, keys in {"/jsxc": {"api": "jsxc"}, "/check": {"accept_member": "ok"}}.items():
        async with site.open(path, **keys) as backend:
            with pytest.raises(BackendDown, match=rf"status {fault[0]}"):
                await login(backend, "alice", ACCOUNTS["alice"])
    async with site.open("/mi", api="mongooseim", password_in_url=True) as backend:
        with pytest.raises(BackendDown, match=rf"status {fault[0]}"):
            await login(backend, "alice", ACCOUNTS["alice"])


async def test_a_wrong_shared_secret_is_an_outage(site: Site, tmp: Path) -> None:
    other = tmp / "other"
    other.write_text("another fake")
    other.chmod(0o600)
    async with site.open("/jsxc", api="jsxc", secret_file=str(other)) as backend:
        with pytest.raises(BackendDown):
            await login(backend, "alice", ACCOUNTS["alice"])


async def test_an_application_that_is_away_is_an_outage_until_it_is_back(site: Site) -> None:
    async with site.open("/check") as backend:
        site.app.fault = (503, "")
        with pytest.raises(BackendDown):
            await login(backend, "alice", ACCOUNTS["alice"])
        site.app.fault = None
        assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")


def jsxc() -> Api:
    return Jsxc(Secret("01234"))


def generic(**keys: str) -> Api:
    usual = dict.fromkeys(("accept_member", "name_member", "role_member"), "")
    names = {"body": "json", "user": "u", "domain": "d", "password": "p", "accept_value": "true"}
    return Generic(Rules(**{**usual, **names, **keys}), None)


def test_the_signature_is_that_of_xcauth() -> None:
    request = CheckPassword(Identity("user2", "domain2"), ORIGIN, Secret("pass2"))
    call = jsxc().call(request)
    assert call.body == b"operation=auth&username=user2&domain=domain2&password=pass2"
    assert call.headers["X-JSXC-SIGNATURE"] == "sha1=6487f0a9555ba772d27fa49da6e3af1ee7e5097d"


@pytest.mark.parametrize(
    ("uid", "user"), [("alice", "alice"), ("Alice", "alice"), ("alice@example.com", "alice"), ("bob", "bob")]
)
def test_the_applications_own_name_is_told(uid: str, user: str) -> None:
    body = f'{{"result": "success", "data": {{"uid": "{uid}"}}}}'.encode()
    assert jsxc().judge(CHECK, 200, body) == Accept(Identity(user, DOMAIN))


def test_a_mail_address_may_be_asked_for() -> None:
    there = CheckPassword(Identity("alice@corp.example", DOMAIN), ORIGIN, Secret("correct horse"))
    for uid, meaning in (("Alice@corp.example", Accept(there.identity)), ("alice@example.com", Accept(ALICE))):
        body = f'{{"result": "success", "data": {{"uid": "{uid}"}}}}'.encode()
        assert jsxc().judge(there, 200, body) == meaning


def test_a_name_that_is_none_is_nobodys() -> None:
    assert jsxc().judge(CHECK, 200, b'{"result": "success", "data": {"uid": "a b/c"}}') is None


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (401, b"", Reject(Reason.BAD_PASSWORD)),
        (403, b"whatever", Reject(Reason.BAD_PASSWORD)),
        (404, b"", None),
        (200, b'{"data": {"ok": true}}', Accept(ALICE)),
        (200, b'{"data": {"ok": "true"}}', Accept(ALICE)),
        (200, b'{"data": {"ok": false}}', Reject(Reason.BAD_PASSWORD)),
        (200, b'{"data": {"ok": 1}}', Reject(Reason.BAD_PASSWORD)),
        (200, b'{"data": {"ok": null}}', Reject(Reason.BAD_PASSWORD)),
        (200, b'{"data": []}', Reject(Reason.BAD_PASSWORD)),
        (200, b"{}", Reject(Reason.BAD_PASSWORD)),
    ],
)
def test_what_a_generic_response_means(status: int, body: bytes, meaning: object) -> None:
    assert generic(accept_member="data.ok").judge(CHECK, status, body) == meaning


def test_without_rules_the_status_decides() -> None:
    assert generic().judge(CHECK, 204, b"") == Accept(ALICE)


@given(status=st.sampled_from([200, 201, 302, 400, 500]), body=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_garbage_is_an_outage(status: int, body: bytes) -> None:
    mongooseim: Api = MongooseIM(None, allow_changes=False)
    for api in (jsxc(), generic(accept_member="ok"), mongooseim):
        try:
            answer = api.judge(CHECK, status, body)
        except BackendDown:
            continue
        assert not isinstance(answer, Accept) or b"true" in body


def test_passwords_are_not_shown() -> None:
    for api in (jsxc(), generic(), cast("Api", MongooseIM(Secret("Basic fake"), allow_changes=True))):
        call: Call = api.call(CHECK)
        assert "correct" not in repr(Call(call.method, "", call.headers, call.body))


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"url": "http://app.example.com/"}, "url: http:// shows passwords"),
        ({"api": "jsxc"}, "secret_file"),
        ({"api": "mongooseim"}, "password_in_url"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_what_a_configuration_may_not_say(keys: dict[str, Any], problem: str) -> None:
    usual: dict[str, Any] = {"url": "https://app.example.com/check"}
    with pytest.raises(ValueError, match=problem):
        Config(**(usual | keys))


async def test_a_secret_must_be_there(site: Site) -> None:
    with pytest.raises(ConfigError, match=r"backend\.app\.secret_file: /nonexistent"):
        async with site.open("/jsxc", api="jsxc", secret_file="/nonexistent"):
            pass


async def test_a_stranger_is_asked_for_once_more(site: Site) -> None:
    async with site.open("/jsxc", api="jsxc") as backend:
        assert await ask(backend, CheckPassword(Identity("mallory", DOMAIN), ORIGIN, Secret("x"))) is None
        assert await login(backend, "alice", "wrong") == Reject(Reason.BAD_PASSWORD)
