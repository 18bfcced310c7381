"""PLAIN, LOGIN and ANONYMOUS."""

import base64

import pytest
from msgspec.structs import replace

from extauth.model import Anonymous, CheckPassword, Identity, Reason, UserExists
from extauth.sasl.exchange import Challenge, Success
from tests.sasl import DOMAIN, OPTIONS, VECTORS, Client, People, is_malformed, is_refused

USER = Identity("user", DOMAIN)
SMILE = b"\xf0\x9f\x98\x80"
SMILE_AS_CESU_8 = b"\xed\xa0\xbd\xed\xb8\x80"


def password_of(client: Client) -> str:
    (request,) = client.people.asked
    assert isinstance(request, CheckPassword)
    return request.password.reveal()


@pytest.mark.parametrize(
    "message",
    [
        b"\0user\0pencil",
        b"user@example.com\0user\0pencil",
        b"\0user@example.com\0pencil",
        b"user\0user\0pencil",
        b"USER@Example.COM\0User\0pencil",
        b"\0user@EXAMPLE.com.\0pencil",
    ],
)
def test_plain(message: bytes) -> None:
    assert Client("PLAIN").begin(message) == Success(USER, None, {"role": "member"})
    assert Client("PLAIN").play(None, message) == Success(USER, None, {"role": "member"})


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"user",
        b"\0user",
        b"user\0pencil",
        b"\0user\0pencil\0",
        b"\0user\0pen\0cil",
        b"\0\0user\0pencil",
        b"\0\0pencil",
        b"\0user\0",
        b"\0\0",
        b"\0user\0pencil\xff",
        b"\0us\xffer\0pencil",
        b"\xff\0user\0pencil",
        b"\0user\0\xed\xa0\xbd",  # half a character in CESU-8
        b"\0user\0\xed\xb8\x80\xed\xa0\xbd",
        base64.b64decode(VECTORS["plain"]["xep0388_sample"].split()[0]),
    ],
)
def test_plain_malformed(message: bytes) -> None:
    client = Client("PLAIN")
    assert is_malformed(client.begin(message))
    assert client.people.asked == []


def test_plain_wrong() -> None:
    assert is_refused(Client("PLAIN").begin(b"\0user\0wrong"), "not-authorized", Reason.BAD_PASSWORD)
    assert is_refused(Client("PLAIN").begin(b"\0nobody\0pencil"), "not-authorized", Reason.NO_USER)
    assert is_refused(Client("PLAIN").begin(b'\0us"er\0pencil'), "not-authorized", Reason.BAD_NAME)
    assert is_refused(Client("PLAIN").begin(b"\0user@other.example\0pencil"), "not-authorized", Reason.UNKNOWN_DOMAIN)
    assert is_refused(Client("PLAIN").begin(b"\0user@\0pencil"), "not-authorized", Reason.BAD_NAME)


@pytest.mark.parametrize(
    "authzid", [b"admin", b"admin@example.com", b"user@other.example", b"user@example.com/x", b'"', b"@", b"example.com"]
)
def test_nobody_acts_as_somebody_else(authzid: bytes) -> None:
    client = Client("PLAIN")
    assert is_refused(client.begin(authzid + b"\0user\0pencil"), "invalid-authzid", Reason.NOT_ALLOWED)
    assert client.people.asked == []


def test_unless_it_is_a_proxy() -> None:
    options = replace(OPTIONS, proxies=frozenset({Identity("admin", DOMAIN)}))
    people = People({"user": "pencil", "admin": "master"})

    def play(message: bytes) -> object:
        return Client("PLAIN", people, options=options).begin(message)

    assert play(b"user\0admin\0master") == Success(USER, None, {"login": "proxy"})
    assert isinstance(people.asked[-1], UserExists)
    assert people.asked[-1].identity == USER
    assert play(b"\0admin\0master") == Success(Identity("admin", DOMAIN), None, {"role": "member"})
    assert play(b"admin\0admin\0master") == Success(Identity("admin", DOMAIN), None, {"role": "member"})
    for message, condition, reason in (
        (b"user\0admin\0pencil", "not-authorized", Reason.BAD_PASSWORD),
        (b"nobody\0admin\0master", "not-authorized", Reason.NO_USER),
        (b"admin\0user\0pencil", "invalid-authzid", Reason.NOT_ALLOWED),
        (b"user@other.example\0admin\0master", "invalid-authzid", Reason.NOT_ALLOWED),
    ):
        assert is_refused(Client("PLAIN", people, options=options).begin(message), condition, reason)


def test_strophe_sends_cesu_8() -> None:
    repaired = Client("PLAIN")
    repaired.begin(b"\0a\0" + SMILE_AS_CESU_8)
    assert password_of(repaired) == SMILE.decode()
    vector = base64.b64decode(VECTORS["strophe_observed"]["plain_password_U+1F600"]["b64"])
    assert vector == b"\0a\0" + SMILE_AS_CESU_8
    right = Client("PLAIN")
    right.begin(b"\0a\0" + SMILE)
    assert password_of(right) == SMILE.decode()


def test_what_strophe_sends() -> None:
    people = People({"alice": "pw", "admin": "pw"})
    without, with_authzid = (base64.b64decode(VECTORS["plain"][key]) for key in ("strophe_no_authzid", "strophe_authzid"))
    assert isinstance(Client("PLAIN", people).begin(without), Success)
    assert is_refused(Client("PLAIN", people).begin(with_authzid), "invalid-authzid", Reason.NOT_ALLOWED)
    other = Client("PLAIN")
    other.begin(base64.b64decode(VECTORS["strophe_observed"]["plain_non_ascii"]["b64"]))
    assert password_of(other) == "p\u00e4ss"
    assert other.people.asked[0].identity.user == "jos\u00e9"


# LOGIN ------------------------------------------------------------------------------------------------------------------------


def test_login() -> None:
    client = Client("LOGIN")
    assert client.begin() == Challenge(b"Username:")
    assert client.respond(b"user") == Challenge(b"Password:")
    assert client.respond(b"pencil") == Success(USER, None, {"role": "member"})
    assert isinstance(Client("LOGIN").play(b"user", b"pencil"), Success)
    assert isinstance(Client("LOGIN").play(b"", b"user@example.com", b"pencil"), Success)
    assert is_refused(Client("LOGIN").play(None, b"user", b"wrong"), "not-authorized", Reason.BAD_PASSWORD)


@pytest.mark.parametrize(
    "messages",
    [
        (None, b"", b"pencil"),
        (None, b"user", b""),
        (None, b"us\0er", b"pencil"),
        (None, b"user", b"pen\0cil"),
        (None, b"user\xff", b"pencil"),
        (b"user", b"pencil\xff"),
    ],
)
def test_login_malformed(messages: tuple[bytes | None, ...]) -> None:
    client = Client("LOGIN")
    assert is_malformed(client.play(*messages))
    assert client.people.asked == []


# ANONYMOUS --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trace", [None, b"", b"sirhc", b"someone@example.org", "\u00e9".encode() * 255])
def test_anonymous_gets_a_fresh_name_and_is_never_challenged(trace: bytes | None) -> None:
    client, again = Client("ANONYMOUS"), Client("ANONYMOUS")
    first, second = client.begin(trace), again.begin(trace)
    assert isinstance(first, Success)
    assert isinstance(second, Success)
    assert first.identity != second.identity
    assert first.identity.domain == DOMAIN
    assert len(first.identity.user) == 32
    (request,) = client.people.asked
    assert isinstance(request, Anonymous)
    assert request.trace == (trace or b"").decode()


@pytest.mark.parametrize("trace", [b"\xff", b"a\0b", b"x" * 256, "\u00e9".encode() * 256])
def test_anonymous_malformed(trace: bytes) -> None:
    assert is_malformed(Client("ANONYMOUS").begin(trace))
