"""SCRAM: vectors, grammar, channel binding, candidates, decoys."""

import base64
import hashlib
import hmac
import re
from typing import Any, TypedDict, Unpack

import pytest
from msgspec.structs import replace

from extauth.model import Candidate, FindKeys, Identity, Keys, Origin, Proof, Reason, Reject, Request, Verdict
from extauth.passwords import scram as keys
from extauth.passwords.scram import Hash
from extauth.sasl import scram
from extauth.sasl.exchange import Challenge, Failure, Options, Success
from tests.sasl import BINDINGS, BOUND, DOMAIN, OPTIONS, STREAM, VECTORS, Client, People, is_malformed, is_refused

USER = Identity("user", DOMAIN)
FIRST = "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL"
NONCE = "fyko+d2lbbFgONRv9qkxdawL"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def fields(message: Challenge | Success | Failure) -> dict[str, str]:
    assert isinstance(message, Challenge), message
    return dict(field.split("=", 1) for field in message.data.decode().split(","))


class Way(TypedDict, total=False):
    """How a client answers. `header` is what it says of channel binding, if that is not the header of its first message."""

    password: str
    header: bytes
    extra: str
    family: Hash


def final(first: str, server_first: Challenge | Success | Failure, **way: Unpack[Way]) -> bytes:
    """Return a client's last message."""
    told = fields(server_first)
    assert isinstance(server_first, Challenge)
    family = way.get("family", Hash.SHA_256)
    start = first.index("n=", 2)
    header = way.get("header", first[:start].encode())
    without_proof = f"c={b64(header)},r={told['r']}{way.get('extra', '')}"
    message = f"{first[start:]},{server_first.data.decode()},{without_proof}".encode()
    password = way.get("password", "pencil")
    salted = keys.salted_password(family, password, base64.b64decode(told["s"]), int(told["i"]))
    client_key = hmac.digest(salted, b"Client Key", family.digest)
    signature = hmac.digest(hashlib.new(family.digest, client_key).digest(), message, family.digest)
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    return f"{without_proof},p={b64(proof)}".encode()


def log_in(first: str = FIRST, client: Client | None = None, **way: Unpack[Way]) -> Challenge | Success | Failure:
    client = client or Client("SCRAM-SHA-256")
    return client.respond(final(first, client.begin(first.encode()), **way))


def reasons(client: Client) -> list[Reason]:
    return [request.reason for request in client.people.asked if isinstance(request, Proof)]


# Vectors ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["scram"], ids=lambda vector: vector["hash"])
def test_the_vectors(vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    family = next(family for family in Hash if family.digest == vector["hash"])
    client_nonce = vector["client_first"].split("r=")[1]
    server_nonce = vector["server_first"].split(",")[0].removeprefix(f"r={client_nonce}")
    monkeypatch.setattr(scram, "new_nonce", lambda: server_nonce)
    stored = Candidate("password", base64.b64decode(vector["stored_key"]), base64.b64decode(vector["server_key"]))
    keys = Keys(USER, base64.b64decode(vector["salt_b64"]), vector["iterations"], (stored,))
    asked: list[Request] = []

    def decide(request: Request) -> Verdict:
        asked.append(request)
        return keys if isinstance(request, FindKeys) else People()(request)

    client = Client(f"SCRAM-{family.value}", decide=decide)
    assert client.begin(vector["client_first"].encode()) == Challenge(vector["server_first"].encode())
    success = client.respond(vector["client_final"].encode())
    assert success == Success(USER, vector["server_final"].encode(), {"role": "member"})
    request, proof = asked
    assert isinstance(request, FindKeys)
    assert (request.identity, request.hash) == (USER, family.value)
    assert isinstance(proof, Proof)
    assert (proof.identity, proof.reason, proof.credential) == (USER, Reason.OK, "password")


def test_cached_keys_of_strophe() -> None:
    cached = VECTORS["strophe_scram_keys_object"]
    people = People(salt=base64.b64decode(cached["salt"]))
    client = Client("SCRAM-SHA-512", people)
    told = client.begin(FIRST.encode())
    assert (fields(told)["s"], fields(told)["i"]) == (cached["salt"], str(cached["iter"]))
    assert isinstance(client.respond(final(FIRST, told, family=Hash.SHA_512)), Success)


# The course of it -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", Hash)
def test_right_and_wrong(family: Hash) -> None:
    client = Client(f"SCRAM-{family.value}")
    success = log_in(client=client, family=family)
    assert isinstance(success, Success)
    assert (success.identity, success.attributes) == (USER, {"from": "keys", "role": "member"})
    assert success.data is not None
    assert success.data.startswith(b"v=")
    assert len(base64.b64decode(success.data[2:])) == hashlib.new(family.digest).digest_size
    wrong = Client(f"SCRAM-{family.value}")
    assert is_refused(log_in(client=wrong, family=family, password="pen"), "not-authorized", Reason.BAD_PASSWORD)
    assert reasons(wrong) == [Reason.BAD_PASSWORD]


def test_without_an_initial_response() -> None:
    client = Client("SCRAM-SHA-256")
    assert client.begin() == Challenge(b"")
    assert isinstance(client.respond(final(FIRST, client.respond(FIRST.encode()))), Success)


def test_the_nonce_is_ours_too_and_never_the_same() -> None:
    seen = {fields(Client("SCRAM-SHA-256").begin(FIRST.encode()))["r"] for _ in range(20)}
    assert len(seen) == 20
    assert all(nonce.startswith(NONCE) and len(nonce) >= len(NONCE) + 24 for nonce in seen)


def test_any_candidate_will_do_and_is_named() -> None:
    client = Client("SCRAM-SHA-256")
    assert isinstance(log_in(client=client, password="an app password"), Success)
    proof = client.people.asked[-1]
    assert isinstance(proof, Proof)
    assert proof.credential == "app"


@pytest.mark.parametrize(
    ("name", "user"), [("us=2Cer", "us,er"), ("us=3Der", "us=er"), ("=3D2C", "=2c"), ("User@example.com", "user")]
)
def test_names_are_unescaped(name: str, user: str) -> None:
    client = Client("SCRAM-SHA-256", People({user: "pencil"}))
    success = log_in(f"n,,n={name},r=abc", client=client)
    assert isinstance(success, Success)
    assert success.identity.user == user


@pytest.mark.parametrize("first", ["n,,n=user,r=abc,x=future", "n,a=user@example.com,n=user,r=abc", "n,,n=user,r=!~+/,Z=a=b"])
def test_what_is_allowed_beside(first: str) -> None:
    assert isinstance(log_in(first, extra=",x=1,y=2"), Success)


@pytest.mark.parametrize(
    "first",
    [
        "",
        "n",
        "n,,",
        "n,,n=user",
        "n,,r=abc",
        "n,,r=abc,n=user",
        "n,n=user,r=abc",
        ",,n=user,r=abc",
        "x,,n=user,r=abc",
        "N,,n=user,r=abc",
        "n,,n=,r=abc",
        "n,,n=user,r=",
        "n,,n=us=er,r=abc",
        "n,,n=us=2cer,r=abc",
        "n,,n=us=,r=abc",
        "n,,n=a=b,c,r=abc",  # as Strophe.js sends a=b,c
        "n,,n=us\0er,r=abc",
        "n,,n=user,r=ab\0c",
        "n,,n=user,r=a b",
        "n,,n=user,r=\u00e9",
        "n,,n=user,r=abc,",
        "n,,n=user,r=abc,x",
        "n,,n=user,r=abc,x=",
        "n,,n=user,r=abc,1=a",
        "n,,n=user,r=abc\n",
        "n,a=,n=user,r=abc",
        "n,a=us=er,n=user,r=abc",
        "n,b=user,n=user,r=abc",
        "p,,n=user,r=abc",
        "p=,,n=user,r=abc",
        "p=tls exporter,,n=user,r=abc",
    ],
)
def test_first_message_malformed(first: str) -> None:
    client = Client("SCRAM-SHA-256")
    assert is_malformed(client.begin(first.encode()))
    assert client.people.asked == []


def test_first_message_in_another_encoding() -> None:
    assert is_malformed(Client("SCRAM-SHA-256").begin(b"n,,n=us\xe9r,r=abc"))
    assert is_malformed(Client("SCRAM-SHA-256").begin(b"n,,n=\xed\xa0\xbd\xed\xb8\x80,r=abc"))


def test_mandatory_extensions_are_refused() -> None:
    step = Client("SCRAM-SHA-256").begin(b"n,,m=x,n=user,r=abc")
    assert is_refused(step, "malformed-request", Reason.NOT_SUPPORTED)


def test_names_that_are_nobodys() -> None:
    assert is_refused(Client("SCRAM-SHA-256").begin(b"n,,n=us er,r=abc"), "not-authorized", Reason.BAD_NAME)
    assert is_refused(Client("SCRAM-SHA-256").begin(b"n,,n=user@b.example,r=abc"), "not-authorized", Reason.UNKNOWN_DOMAIN)
    step = Client("SCRAM-SHA-256").begin(b"n,a=admin@example.com,n=user,r=abc")
    assert is_refused(step, "invalid-authzid", Reason.NOT_ALLOWED)


@pytest.mark.parametrize(
    ("part", "other"),
    [
        (b".*", b""),
        (b"^c=", b""),
        (b"^c=biws,", b""),
        (b"^c=biws", b"c="),
        (b"^c=biws", b"c=biw"),
        (b"^c=biws", b"c=bi!s"),
        (b"^", b"m=1,"),
        (b",r=", b",r=x"),
        (b",r=fyko", b",r="),
        (b",p=", b"A,p="),
        (b",p=.*", b""),
        (b",p=.*", b",p="),
        (b",p=.*", b",p=abc"),
        (b",p=.*", b",p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB="),  # the last bits are no part of what it says
        (b"$", b",x=1"),
        (b"$", b"\n"),
        (b"$", b"\0"),
        (b"$", b"\xff"),
    ],
)
def test_final_message_malformed(part: bytes, other: bytes) -> None:
    client = Client("SCRAM-SHA-256")
    message = final(FIRST, client.begin(FIRST.encode()))
    changed = re.sub(part, other, message, count=1)
    assert changed != message
    assert is_malformed(client.respond(changed))


@pytest.mark.parametrize("proof", [b"AAAA", b"A" * 43 + b"=", b"A" * 88])
def test_any_other_proof_is_wrong(proof: bytes) -> None:
    client = Client("SCRAM-SHA-256")
    message = final(FIRST, client.begin(FIRST.encode()))
    step = client.respond(message.partition(b",p=")[0] + b",p=" + proof)
    assert is_refused(step, "not-authorized", Reason.BAD_PASSWORD)


def test_a_proof_is_good_once() -> None:
    client, other = Client("SCRAM-SHA-256"), Client("SCRAM-SHA-256")
    message = final(FIRST, client.begin(FIRST.encode()))
    other.begin(FIRST.encode())
    assert isinstance(client.respond(message), Success)
    assert is_refused(client.respond(message), "aborted", Reason.ABORTED)
    assert is_malformed(other.respond(message))  # its nonce is another one


# Who may not log in -----------------------------------------------------------------------------------------------------------


def test_disabled_is_told_to_those_who_know_the_password() -> None:
    client = Client("SCRAM-SHA-256", People(refusal=Reason.DISABLED))
    assert is_refused(log_in(client=client), "account-disabled", Reason.DISABLED)
    client = Client("SCRAM-SHA-256", People(refusal=Reason.DISABLED))
    assert is_refused(log_in(client=client, password="wrong"), "not-authorized", Reason.BAD_PASSWORD)


def test_an_unknown_user_looks_like_a_known_one() -> None:
    first = "n,,n=nobody,r=abc"
    client = Client("SCRAM-SHA-256")
    told = client.begin(first.encode())
    real = fields(Client("SCRAM-SHA-256").begin(FIRST.encode()))
    assert {key: len(value) for key, value in fields(told).items() if key != "r"} == {
        key: len(value) for key, value in real.items() if key != "r"
    }
    assert fields(told)["i"] == real["i"]
    assert is_refused(client.respond(final(first, told)), "not-authorized", Reason.NO_USER)
    assert reasons(client) == [Reason.NO_USER]


def test_a_decoy_salt_stays_and_is_of_the_user_the_hash_and_the_key() -> None:
    def salt(name: str = "nobody", family: str = "SHA-256", options: Options = OPTIONS, domain: str = DOMAIN) -> str:
        stream = replace(STREAM, domain=domain)
        client = Client(f"SCRAM-{family}", options=options, stream=stream)
        return fields(client.begin(f"n,,n={name},r=abc".encode()))["s"]

    assert salt() == salt() == salt("NoBody")
    others = [
        salt("nobody2"),
        salt(family="SHA-1"),
        salt(options=replace(OPTIONS, decoy_key=b"another")),
        salt(domain="other.example"),
    ]
    assert len({salt(), *others}) == 5


def test_a_refusal_before_the_proof_is_hidden_until_after_it() -> None:
    for password in ("pencil", "wrong"):
        asked: list[Request] = []

        def decide(request: Request, asked: list[Request] = asked) -> Verdict:
            asked.append(request)
            return Reject(Reason.DISABLED)

        client = Client("SCRAM-SHA-256", decide=decide)
        told = client.begin(FIRST.encode())
        assert isinstance(told, Challenge)
        step = client.respond(final(FIRST, told, password=password))
        assert is_refused(step, "not-authorized", Reason.DISABLED)
        assert not any(isinstance(request, Proof) for request in asked)  # the authority has written it down already


def test_too_many_attempts_are_refused_at_once() -> None:
    client = Client("SCRAM-SHA-256", decide=lambda _: Reject(Reason.RATE_LIMITED))
    assert is_refused(client.begin(FIRST.encode()), "not-authorized", Reason.RATE_LIMITED)


@pytest.mark.parametrize("password", ["pencil", "wrong"])
def test_the_authority_has_the_last_word(password: str) -> None:
    def decide(request: Request) -> Verdict:
        return Reject(Reason.RATE_LIMITED) if isinstance(request, Proof) else People()(request)

    client = Client("SCRAM-SHA-256", decide=decide)
    told = client.begin(FIRST.encode())
    assert isinstance(told, Challenge)
    step = client.respond(final(FIRST, told, password=password))
    assert is_refused(step, "not-authorized", Reason.RATE_LIMITED)


def test_a_user_without_keys_for_this_hash_fails() -> None:
    people = People()

    def decide(request: Request) -> Verdict:
        return people(request) if isinstance(request, Proof) else Keys(USER, b"s" * 16, 4096, ())

    client = Client("SCRAM-SHA-256", people, decide=decide)
    told = client.begin(FIRST.encode())
    assert isinstance(told, Challenge)
    assert is_refused(client.respond(final(FIRST, told)), "not-authorized", Reason.BAD_PASSWORD)
    assert reasons(client) == [Reason.BAD_PASSWORD]


def test_a_proxy() -> None:
    options = replace(OPTIONS, proxies=frozenset({USER}))
    people = People({"user": "pencil", "alice": "x"})
    first = "n,a=alice@example.com,n=user,r=abc"
    success = log_in(first, Client("SCRAM-SHA-256", people, options=options))
    assert isinstance(success, Success)
    assert (success.identity, success.attributes) == (Identity("alice", DOMAIN), {"login": "proxy"})


# Channel binding --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BINDINGS)
@pytest.mark.parametrize("family", Hash)
def test_plus(family: Hash, kind: str) -> None:
    first = f"p={kind},,n=user,r=abc"
    header = f"p={kind},,".encode()
    name = f"SCRAM-{family.value}-PLUS"
    right = log_in(first, Client(name, stream=BOUND), family=family, header=header + BINDINGS[kind])
    assert isinstance(right, Success)
    for data in (b"", b"x" * 32, BINDINGS[kind][:-1], BINDINGS[kind] + b"x"):
        client = Client(name, stream=BOUND)
        step = log_in(first, client=client, family=family, header=header + data)
        assert is_refused(step, "not-authorized", Reason.BAD_BINDING)
        assert reasons(client) == [Reason.BAD_BINDING]


@pytest.mark.parametrize("header", [b"y,,", b"n,a=user,", b"p=tls-exporter,,", b"n,,x"])
def test_the_header_must_be_the_same_again(header: bytes) -> None:
    assert is_refused(log_in(header=header), "not-authorized", Reason.BAD_BINDING)


@pytest.mark.parametrize(
    ("name", "first", "text"),
    [
        ("SCRAM-SHA-256-PLUS", "n,,n=user,r=abc", "server-does-support-channel-binding"),
        ("SCRAM-SHA-256-PLUS", "y,,n=user,r=abc", "server-does-support-channel-binding"),
        ("SCRAM-SHA-256-PLUS", "p=tls-other,,n=user,r=abc", "unsupported-channel-binding-type"),
        ("SCRAM-SHA-256", "p=tls-exporter,,n=user,r=abc", "channel-binding-not-supported"),
        ("SCRAM-SHA-256", "y,,n=user,r=abc", "server-does-support-channel-binding"),
    ],
)
def test_false_ideas_of_channel_binding(name: str, first: str, text: str) -> None:
    client = Client(name, stream=BOUND)
    step = client.begin(first.encode())
    assert is_refused(step, "not-authorized", Reason.BAD_BINDING)
    assert isinstance(step, Failure)
    assert step.text == text
    assert reasons(client) == [Reason.BAD_BINDING]


def test_a_type_that_this_stream_does_not_have() -> None:
    stream = replace(STREAM, bindings={"tls-exporter": b"x" * 32})
    step = Client("SCRAM-SHA-256-PLUS", stream=stream).begin(b"p=tls-unique,,n=user,r=abc")
    assert is_refused(step, "not-authorized", Reason.BAD_BINDING)


def test_no_downgrade_where_nothing_was_offered() -> None:
    first = "y,,n=user,r=abc"
    assert isinstance(log_in(first), Success)
    told = replace(BOUND, advertised=("PLAIN", "SCRAM-SHA-256"))
    assert isinstance(log_in(first, Client("SCRAM-SHA-256", stream=told)), Success)
    offered = ("SCRAM-SHA-256", "PLAIN")
    assert isinstance(log_in(first, Client("SCRAM-SHA-256", stream=BOUND, offered=offered)), Success)
    told = replace(BOUND, advertised=("SCRAM-SHA-1-PLUS", "SCRAM-SHA-256"))
    assert is_refused(Client("SCRAM-SHA-256", stream=told).begin(first.encode()), "not-authorized", Reason.BAD_BINDING)


# XEP-0474 ---------------------------------------------------------------------------------------------------------------------


def test_the_client_can_see_what_it_was_offered() -> None:
    stream = replace(BOUND, advertised=("SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"))
    client = Client("SCRAM-SHA-256", stream=stream)
    told = client.begin(FIRST.encode())
    assert fields(told)["h"] == b64(hashlib.sha256(b"PLAIN\x1eSCRAM-SHA-1\x1eSCRAM-SHA-256").digest())
    assert isinstance(client.respond(final(FIRST, told)), Success)
    stream = replace(stream, advertised_bindings=("tls-unique", "tls-exporter"))
    lists = b"PLAIN\x1eSCRAM-SHA-1\x1eSCRAM-SHA-256\x1ftls-exporter\x1etls-unique"
    assert fields(Client("SCRAM-SHA-512", stream=stream).begin(FIRST.encode()))["h"] == b64(hashlib.sha512(lists).digest())
    assert "h" not in fields(Client("SCRAM-SHA-256").begin(FIRST.encode()))


def test_every_candidate_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append(b)
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert isinstance(log_in(), Success)
    people = People()
    found = people(FindKeys(USER, Origin("test"), "SHA-256"))
    assert isinstance(found, Keys)
    assert [c.stored_key for c in found.candidates] == compared[:2]
