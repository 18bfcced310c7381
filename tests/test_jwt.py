"""Backend `jwt`: whose tokens are taken by which key, and everything that must not be."""

import hmac
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import extauth_jwt
import jwt
import pytest
import trio
from extauth_jwt import Config
from extauth_jwt.keys import BadKey, Keyset, make, of_secret, read_file, usable
from hypothesis import given
from hypothesis import strategies as st

from extauth.authority import Authority
from extauth.backend import BackendModule
from extauth.changes import Member
from extauth.errors import ConfigError
from extauth.journal import Journal
from extauth.layers.seen import Seen
from extauth.metrics import Metrics
from extauth.model import Accept, CheckPassword, CheckToken, Identity, Reason, Reject, Secret
from extauth.soon import settle
from extauth.tokens import jose
from extauth.tokens.jose import Naming
from tests import jwts
from tests.contract import STRANGERS
from tests.fakes import FakeBackend
from tests.jwts import (
    ALICE,
    AUDIENCE,
    BOB,
    ISSUER,
    NOBODY,
    SECRET,
    START,
    Clock,
    Judge,
    claims,
    judging,
    jwk,
    part,
    sign,
    write_secret,
)
from tests.sasl import VECTORS

MODULE = cast("BackendModule", extauth_jwt)
KINDS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
    "EdDSA": "Ed25519",
}


def config(folder: Path, **keys: Any) -> Config:  # noqa: ANN401
    """Return a configuration with the secret, unless keys are given."""
    usual: dict[str, Any] = {"issuer": ISSUER, "audience": (AUDIENCE,)}
    if not keys.keys() & {"secret_files", "key_files", "jwks_url"}:
        usual["secret_files"] = (write_secret(folder / "secret"),)
    return Config(**{**usual, **keys})


def key_file(folder: Path, content: bytes | object, mode: int = 0o600) -> str:
    path = folder / "keys"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    path.chmod(mode)
    return str(path)


@pytest.fixture
async def judge(tmp: Path) -> AsyncIterator[Judge]:
    """Give a backend with the shared secret."""
    async with judging(MODULE, config(tmp), tmp) as judge:
        yield judge


# Good tokens


@pytest.mark.parametrize("algorithm", KINDS)
async def test_each_algorithm_by_its_key(tmp: Path, algorithm: str) -> None:
    kind = KINDS[algorithm]
    for content in (jwts.public_pem(kind), jwk(kind), {"keys": [jwk(kind, kid="a", alg=algorithm)]}):
        async with judging(MODULE, config(tmp, key_files=(key_file(tmp, content),)), tmp) as judge:
            text = sign(claims(), jwts.private_key(kind), algorithm)
            assert await judge.token(text) == ALICE
            other = sign(claims(), jwts.private_key(f"{kind} 2"), algorithm)
            assert await judge.token(other) is Reason.BAD_TOKEN


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_secrets_verify_what_they_are_configured_for(tmp: Path, algorithm: str) -> None:
    text = sign(claims(), algorithm=algorithm)
    async with judging(MODULE, config(tmp, algorithms=(algorithm,)), tmp) as judge:
        assert await judge.token(text) == ALICE
        assert await judge.token(sign(claims(), SECRET[::-1], algorithm)) is Reason.BAD_TOKEN
    async with judging(MODULE, config(tmp), tmp) as judge:
        assert await judge.token(text) == (ALICE if algorithm == "HS256" else Reason.BAD_TOKEN)


async def test_a_token_is_good_as_a_password_and_with_or_without_a_name(judge: Judge) -> None:
    text = sign(claims())
    assert await judge.token(text, NOBODY) == await judge.token(text, ALICE) == await judge.password(text) == ALICE
    assert await judge.token(text, BOB) is await judge.password(text, BOB) is Reason.WRONG_TOKEN


async def test_what_it_tells_of_a_login(judge: Judge) -> None:
    answer = await judge.ask(CheckToken(NOBODY, jwts.BEARER, Secret(sign(claims()))))
    assert answer == Accept(ALICE, {"login": "jwt", "expires": str(START + 600)})


async def test_the_vectors(tmp: Path) -> None:
    vectors = VECTORS["jwt"]
    alice = Identity("alice", "example.org")
    keys = (key_file(tmp, vectors["jwks"]),)
    found = config(tmp, issuer="https://idp.example.org", audience=("xmpp.example.org",), key_files=keys, user="{jid}")
    async with judging(MODULE, found, tmp, Clock(1_760_000_010)) as judge:
        for name in ("RS256", "ES256", "EdDSA"):
            assert await judge.token(vectors[name]["token"], alice) == alice
        assert await judge.token(vectors["must_reject"]["alg_none"], alice) is Reason.BAD_TOKEN
    style = vectors["HS256_ejabberd_style"]
    found = Config(preset="ejabberd", secret_files=(write_secret(tmp / "k", style["key_utf8"]),))
    async with judging(MODULE, found, tmp) as judge:
        assert await judge.password(style["token"], alice) == alice
        assert await judge.password(style["token"]) is Reason.WRONG_TOKEN
    rfc = vectors["HS256_rfc7519_3_1"]
    path = key_file(tmp, {"kty": "oct", "k": rfc["key_b64url"]})
    found = Config(preset="ejabberd", issuer="joe", key_files=(path,), user="{iss}")
    async with judging(MODULE, found, tmp, Clock(1300819379)) as judge:
        assert await judge.token(rfc["token"]) == Identity("joe", "example.com")
        judge.clock.time += 1
        assert await judge.token(rfc["token"]) is Reason.EXPIRED_TOKEN


async def test_talkjs(tmp: Path) -> None:
    vector = VECTORS["talkjs"]["jwt_computed"]
    secret = (write_secret(tmp / "talkjs", vector["secret"]),)
    user = Identity("12345", "example.com")
    async with judging(MODULE, Config(preset="talkjs", issuer="APPID", secret_files=secret), tmp) as judge:
        assert await judge.token(vector["token"]) == await judge.password(vector["token"], user) == user
        assert await judge.token(VECTORS["talkjs"]["doc_sample_jwt"]) is Reason.FOREIGN_TOKEN
        known = {"iss": "APPID", "exp": START + 60, "tokenType": "user"}

        async def of(**changes: object) -> object:
            return await judge.token(sign({**known, **changes}, vector["secret"].ljust(32, "\0")))

        assert await of(sub=12345) == user
        assert await of(sub="Dennis Vargas@home") == Identity(r"dennis\20vargas\40home", "example.com")
        assert await of(sub="dennis vargas@home") is Reason.NAME_TAKEN  # another id that prepares to the same name
        assert await of(sub="alice", tokenType="app") is Reason.WRONG_TOKEN
        assert await of(sub="alice", exp=None) is Reason.BAD_TOKEN
        assert await of(sub=" alice") is Reason.BAD_NAME


# Bad tokens


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://id.example.org/"}, Reason.FOREIGN_TOKEN),
        ({"iss": None}, Reason.FOREIGN_TOKEN),
        ({"iss": [ISSUER]}, Reason.FOREIGN_TOKEN),
        ({"aud": None}, Reason.WRONG_AUDIENCE),
        ({"aud": "other"}, Reason.WRONG_AUDIENCE),
        ({"aud": []}, Reason.WRONG_AUDIENCE),
        ({"aud": ["other", AUDIENCE + "x"]}, Reason.WRONG_AUDIENCE),
        ({"aud": {AUDIENCE: 1}}, Reason.WRONG_AUDIENCE),
        ({"aud": ["other", AUDIENCE]}, None),
        ({"exp": None}, Reason.BAD_TOKEN),
        ({"exp": str(START + 60)}, Reason.BAD_TOKEN),
        ({"exp": True}, Reason.BAD_TOKEN),
        ({"exp": 10**400}, Reason.BAD_TOKEN),
        ({"exp": float("inf")}, Reason.BAD_TOKEN),
        ({"exp": float("nan")}, Reason.BAD_TOKEN),
        ({"exp": START}, Reason.EXPIRED_TOKEN),
        ({"exp": START + 1}, None),
        ({"exp": 2**33}, None),  # beyond 2038 and 32 bits
        ({"exp": -1}, Reason.EXPIRED_TOKEN),
        ({"nbf": START + 60}, None),
        ({"nbf": START + 61}, Reason.WRONG_TOKEN),
        ({"nbf": "now"}, Reason.BAD_TOKEN),
        ({"iat": START + 60}, None),
        ({"iat": START + 61}, Reason.WRONG_TOKEN),
        ({"iat": []}, Reason.BAD_TOKEN),
        ({"iat": START - 86_400}, None),
        ({"iat": START - 86_401}, Reason.EXPIRED_TOKEN),
        ({"iat": None, "exp": START + 86_400}, None),
        ({"iat": None, "exp": START + 86_401}, Reason.EXPIRED_TOKEN),
        ({"nonce": "n"}, Reason.WRONG_TOKEN),  # an ID token
        ({"at_hash": "h"}, Reason.WRONG_TOKEN),
        ({"nonce": "n", "typ": "Bearer"}, None),
        ({"typ": "ID"}, Reason.WRONG_TOKEN),
        ({"typ": "Refresh"}, Reason.WRONG_TOKEN),
        ({"token_use": "id"}, Reason.WRONG_TOKEN),
        ({"token_type": "refresh"}, Reason.WRONG_TOKEN),
        ({"token_type": "access"}, None),
        ({"cnf": {"jkt": "k"}}, Reason.WRONG_TOKEN),
        ({"events": {}}, Reason.WRONG_TOKEN),
        ({"sub": None}, Reason.BAD_NAME),
        ({"sub": ""}, Reason.BAD_NAME),
        ({"sub": "a b"}, Reason.BAD_NAME),
        ({"sub": ["alice"]}, Reason.BAD_NAME),
        ({"sub": {"x": "alice"}}, Reason.BAD_NAME),
        ({"sub": True}, Reason.BAD_NAME),
        ({"sub": "alice@other.example"}, Reason.WRONG_TOKEN),
        ({"sub": "alice@example.com"}, None),
        ({"sub": "alice@example.com/phone"}, None),
        ({"sub": "ALICE"}, None),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_claims(judge: Judge, changes: dict[str, Any], reason: Reason | None) -> None:
    text = sign(claims(**changes)) if "iss" not in changes or isinstance(changes["iss"], str | None) else _unchecked(changes)
    expected = ALICE if reason is None else reason
    assert await judge.token(text, NOBODY) == expected
    assert await judge.password(text) == expected


def _unchecked(changes: dict[str, Any]) -> str:
    """Sign claims that PyJWT would not."""
    return jwt.PyJWS().encode(json.dumps(claims(**changes)).encode(), SECRET, "HS256")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"crit": ["exp"], "exp": 1}, Reason.BAD_TOKEN),
        ({"crit": []}, Reason.BAD_TOKEN),
        ({"crit": None}, Reason.BAD_TOKEN),
        ({"typ": "at+jwt"}, None),
        ({"typ": "application/AT+JWT"}, None),
        ({"typ": None}, None),
        ({"typ": "logout+jwt"}, Reason.WRONG_TOKEN),
        ({"typ": "dpop+jwt"}, Reason.WRONG_TOKEN),
        ({"typ": "secevent+jwt"}, Reason.WRONG_TOKEN),
        ({"kid": "anything"}, None),  # the secret has no id
    ],
    ids=str,
)
async def test_headers(judge: Judge, header: dict[str, Any], reason: Reason | None) -> None:
    assert await judge.token(sign(claims(), header=header)) == (ALICE if reason is None else reason)


async def test_an_extension_that_the_library_knows_is_refused_as_well(judge: Judge) -> None:
    for header, said in (({"crit": ["b64"], "b64": True}, Reason.BAD_TOKEN), ({"b64": True}, ALICE)):
        signed = f"{part({'alg': 'HS256', **header})}.{part(claims())}"
        text = f"{signed}.{part(hmac.digest(SECRET.encode(), signed.encode(), 'sha256'))}"
        assert await judge.token(text) == said


async def test_a_typ_can_be_asked_for(tmp: Path) -> None:
    async with judging(MODULE, config(tmp, typ=("at+jwt",)), tmp) as judge:
        assert await judge.token(sign(claims(), header={"typ": "at+jwt"})) == ALICE
        assert await judge.token(sign(claims())) is Reason.WRONG_TOKEN
        assert await judge.token(sign(claims(), header={"typ": None})) is Reason.WRONG_TOKEN


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "NONE", "", "HS257", "RS256", "hs256", "__class__", "HS256 "])
async def test_no_algorithm_by_the_header_alone(judge: Judge, alg: str) -> None:
    signature = sign(claims()).rpartition(".")[2]
    for end in ("", signature):
        assert await judge.token(f"{part({'alg': alg})}.{part(claims())}.{end}") is Reason.BAD_TOKEN


async def test_a_signature_is_over_two_parts(judge: Judge) -> None:
    """What is signed is read by the library and by us: it must not be two things."""
    signed = f"{part({'alg': 'HS256'})}.{part(claims())}.{part(b'{}')}"
    text = f"{signed}.{part(hmac.digest(SECRET.encode(), signed.encode(), 'sha256'))}"
    assert await judge.token(text) is Reason.BAD_TOKEN


async def test_a_public_key_is_no_secret(tmp: Path) -> None:
    pem = jwts.public_pem("RSA")
    async with judging(MODULE, config(tmp, key_files=(key_file(tmp, pem),)), tmp) as judge:
        assert await judge.token(sign(claims(), jwts.private_key("RSA"), "RS256")) == ALICE
        for secret in (pem, pem.strip(), pem.decode().strip().encode() + b"\n\n"):
            signed = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims())}"
            text = f"{signed}.{part(hmac.digest(secret, signed.encode(), 'sha256'))}"
            assert await judge.token(text) is Reason.BAD_TOKEN
    with pytest.raises(ConfigError, match="a PEM is no secret"):
        async with judging(MODULE, config(tmp, secret_files=(write_secret(tmp / "pem", pem),)), tmp):
            pass


async def test_a_key_stays_with_its_algorithm(tmp: Path) -> None:
    """Also where keys of other types have the same id."""
    keys = {"keys": [jwk("RSA", kid="k", alg="RS256"), jwk("P-256", kid="k"), {**of_secret(SECRET.encode()), "kid": "k"}]}
    async with judging(MODULE, config(tmp, key_files=(key_file(tmp, keys),)), tmp) as judge:
        rsa = jwts.private_key("RSA")
        assert await judge.token(sign(claims(), rsa, "RS256", {"kid": "k"})) == ALICE
        assert await judge.token(sign(claims(), jwts.private_key("P-256"), "ES256", {"kid": "k"})) == ALICE
        assert await judge.token(sign(claims(), header={"kid": "k"})) == ALICE
        for algorithm in ("RS384", "PS256"):
            assert await judge.token(sign(claims(), rsa, algorithm, {"kid": "k"})) is Reason.BAD_TOKEN
        # A header that says one thing over a signature that is another.
        head, body, signature = sign(claims(), rsa, "PS256", {"kid": "k"}).split(".")
        assert await judge.token(f"{part({'alg': 'RS256', 'kid': 'k'})}.{body}.{signature}") is Reason.BAD_TOKEN
        assert head
    narrowed = config(tmp, key_files=(key_file(tmp, jwk("RSA")),), algorithms=("PS256",))
    async with judging(MODULE, narrowed, tmp) as judge:
        assert await judge.token(sign(claims(), rsa, "PS256")) == ALICE
        assert await judge.token(sign(claims(), rsa, "RS256")) is Reason.BAD_TOKEN


async def test_headers_bring_no_keys_and_open_no_socket(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    watching = [True]

    def watch(event: str, _: object) -> None:
        if watching and event.startswith("socket."):
            opened.append(event)

    sys.addaudithook(watch)
    url = "https://attacker.example/keys"
    thief = jwts.private_key("RSA 2")
    chain = [part(b"certificate")]
    headers: list[dict[str, Any]] = [
        {"jwk": jwk("RSA 2")},
        {"jku": url},
        {"x5u": url},
        {"x5c": chain},
        {"jku": url, "kid": "a", "jwk": jwk("RSA 2")},
    ]
    async with judging(MODULE, config(tmp, key_files=(key_file(tmp, jwk("RSA", kid="a")),)), tmp) as judge:
        for header in headers:
            opened.clear()
            assert await judge.token(sign(claims(), thief, "RS256", header)) is Reason.BAD_TOKEN
            assert opened == []
            assert await judge.token(sign(claims(), jwts.private_key("RSA"), "RS256", header)) == ALICE
    watching.clear()


async def test_a_key_id_is_never_a_path(tmp: Path) -> None:
    opened: list[object] = []
    watching = [True]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open":
            opened.append(arguments[0])

    sys.addaudithook(watch)
    async with judging(MODULE, config(tmp, key_files=(key_file(tmp, jwk("RSA", kid="a")),)), tmp) as judge:
        for kid in (
            "../../x",
            "a/b",
            "/etc/passwd",
            "a\0b",
            "k" * 4096,
            "ключ",
            "%2e%2e/",
            "a\n",
            "' or 1=1 --",
            "{0.__class__}",
        ):
            text = sign(claims(), header={"kid": kid})
            opened.clear()
            assert await judge.token(text) is Reason.UNKNOWN_KEY
            assert opened == []
        for no_text in (1, None, [1], {"a": 1}):
            head = part({"alg": "RS256", "kid": no_text})
            assert await judge.token(f"{head}.{part(claims())}.{part(b's')}") is Reason.BAD_TOKEN
    watching.clear()


async def test_what_is_no_jwt_is_left_to_others(judge: Judge) -> None:
    for text in (
        "correct horse",
        "a.b.c",
        "....",
        "eyJ",
        f"{part([1])}.x.y",
        f"{part({'a': 1})}.x.y",
        f"{part({'alg': 1})}.x.y",
        "",
    ):
        assert await judge.password(text) is None
        assert await judge.token(text) is None


async def test_what_looks_like_a_jwt_is_settled_here(judge: Judge) -> None:
    head = part({"alg": "HS256"})
    encrypted = f"{part({'alg': 'dir', 'enc': 'A128GCM'})}..{part(b'iv')}.{part(b'text')}.{part(b'tag')}"
    for text in (
        f"{head}..",
        f"{head}.x.y",
        f"{head}.{part([1])}.x",
        f"{head}.{part(claims())}.",
        encrypted,
        sign(claims()) + "A",
    ):
        assert await judge.password(text) is Reason.BAD_TOKEN
    assert await judge.password(f"{head}.{part({'iss': ISSUER, 'x': 'y' * 20_000})}.x") is Reason.BAD_TOKEN


@given(
    header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk"]), st.none() | st.text() | st.integers()),
    body=st.dictionaries(st.sampled_from(["iss", "aud", "exp", "sub"]), st.none() | st.text() | st.integers() | st.floats()),
    end=st.binary(max_size=40).map(part) | st.text(max_size=10),
    raw=st.text(max_size=200) | st.binary(max_size=60).map(part),
)
def test_garbage_is_refused(header: dict[str, Any], body: dict[str, Any], end: str, raw: str) -> None:
    keys = Keyset((make(of_secret(SECRET.encode())), make(jwk("RSA"))))
    for text in (f"{part(header)}.{part({**claims(), **body})}.{end}", f"{part({'alg': 'HS256', **header})}.{raw}.{end}", raw):
        found = jose.header(text)
        if found is not None:
            jose.payload(text)
            assert not keys.verifies(text, str(found.get("kid", "")), found["alg"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_garbage_in_claims_is_refused(value: Any) -> None:  # noqa: ANN401
    rules = jose.Rules(ISSUER, (AUDIENCE,), ("scope=xmpp",), 60, 600)
    for name in ("iss", "aud", "exp", "nbf", "iat", "scope", "typ"):
        rules.judge({**claims(scope="xmpp"), name: value}, START)
    assert rules.judge({**claims(scope="xmpp"), "iss": value}, START) is Reason.FOREIGN_TOKEN or value == ISSUER
    found = Naming("{sub}", escape=True).find({"sub": value}, NOBODY)
    assert isinstance(found, Reason) or found.domain == "example.com"


# Names


@pytest.mark.parametrize(
    ("template", "given", "user"),
    [
        ("{given}.{family}", {"given": "Al", "family": "Ice"}, "al.ice"),
        ("{realm.name}", {"realm": {"name": "alice"}}, "alice"),
        ("{https://x.example/name}", {"https://x.example/name": "alice"}, "alice"),
        ("u-{id}", {"id": 7}, "u-7"),
        ("{sub}@example.com", {"sub": "alice"}, "alice"),
        ("{a.__class__}", {"a": "x"}, None),
        ("{sub}", {"sub": "{id}"}, "{id}"),
        ("{sub}", {"sub": "%{env:HOME}"}, None),
        ("{sub}", {"sub": "$(id)"}, "$(id)"),
        ("{sub}@example.com", {"sub": "admin@other.example"}, None),
        ("{sub}@example.com", {"sub": "admin@example.com/"}, "admin"),
    ],
)
def test_templates_put_in_text_and_run_nothing(template: str, given: dict[str, Any], user: str | None) -> None:
    found = Naming(template, escape=False).find(given, NOBODY)
    assert found == (Identity(user, "example.com") if user else Reason.BAD_NAME)


async def test_a_name_belongs_to_one_subject_of_one_issuer(tmp: Path) -> None:
    def of(sub: str, issuer: str = ISSUER) -> str:
        return sign(claims(sub=sub, iss=issuer, preferred_username="alice"))

    async with judging(MODULE, config(tmp, user="{preferred_username}"), tmp) as judge:
        assert await judge.token(of("1")) == ALICE
        assert await judge.token(of("2")) is Reason.NAME_TAKEN
        assert await judge.token(of("1")) == ALICE
    other = "https://other.example.org"
    async with judging(MODULE, config(tmp, user="{preferred_username}", issuer=other), tmp) as judge:
        assert await judge.token(of("1", other)) is Reason.NAME_TAKEN
        assert await Seen(judge.store, judge.clock).forget(ALICE, ["app"])
        assert not await Seen(judge.store, judge.clock).forget(ALICE, ["app"])
        assert await judge.token(of("1", other)) == ALICE


async def test_strangers_stay_outside(judge: Judge) -> None:
    for stranger in STRANGERS:
        if stranger.user != "alice":
            assert await judge.password(sign(claims()), stranger) is Reason.WRONG_TOKEN
    assert judge.backend.handles == {CheckToken, CheckPassword}


async def test_of_two_who_want_a_name_one_gets_it(tmp: Path) -> None:
    """Also where both come before the store knows either."""
    said: list[object] = []
    async with judging(MODULE, config(tmp, user="{name}"), tmp) as judge, trio.open_nursery() as nursery:

        async def come(sub: str) -> None:
            said.append(await judge.token(sign(claims(sub=sub, name="alice"))))

        for sub in ("1", "2", "1", "2"):
            nursery.start_soon(come, sub)
    assert sorted(map(str, said)) == [str(ALICE)] * 2 + ["name-taken"] * 2


async def test_claims_can_be_asked_for(tmp: Path) -> None:
    async with judging(MODULE, config(tmp, require=("scope=xmpp", "groups=staff")), tmp) as judge:
        assert await judge.token(sign(claims(scope="openid xmpp", groups=["staff", "all"]))) == ALICE
        assert await judge.token(sign(claims(scope="openid xmppx", groups=["staff"]))) is Reason.WRONG_TOKEN
        assert await judge.token(sign(claims(scope="xmpp", groups="staffs"))) is Reason.WRONG_TOKEN
        assert await judge.token(sign(claims(scope="xmpp"))) is Reason.WRONG_TOKEN


# In a chain


def _nothing_revoked(_identity: Identity, _cause: str) -> None:
    pass


async def _tell_nobody(_: Identity) -> None:
    """There are no caches."""


async def test_a_token_never_reaches_a_directory(tmp: Path) -> None:
    """Also where another backend for tokens has to look at it, and where a refusal lets the next one speak."""
    directory = FakeBackend({CheckPassword: lambda request: Accept(request.identity)})
    first, second = config(tmp), config(tmp, issuer="https://other.example.org")
    async with judging(MODULE, first, tmp) as one, judging(MODULE, second, tmp / "2") as two:
        for on_reject in ("stop", "next"):
            members = [
                Member("one", one.backend, on_reject),
                Member("two", two.backend, on_reject),
                Member("people", directory),
            ]
            authority = Authority(
                members,
                on_outage="stop",
                journal=Journal(None),
                metrics=Metrics(),
                throttle=None,
                revoked=_nothing_revoked,
                changed=_tell_nobody,
            )

            async def login(text: str, authority: Authority = authority) -> object:
                return await settle(authority.ask(CheckPassword(ALICE, jwts.PLAIN, Secret(text))))

            assert isinstance(await login(sign(claims())), Accept)
            assert isinstance(await login(sign(claims(iss="https://other.example.org"))), Accept)
            assert await login(sign(claims(iss="https://third.example.org"))) == Reject(Reason.FOREIGN_TOKEN)
            assert await login(sign(claims(exp=1))) == Reject(Reason.EXPIRED_TOKEN)
            assert directory.asked == []
            assert isinstance(await login("a password"), Accept)
            assert len(directory.asked) == 1
            directory.asked.clear()


# Configuration


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"audience": ()}, "audience: missing"),
        ({"issuer": ""}, "issuer: missing"),
        ({"preset": "talkjs", "issuer": ""}, "issuer: missing"),
        ({"secret_files": ()}, "keys come from files, or from the issuer"),
        ({"jwks_url": "https://id.example.org/keys"}, "keys come from files"),
        ({"secret_files": (), "jwks_url": "http://id.example.org/keys"}, "jwks_url: http://"),
        ({"secret_files": (), "preset": "oidc", "issuer": "id"}, "issuer: must be of the form"),
        ({"algorithms": ("none",)}, "algorithms: 'none' is none of HS256"),
        ({"skew": 61}, "skew: must be 0 to 60"),
        ({"max_age": -1}, "max_age"),
        ({"user": "alice"}, "user: names claims in braces"),
        ({"user": "{}"}, "user:"),
        ({"user": "{a"}, "user:"),
        ({"require": ("scope",)}, "require: 'scope'"),
        ({"jwks_stale": 10}, "jwks_stale"),
    ],
    ids=str,
)
def test_what_a_configuration_may_not_say(keys: dict[str, Any], problem: str) -> None:
    usual: dict[str, Any] = {"issuer": ISSUER, "audience": (AUDIENCE,), "secret_files": ("/s",)}
    with pytest.raises(ValueError, match=problem):
        Config(**{**usual, **keys})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "neither PEM nor JSON"),
        (b"secret", "neither PEM nor JSON"),
        (b"[1]", "no JSON object"),
        (b'{"keys": 1}', "keys is no list"),
        (b'{"keys": []}', "no key"),
        (b'{"kty": "oct", "k": "c2hvcnQ"}', "a secret of less than 16 bytes"),
        (b'{"kty": "RSA", "n": "AQAB", "e": "AQAB", "d": "AQAB"}', "a private key"),
        (b'{"kty": "RSA", "n": 1, "e": "AQAB"}', "makes no sense"),
        (b'{"kty": "EC", "crv": "secp256k1", "x": "", "y": ""}', "no algorithm"),
        (b'{"kty": "RSA", "use": "enc"}', "not a key for signatures"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key or certificate"),
    ],
    ids=str,
)
async def test_files_that_hold_no_key(tmp: Path, content: bytes, problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"backend\.app\.key_files: .*{problem}"):
        async with judging(MODULE, config(tmp, key_files=(key_file(tmp, content),)), tmp):
            pass


async def test_secrets_are_not_for_everybody(tmp: Path) -> None:
    path = key_file(tmp, of_secret(SECRET.encode()), 0o644)
    with pytest.raises(ConfigError, match="others can read it"):
        async with judging(MODULE, config(tmp, key_files=(path,)), tmp):
            pass
    with pytest.raises(ConfigError, match="less than 16 bytes"):
        async with judging(MODULE, config(tmp, secret_files=(write_secret(tmp / "short", "short"),)), tmp):
            pass
    assert SECRET not in repr(make(of_secret(SECRET.encode())))


def test_published_keys_hold_no_secret() -> None:
    published = [{**of_secret(SECRET.encode()), "kid": "a"}, jwk("RSA", kid="b"), {"kty": "?"}, {"kty": "RSA"}]
    assert [key.kid for key in usable(published, ()).keys] == ["b"]
    with pytest.raises(BadKey, match="no key that can be used"):
        usable(published[:1], ())


def test_a_certificate_holds_a_key(certificates: Any) -> None:  # noqa: ANN401
    assert read_file(certificates.server_certificate.read_bytes())[0]["kty"] == "EC"
