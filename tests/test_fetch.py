"""The HTTP client: on a real TLS server of our own authority, and with what may not be reached."""

import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from extauth.errors import BackendDown, ConfigError
from extauth.fetch import FetchConfig, Fetcher, Response, is_public
from tests.certificates import Certificates
from tests.servers.webapp import WebApp

ACCOUNTS = {("alice", "example.com"): "correct horse"}


@pytest.fixture
def app(certificates: Certificates) -> Iterator[WebApp]:
    """Give a web application with a good certificate."""
    with WebApp(certificates.server, ACCOUNTS) as app:
        yield app


@pytest.fixture
def config(certificates: Certificates) -> Callable[..., FetchConfig]:
    """Give a configuration that trusts our authority and reaches loopback."""

    def config(**keys: Any) -> FetchConfig:  # noqa: ANN401
        usual: dict[str, Any] = {"ca_file": str(certificates.ca), "allow_private": True, "timeout": 10}
        return FetchConfig(**{**usual, **keys})

    return config


async def get(config: FetchConfig, url: str, headers: dict[str, str] | None = None) -> Response:
    async with Fetcher.open(config, "app") as fetcher:
        return await fetcher.fetch("GET", url, headers or {})


@asynccontextmanager
async def speaking(certificates: Certificates, data: bytes, *, hold: bool = False) -> AsyncGenerator[str]:
    """Serve `data` to every request; yield the URL. `hold`: keep the connection open then."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)

    async def speak(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.receive_some(65536)
            await stream.send_all(data)
            if hold:
                await trio.sleep_forever()
            await stream.aclose()
        except trio.BrokenResourceError:  # it has heard enough
            pass

    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
    port = cast("trio.SocketListener", listeners[0].transport_listener).socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, speak, listeners)
        yield f"https://localhost:{port}/x?token=fake-secret"
        nursery.cancel_scope.cancel()


async def test_a_response_comes_whole(app: WebApp, config: Callable[..., FetchConfig]) -> None:
    app.fault = (418, "short and stout")
    response = await get(config(), f"https://localhost:{app.port}/pot")
    assert (response.status, response.body, response.headers["content-length"]) == (418, b"short and stout", "15")
    assert app.requests == ["GET /pot"]
    assert "stout" not in repr(response)


async def test_redirects_are_not_followed(certificates: Certificates, config: Callable[..., FetchConfig], app: WebApp) -> None:
    moved = f"HTTP/1.1 302 Found\r\nLocation: https://localhost:{app.port}/\r\nContent-Length: 0\r\n\r\n"
    async with speaking(certificates, moved.encode()) as url:
        assert (await get(config(), url)).status == 302
    assert app.requests == []


async def test_proxies_of_the_environment_are_ignored(
    app: WebApp, config: Callable[..., FetchConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    app.fault = (200, "direct")
    assert (await get(config(), f"https://localhost:{app.port}/")).body == b"direct"


@pytest.mark.parametrize("host", ["elsewhere.test", "localhost"])
async def test_a_bad_certificate_is_an_outage(
    certificates: Certificates, config: Callable[..., FetchConfig], host: str
) -> None:
    """It is another host's, or its time is over."""
    pem = certificates.impostor(f"web-{host}", [host], expired=host == "localhost")
    with WebApp(pem, ACCOUNTS) as app:
        with pytest.raises(BackendDown, match=r"certificate: .*(expired|mismatch|not valid for 'localhost')"):
            await get(config(), f"https://localhost:{app.port}/")
        assert app.requests == []


async def test_an_unknown_authority_is_an_outage(app: WebApp) -> None:
    with pytest.raises(BackendDown, match=r"certificate: (unable to get local issuer|self)"):
        await get(FetchConfig(allow_private=True, timeout=10), f"https://localhost:{app.port}/")
    assert app.requests == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_private_addresses_must_be_allowed(app: WebApp, config: Callable[..., FetchConfig], host: str) -> None:
    with pytest.raises(BackendDown, match="has no public address"):
        await get(config(allow_private=False), f"https://{host}:{app.port}/")
    assert app.requests == []


async def test_the_address_that_is_judged_is_the_one_connected_to(
    app: WebApp, config: Callable[..., FetchConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that has another address at each look-up (DNS rebinding) is looked up once."""
    answers = iter(["8.8.8.8", "127.0.0.1"])
    connected: list[object] = []

    async def look_up(host: str, port: int, **_: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    async def connect(*, host: str, **_: object) -> None:
        connected.append(host)
        raise OSError("unreachable here")

    monkeypatch.setattr(trio.socket, "getaddrinfo", look_up)
    monkeypatch.setattr(trio, "open_tcp_stream", connect)
    with pytest.raises(BackendDown):
        await get(config(allow_private=False), f"https://rebinding.test:{app.port}/")
    assert connected == ["8.8.8.8"]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1"),
        *("::1", "::", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "ff02::1"),
        *("::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::e000:1", "2002:7f00:1::", "2001:0:a00:1::"),
    ],
)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8"])
def test_what_is_public(address: str) -> None:
    assert is_public(address)


async def test_a_response_that_is_too_large_is_cut(certificates: Certificates, config: Callable[..., FetchConfig]) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 70_000
    async with speaking(certificates, data, hold=True) as url:
        with pytest.raises(BackendDown, match="a response of more than 65536 bytes") as caught:
            await get(config(), url)
    assert "fake-secret" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"HTTP/1.1 200 OK\r\nX: "])
async def test_a_slow_response_is_an_outage(
    certificates: Certificates, config: Callable[..., FetchConfig], data: bytes
) -> None:
    async with speaking(certificates, data, hold=True) as url:
        with pytest.raises(BackendDown, match=r"no response within 0\.5 s") as caught:
            await get(config(timeout=0.5), url)
    assert "fake-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"HTTP/9 \xff\r\n"]
)
async def test_a_broken_response_is_an_outage(
    certificates: Certificates, config: Callable[..., FetchConfig], data: bytes
) -> None:
    async with speaking(certificates, data) as url:
        with pytest.raises(BackendDown):
            await get(config(), url)


async def test_nobody_there_is_an_outage_and_a_name_without_address_too(config: Callable[..., FetchConfig]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(BackendDown, match="https://localhost"):
            await get(config(), f"https://localhost:{unused.getsockname()[1]}/")
    with pytest.raises(BackendDown, match=r"nowhere\.invalid"):
        await get(config(), "https://nowhere.invalid/")


async def test_a_lost_connection_is_opened_again(certificates: Certificates, config: Callable[..., FetchConfig]) -> None:
    async with speaking(certificates, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as url:
        async with Fetcher.open(config(), "app") as fetcher:
            for _ in range(3):
                assert (await fetcher.fetch("GET", url, {})).body == b"ok"


async def test_a_file_of_authorities_must_be_one(tmp: Path) -> None:
    (tmp / "empty").touch()
    for name in ("missing", "empty"):
        with pytest.raises(ConfigError, match=rf"backend\.app\.ca_file: {tmp}/{name}"):
            async with Fetcher.open(FetchConfig(ca_file=str(tmp / name)), "app"):
                pass


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://app.example.com/", "http:// shows passwords"),
        ("ftp://app.example.com/", "must be of the form"),
        ("https:///path", "must be of the form"),
        ("app.example.com", "must be of the form"),
        ("https://user:fake@app.example.com/", "neither user"),
        ("https://app.example.com/#x", "fragment"),
        ("https://app.example.com:port/", "no URL"),
        ("https://[::1/", "no URL"),
    ],
)
def test_what_a_url_may_not_be(url: str, problem: str) -> None:
    (found,) = FetchConfig().check_url("url", url)
    assert found.startswith("url: ")
    assert problem in found
    assert "fake" not in found


def test_what_a_url_may_be() -> None:
    assert FetchConfig().check_url("url", "https://app.example.com:8443/check?site=1") == []
    assert FetchConfig(allow_plaintext=True).check_url("url", "http://127.0.0.1:8080/") == []


@given(url=st.text(max_size=60))
def test_any_text_is_judged(url: str) -> None:
    assert isinstance(FetchConfig().check_url("url", f"https://{url}"), list)
