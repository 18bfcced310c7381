"""Bearer tokens (OAUTHBEARER, X-OAUTH2, XOAUTH2, X-OAUTH) and FAST tokens (HT-*)."""

import base64
import hmac
import json
from typing import Any

import pytest
from msgspec.structs import replace

from extauth.model import CheckToken, FindHashedTokens, Identity, Proof, Reason, Reject
from extauth.sasl.exchange import Challenge, Failure, Success
from extauth.sasl.ht import BINDINGS as TYPES
from tests.sasl import BINDINGS, BOUND, DOMAIN, MECHANISMS, OPTIONS, STREAM, VECTORS, Client, People, is_malformed, is_refused

USER = Identity("user", DOMAIN)
TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
ERROR = Challenge(b'{"status":"invalid_token"}')
VECTOR = VECTORS["oauthbearer"]


def people() -> People:
    return People(tokens={TOKEN: "user", "tok": "alice"})


def bearer(rest: str = "", header: str = "n,,", auth: str = f"Bearer {TOKEN}") -> bytes:
    return f"{header}\x01{rest}auth={auth}\x01\x01".encode()


# OAUTHBEARER ------------------------------------------------------------------------------------------------------------------


def test_the_example_of_the_rfc() -> None:
    client = Client("OAUTHBEARER", people(), options=replace(OPTIONS, ports=frozenset({143})))
    assert client.begin(base64.b64decode(VECTOR["rfc7628_4_1"]["initial_b64"])) == Success(USER)
    (request,) = client.people.asked
    assert isinstance(request, CheckToken)
    assert (request.identity, request.token.reveal()) == (USER, TOKEN)


def test_the_refused_example_of_the_rfc() -> None:
    vector = VECTOR["rfc7628_4_3"]
    url = "https://example.com/.well-known/openid-configuration"
    options = replace(OPTIONS, scope="example_scope", openid_configuration=url)
    client = Client("OAUTHBEARER", people(), options=options)
    assert client.begin(base64.b64decode(vector["initial_b64"])) == Challenge(base64.b64decode(vector["error_challenge_b64"]))
    step = client.respond(base64.b64decode(vector["client_dummy_b64"]))
    assert is_refused(step, "not-authorized", Reason.BAD_PASSWORD)
    assert client.people.asked == []  # it was a question where tokens are to be had


@pytest.mark.parametrize(("key", "user"), [("with_node", "alice"), ("no_node", "alice")])
def test_what_strophe_sends(key: str, user: str) -> None:
    stream = replace(STREAM, domain="example.org")
    message = base64.b64decode(VECTOR["strophe"][key])
    assert Client("OAUTHBEARER", people(), stream=stream).begin(message) == Success(Identity(user, "example.org"))


@pytest.mark.parametrize(
    "message",
    [
        bearer(header="n,a=user@example.com,"),
        bearer(header="y,a=user,"),
        bearer("host=example.com\x01"),
        bearer("host=Xmpp.Example.COM.\x01port=5222\x01"),
        bearer("host=chat.example.net\x01"),
        bearer("mthd=POST\x01path=/\x01post=\x01qs=a=b\x01"),
        bearer(auth=f"bEARER   {TOKEN}"),
        bearer("unknown= ~\t\r\n\x01"),
    ],
)
def test_oauthbearer(message: bytes) -> None:
    options = replace(OPTIONS, hosts=frozenset({"chat.example.net"}))
    assert Client("OAUTHBEARER", people(), options=options).begin(message) == Success(USER)
    assert Client("OAUTHBEARER", people(), options=options).play(None, message) == Success(USER)


@pytest.mark.parametrize(
    ("authzid", "user"), [("a=b,c@example.com", "a=b,c"), ("a=2Cb", "a,b"), ("a=3D2Cb", "a=2cb"), ("a=2Cb=", "a=2cb=")]
)
def test_names_as_strophe_and_the_rfc_write_them(authzid: str, user: str) -> None:
    client = Client("OAUTHBEARER", People(tokens={TOKEN: user}))
    assert client.begin(bearer(header=f"n,a={authzid},")) == Success(Identity(user, DOMAIN))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x01",
        b"n,,",
        b"n,,\x01",
        b"n,,\x01\x01",
        b"n,,\x01auth=Bearer tok\x01",
        b"n,,\x01auth=Bearer tok",
        b"n,,auth=Bearer tok\x01\x01",
        b"n,\x01auth=Bearer tok\x01\x01",
        b",,\x01auth=Bearer tok\x01\x01",
        b"p=tls-exporter,,\x01auth=Bearer tok\x01\x01",
        b"n,a=,\x01auth=Bearer tok\x01\x01",
        b"n,user=someuser@example.com,\x01auth=Bearer tok\x01\x01",  # RFC 7628 section 4.4 is wrong
        b"n,,\x01host=example.com\x01\x01",
        b"n,,\x01auth=Bearer tok\x01auth=Bearer tok\x01\x01",
        b"n,,\x01host=example.com\x01host=example.com\x01auth=Bearer tok\x01\x01",
        b"n,,\x01auth=Bearer tok\x01port=x\x01\x01",
        b"n,,\x01auth=Bearer tok\x01port=\x01\x01",
        b"n,,\x01au1=x\x01auth=Bearer tok\x01\x01",
        b"n,,\x01=x\x01auth=Bearer tok\x01\x01",
        b"n,,\x01auth=Bearer \xc3\xa9\x01\x01",
        b"n,,\x01auth=Bearer \xff\x01\x01",
        b"n,,\x01auth=Bearer a\0b\x01\x01",
        b"n,,\x01auth=Bearer tok\x01\x01x",
    ],
)
def test_oauthbearer_malformed(message: bytes) -> None:
    client = Client("OAUTHBEARER", people())
    assert is_malformed(client.begin(message))
    assert client.people.asked == []


@pytest.mark.parametrize("auth", ["", "Bearer", "Bearer ", "Basic dXNlcg==", "Bearer a b", "Bearer =", "Bearertok"])
def test_no_token_is_told_by_json(auth: str) -> None:
    client = Client("OAUTHBEARER", people())
    assert client.begin(bearer(auth=auth)) == ERROR
    assert client.people.asked == []


@pytest.mark.parametrize("message", [b"\x01", b"", b"garbage\xff", bearer()])
def test_after_the_error_every_message_ends_it(message: bytes) -> None:
    client = Client("OAUTHBEARER", people())
    assert client.begin(bearer(auth="Bearer undefined")) == ERROR
    assert is_refused(client.respond(message), "not-authorized", Reason.BAD_PASSWORD)
    assert len(client.people.asked) == 1  # also Strophe's whole message again is not judged again


def test_a_client_may_give_up_after_the_error() -> None:
    client = Client("OAUTHBEARER", people())
    client.begin(bearer(auth="Bearer undefined"))
    assert is_refused(client.exchange.abort(), "aborted", Reason.ABORTED)


@pytest.mark.parametrize("rest", ["host=other.example\x01", "host=badexample.com\x01", "host=\x01", "port=143\x01"])
def test_a_message_for_another_server_is_refused(rest: str) -> None:
    client = Client("OAUTHBEARER", people(), options=replace(OPTIONS, ports=frozenset({5222})))
    assert is_refused(client.begin(bearer(rest)), "not-authorized", Reason.NOT_ALLOWED)
    assert client.people.asked == []


def test_a_token_of_somebody_else() -> None:
    client = Client("OAUTHBEARER", people())
    assert client.begin(bearer(header="n,a=alice,")) == ERROR
    assert is_refused(client.respond(b"\x01"), "not-authorized", Reason.BAD_PASSWORD)
    other = Client("OAUTHBEARER", people()).begin(bearer(header="n,a=user@other.example,"))
    assert is_refused(other, "not-authorized", Reason.UNKNOWN_DOMAIN)


# X-OAUTH2 and XOAUTH2 ---------------------------------------------------------------------------------------------------------


def test_x_oauth2_of_strophe() -> None:
    stream = replace(STREAM, domain="example.org")
    message = base64.b64decode(VECTORS["x_oauth2"]["strophe_b64"])
    assert message.hex() == VECTORS["x_oauth2"]["decoded_hex"]
    assert Client("X-OAUTH2", people(), stream=stream).begin(message) == Success(Identity("alice", "example.org"))


@pytest.mark.parametrize(
    "message", ["\0user\0{}", "\0\0{}", "user@example.com\0user\0{}", "user\0\0{}", "\0user@example.com\0{}"]
)
def test_x_oauth2(message: str) -> None:
    data = message.format(TOKEN).encode()
    assert Client("X-OAUTH2", people()).begin(data) == Success(USER)
    assert Client("X-OAUTH2", people()).play(None, data) == Success(USER)


def test_x_oauth2_wrong() -> None:
    for message, condition, reason in (
        (b"\0user\0other", "not-authorized", Reason.BAD_PASSWORD),
        (b"\0user\0tok", "not-authorized", Reason.BAD_PASSWORD),
        (b"alice\0user\0tok", "invalid-authzid", Reason.NOT_ALLOWED),
        (b"\0user@other.example\0tok", "not-authorized", Reason.UNKNOWN_DOMAIN),
    ):
        assert is_refused(Client("X-OAUTH2", people()).begin(message), condition, reason)


@pytest.mark.parametrize("message", [b"", b"tok", b"\0tok", b"\0user\0", b"\0user\0t\0k", b"\0user\0\xff", b"\0\xff\0tok"])
def test_x_oauth2_malformed(message: bytes) -> None:
    client = Client("X-OAUTH2", people())
    assert is_malformed(client.begin(message))
    assert client.people.asked == []


def test_xoauth2_of_mail() -> None:
    message = f"user=user@example.com\x01auth=Bearer {TOKEN}\x01\x01".encode()
    assert Client("XOAUTH2", people()).begin(message) == Success(USER)
    assert Client("XOAUTH2", people()).play(None, message) == Success(USER)
    client = Client("XOAUTH2", people())
    told = client.begin(b"user=user\x01auth=Bearer other\x01\x01")
    assert isinstance(told, Challenge)
    assert json.loads(told.data) == {"status": "401", "schemes": "bearer", "scope": ""}
    assert is_refused(client.respond(b""), "not-authorized", Reason.BAD_PASSWORD)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0user\0tok",
        b"user=\x01auth=Bearer tok\x01\x01",
        b"user=user\x01auth=Bearer \x01\x01",
        b"user=user\x01auth=Basic tok\x01\x01",
        b"user=user\x01auth=Bearer tok\x01",
        b"user=user\x01auth=Bearer tok\x01\x01\x01",
        b"user=user\x01auth=Bearer t\xc3\xa9\x01\x01",
        b"user=us\0er\x01auth=Bearer tok\x01\x01",
        b"user=\xff\x01auth=Bearer tok\x01\x01",
        b"auth=Bearer tok\x01user=user\x01\x01",
    ],
)
def test_xoauth2_malformed(message: bytes) -> None:
    client = Client("XOAUTH2", people())
    assert is_malformed(client.begin(message))
    assert client.people.asked == []


# X-OAUTH ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["mongooseim_x_oauth"]["vectors"], ids=lambda vector: vector["name"])
def test_tokens_of_mongooseim_reach_the_authority_whole(vector: dict[str, Any]) -> None:
    serialised = bytes.fromhex(vector["serialized_hex"])
    assert base64.b64decode(vector["token_b64"]) == serialised
    client = Client("X-OAUTH", People(tokens={serialised.decode(): "alice"}))
    assert client.begin(serialised) == Success(Identity("alice", DOMAIN))
    (request,) = client.people.asked
    assert request.identity == Identity("", DOMAIN)


def test_the_next_token_comes_with_the_success() -> None:
    success = Client("X-OAUTH", People(tokens={"refresh\0x": "alice"}, payload="access\0x")).play(None, b"refresh\0x")
    assert success == Success(Identity("alice", DOMAIN), b"access\0x")
    assert "access" not in repr(success)


def test_x_oauth_wrong() -> None:
    assert is_refused(Client("X-OAUTH").begin(b"access\0x"), "not-authorized", Reason.BAD_PASSWORD)
    assert is_malformed(Client("X-OAUTH").begin(b""))
    assert is_malformed(Client("X-OAUTH").begin(b"access\0\xff"))


# HT-* -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["ht"], ids=lambda vector: vector["mechanism"])
def test_the_vectors_of_ht(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["cb_data_hex"])
    stream = replace(STREAM, bindings={"tls-exporter": data}) if data else STREAM
    client = Client(vector["mechanism"], People(hashed={"user": ("other", vector["token"])}), stream=stream)
    success = client.begin(base64.b64decode(vector["initiator_b64"]))
    assert isinstance(success, Success)
    assert success == Success(USER, base64.b64decode(vector["responder_b64"]), {"from": "tokens", "role": "member"})
    find, proof = client.people.asked
    assert isinstance(find, FindHashedTokens)
    assert find.mechanism == vector["mechanism"]
    assert isinstance(proof, Proof)
    assert (proof.reason, proof.credential) == (Reason.OK, "slot1")


def ht(mechanism: str, token: str, data: bytes, name: bytes = b"user") -> bytes:
    digest = "sha" + mechanism.split("-")[2]
    return name + b"\0" + hmac.digest(token.encode(), b"Initiator" + data, digest)


@pytest.mark.parametrize("name", [name for name in MECHANISMS if name.startswith("HT-")])
def test_every_ht(name: str) -> None:
    users = People(hashed={"user": ("current", "new")})
    data = BINDINGS.get(TYPES[name.rsplit("-", 1)[1]], b"")
    for token in ("current", "new"):
        assert isinstance(Client(name, users, stream=BOUND).begin(ht(name, token, data)), Success)
    for message in (
        ht(name, "old", data),
        ht(name, "new", data + b"x"),
        ht(name, "new", data)[:-1],
        ht(name, "new", data) + b"\0",
        b"user\0",
    ):
        assert is_refused(Client(name, users, stream=BOUND).begin(message), "not-authorized", Reason.BAD_PASSWORD)
    step = Client(name, users, stream=BOUND).begin(ht(name, "new", data, b"nobody"))
    assert is_refused(step, "not-authorized", Reason.NO_USER)
    if data:
        step = Client(name, users).begin(ht(name, "new", data))
        assert is_refused(step, "invalid-mechanism", Reason.NOT_SUPPORTED)


@pytest.mark.parametrize("message", [b"", b"user", b"\0abc", b"us\xffer\0abc"])
def test_ht_malformed(message: bytes) -> None:
    client = Client("HT-SHA-256-NONE", People(hashed={"user": ("token",)}))
    assert is_malformed(client.begin(message))
    assert client.people.asked == []


def test_ht_refused() -> None:
    users = People(hashed={"user": ("token",)}, refusal=Reason.DISABLED)
    message = ht("HT-SHA-256-NONE", "token", b"")
    assert is_refused(Client("HT-SHA-256-NONE", users).begin(message), "account-disabled", Reason.DISABLED)
    wrong = ht("HT-SHA-256-NONE", "other", b"")
    assert is_refused(Client("HT-SHA-256-NONE", users).begin(wrong), "not-authorized", Reason.BAD_PASSWORD)
    limited = Client("HT-SHA-256-NONE", decide=lambda _: Reject(Reason.RATE_LIMITED))
    assert is_refused(limited.begin(message), "not-authorized", Reason.RATE_LIMITED)


def test_an_ht_proof_of_another_name_of_the_same_account() -> None:
    users = People(hashed={"user": ("token",)})
    step = Client("HT-SHA-256-NONE", users).begin(ht("HT-SHA-256-NONE", "token", b"", b"User@example.com"))
    assert isinstance(step, Success)
    step = Client("HT-SHA-256-NONE", users).begin(ht("HT-SHA-256-NONE", "token", b"", b"user@other.example"))
    assert isinstance(step, Failure)
