"""A real OpenID provider: its JWT access tokens by its published keys, its opaque ones by introspection and userinfo."""

import base64
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from extauth_jwt import published

from tests import needs
from tests.certificates import Certificates
from tests.daemons import Served, serve_here
from tests.jwts import write_secret
from tests.servers.oidc import CLIENT, RESOURCE, SECRET, OpenIdProvider, key_id
from tests.test_dovecot import Peer

pytestmark = needs.node()

DAEMON = """\
[daemon]
state = "sqlite://{folder}/state/state.db"
[listener.admin]
protocol = "admin"
address = "unix:{folder}/admin.sock"
[listener.sasl]
protocol = "dovecot"
address = "unix:{folder}/sasl.sock"
deadline = 30.0
[backend.id]
issuer = "{issuer}"
ca_file = "{ca}"
allow_private = true
timeout = 20
{keys}
[domain."xmpp.test"]
backends = ["id"]
"""
BY_JWKS = f"""\
type = "jwt"
preset = "oidc"
audience = ["{RESOURCE}"]
"""
BY_INTROSPECTION = """\
type = "oauth"
introspection_url = "{issuer}/token/introspection"
client_id = "%s"
client_secret_file = "{folder}/client.secret"
clients = ["%s"]
require = ["scope=xmpp"]
user = "{{preferred_username}}"
remember = 0
""" % (CLIENT, CLIENT)  # noqa: UP031 - braces are for the other placeholders
BY_USERINFO = """\
type = "oauth"
userinfo_url = "{issuer}/me"
any_client = true
"""
OK = "OK\t1\tuser=alice"


@pytest.fixture(scope="module")
def provider(certificates: Certificates) -> Iterator[OpenIdProvider]:
    with OpenIdProvider(certificates) as provider:
        yield provider


class Site:
    """The daemon, asked over the Dovecot protocol."""

    def __init__(self, served: Served) -> None:
        self.served = served

    async def bearer(self, token: str, user: str = "") -> str:
        """Log in by OAUTHBEARER and return what the server is told in the end."""
        authzid = f"a={user}@xmpp.test" if user else ""
        message = f"n,{authzid},\x01auth=Bearer {token}\x01\x01"
        async with await self.served.connect("sasl") as stream:
            peer = Peer(stream)
            await peer.handshake()
            resp = base64.b64encode(message.encode()).decode()
            answer = await peer.ask(f"AUTH\t1\tOAUTHBEARER\tservice=xmpp\tdomain=xmpp.test\tsecured\tresp={resp}")
            return (await peer.ask("CONT\t1\tAQ==") if answer.startswith("CONT") else answer).partition("\tlogin=")[0]

    async def plain(self, token: str) -> str:
        resp = base64.b64encode(f"\0alice\0{token}".encode()).decode()
        async with await self.served.connect("sasl") as stream:
            peer = Peer(stream)
            await peer.handshake()
            answer = await peer.ask(f"AUTH\t1\tPLAIN\tservice=xmpp\tdomain=xmpp.test\tsecured\tresp={resp}")
            return answer.partition("\tlogin=")[0]

    async def reason(self) -> str:
        """Return the reason of the last decision."""
        return (await self.served.decisions())[-1].reason


@asynccontextmanager
async def site_of(folder: Path, provider: OpenIdProvider, certificates: Certificates, keys: str) -> AsyncGenerator[Site]:
    write_secret(folder / "client.secret", SECRET)
    keys = keys.format(issuer=provider.issuer, folder=folder)
    text = DAEMON.format(folder=folder, issuer=provider.issuer, ca=certificates.ca, keys=keys)
    async with serve_here(folder, text) as served:
        yield Site(served)


async def make(provider: OpenIdProvider, kind: str, user: str = "alice") -> str:
    return await trio.to_thread.run_sync(provider.token, kind, user)


async def test_jwt_access_tokens_by_published_keys(tmp: Path, provider: OpenIdProvider, certificates: Certificates) -> None:
    async with site_of(tmp, provider, certificates, BY_JWKS) as site:
        token = await make(provider, "jwt")
        assert await site.bearer(token) == await site.bearer(token, "alice") == await site.plain(token) == OK
        assert (await site.bearer(token, "bob")).startswith("FAIL\t1")
        assert await site.reason() == "wrong-token"
        head, body, signature = token.split(".")
        assert (await site.bearer(f"{head}.{body}.{signature[::-1]}")).startswith("FAIL\t1")
        assert await site.reason() == "bad-token"
        for kind in ("opaque", "refresh"):  # nobody here knows such tokens
            assert (await site.bearer(await make(provider, kind))).startswith("FAIL\t1")
            assert await site.reason() == "no-user"


async def test_an_id_token_is_no_access_token(tmp: Path, provider: OpenIdProvider, certificates: Certificates) -> None:
    async with site_of(tmp, provider, certificates, BY_JWKS.replace(RESOURCE, CLIENT)) as site:
        assert (await site.bearer(await make(provider, "id"))).startswith("FAIL\t1")
        assert await site.reason() == "wrong-token"


async def test_new_keys_of_the_provider(
    tmp: Path, provider: OpenIdProvider, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site_of(tmp, provider, certificates, BY_JWKS) as site:
        before = await make(provider, "jwt")
        assert await site.bearer(before) == OK
        await trio.to_thread.run_sync(provider.rotate, "second")
        after = await make(provider, "jwt")
        assert (key_id(before) != key_id(after), key_id(after)) == (True, "second")
        assert (await site.bearer(after)).startswith("FAIL\t1")  # a minute has not passed
        assert await site.reason() == "unknown-key"
        assert await site.bearer(before) == OK
        monkeypatch.setattr(published, "PAUSE", 0.0)
    (tmp / "2").mkdir()
    async with site_of(tmp / "2", provider, certificates, BY_JWKS) as site:
        assert await site.bearer(after) == OK
        await trio.to_thread.run_sync(provider.rotate, "third")
        assert await site.bearer(await make(provider, "jwt")) == OK
        assert (await site.bearer(after)).startswith("FAIL\t1")  # the provider has withdrawn its key


async def test_opaque_tokens_by_introspection(tmp: Path, provider: OpenIdProvider, certificates: Certificates) -> None:
    async with site_of(tmp, provider, certificates, BY_INTROSPECTION) as site:
        token = await make(provider, "opaque")
        assert await site.bearer(token) == await site.bearer(token, "alice") == OK
        for kind, reason in (("refresh", "wrong-token"), ("jwt", "bad-token"), ("id", "bad-token")):
            assert (await site.bearer(await make(provider, kind))).startswith("FAIL\t1")
            assert await site.reason() == reason
        assert (await site.bearer(token[::-1])).startswith("FAIL\t1")
        assert await site.reason() == "bad-token"
        assert (await site.bearer(token, "bob")).startswith("FAIL\t1")
        assert await site.reason() == "wrong-token"
        assert (await site.plain(token)).startswith("FAIL\t1")  # a password without a mark is not shown to the provider
        assert await site.reason() == "no-user"
        write_secret(tmp / "client.secret", "another")
    async with site_of(tmp, provider, certificates, BY_INTROSPECTION + 'prefix = "x"\n') as site:
        assert await site.bearer(token) == OK


async def test_opaque_tokens_by_userinfo(tmp: Path, provider: OpenIdProvider, certificates: Certificates) -> None:
    async with site_of(tmp, provider, certificates, BY_USERINFO) as site:
        assert await site.bearer(await make(provider, "opaque")) == OK
        assert (await site.bearer(await make(provider, "refresh"))).startswith("FAIL\t1")
        assert await site.reason() == "bad-token"


async def test_a_client_that_the_provider_refuses_is_an_outage(
    tmp: Path, provider: OpenIdProvider, certificates: Certificates
) -> None:
    keys = BY_INTROSPECTION.replace(f'client_id = "{CLIENT}"', 'client_id = "stranger"')
    async with site_of(tmp, provider, certificates, keys) as site:
        assert "code=temp_fail" in await site.bearer(await make(provider, "opaque"))
        assert await site.reason() == "backend-down"
