"""The engine against clients that are not ours: slixmpp's SASL code and scramp."""

from collections.abc import Iterable
from typing import Protocol, cast

import pytest
from msgspec.structs import replace
from scramp import ScramClient, ScramException  # pyright: ignore[reportMissingTypeStubs]
from slixmpp.util.sasl import client as slixmpp

from extauth.model import Identity, Reason
from extauth.sasl.exchange import Challenge, Failure, Stream, Success
from tests.sasl import BINDINGS, BOUND, DOMAIN, STREAM, Client, People, is_refused

USER = Identity("user", DOMAIN)


class Mech(Protocol):
    """What slixmpp's feature plug-in uses of a mechanism."""

    name: str

    def process(self, challenge: bytes = b"") -> bytes:
        """Answer a challenge, or check the data of the success."""
        ...


def choose(offered: Iterable[str], stream: Stream = STREAM, **credentials: str | bytes) -> Mech:
    """Return the mechanism that slixmpp takes of those offered."""

    def wanted(required: Iterable[str], optional: Iterable[str]) -> dict[str, str | bytes]:
        return {key: value for key, value in credentials.items() if key in {*required, *optional}}

    def security(_: Iterable[str]) -> dict[str, object]:
        plus = any(name.endswith("-PLUS") for name in offered)
        return {"encrypted": True, "tls_version": "TLSv1.2", "binding_proposed": plus, "encrypted_plain": True}

    assert stream.secure
    return cast("Mech", slixmpp.choose(offered, wanted, security))


def log_in(mech: Mech, people: People, stream: Stream = STREAM) -> Success | Failure:
    """Let slixmpp's mechanism talk with ours, as its feature plug-in does."""
    client = Client(mech.name, people, stream=stream)
    step = client.begin(mech.process())
    while isinstance(step, Challenge):
        step = client.respond(mech.process(step.data))
    if isinstance(step, Success) and step.data is not None:
        mech.process(step.data)
    return step


class Scramp(Protocol):
    """A client of scramp, which has no types."""

    def get_client_first(self) -> str:
        """Return the first message."""
        ...

    def set_server_first(self, message: str) -> None:
        """Take the server's first message."""
        ...

    def get_client_final(self) -> str:
        """Return the last message."""
        ...

    def set_server_final(self, message: str) -> None:
        """Check the server's last message."""
        ...


SCRAM = [f"SCRAM-SHA-{bits}" for bits in (1, 256, 384, 512)]


@pytest.mark.parametrize("name", [*SCRAM, "PLAIN", "LOGIN"])
def test_slixmpp_with_a_password(name: str) -> None:
    people = People({"user": "p=n,c\u00efl", "a=b,c": "pencil"})
    mech = choose([name], username="user", password="p=n,c\u00efl")
    assert mech.name == name
    step = log_in(mech, people)
    assert isinstance(step, Success)
    assert step.identity == USER
    step = log_in(choose([name], username="a=b,c", password="pencil"), people)
    assert isinstance(step, Success)
    assert step.identity == Identity("a=b,c", DOMAIN)
    refused = log_in(choose([name], username="user", password="wrong"), people)
    assert is_refused(refused, "not-authorized", Reason.BAD_PASSWORD)
    refused = log_in(choose([name], username="nobody", password="wrong"), people)
    assert is_refused(refused, "not-authorized", Reason.NO_USER)


@pytest.mark.parametrize("name", SCRAM)
def test_slixmpp_with_an_authzid(name: str) -> None:
    mech = choose([name], username="user", password="pencil", authzid="user@example.com")
    assert isinstance(log_in(mech, People()), Success)
    mech = choose([name], username="user", password="pencil", authzid="admin@example.com")
    assert is_refused(log_in(mech, People()), "invalid-authzid", Reason.NOT_ALLOWED)


@pytest.mark.parametrize("name", SCRAM)
def test_slixmpp_with_channel_binding(name: str) -> None:
    data = BINDINGS["tls-unique"]
    mech = choose([f"{name}-PLUS", name], username="user", password="pencil", channel_binding=data)
    assert mech.name == f"{name}-PLUS"
    assert isinstance(log_in(mech, People(), BOUND), Success)
    mech = choose([f"{name}-PLUS"], username="user", password="pencil", channel_binding=b"another connection")
    assert is_refused(log_in(mech, People(), BOUND), "not-authorized", Reason.BAD_BINDING)


def test_slixmpp_whose_list_was_shortened_on_its_way() -> None:
    mech = choose(["SCRAM-SHA-256"], username="user", password="pencil", channel_binding=BINDINGS["tls-unique"])
    assert is_refused(log_in(mech, People(), BOUND), "not-authorized", Reason.BAD_BINDING)
    mech = choose(["SCRAM-SHA-256"], username="user", password="pencil")
    assert isinstance(log_in(mech, People(), STREAM), Success)


def test_slixmpp_with_other_credentials() -> None:
    people = People(tokens={"tok": "user"})
    mech = choose(["X-OAUTH2"], username="user", access_token="tok")
    assert log_in(mech, people) == Success(USER)
    mech = choose(["X-OAUTH2"], username="user", access_token="other")
    assert is_refused(log_in(mech, people), "not-authorized", Reason.BAD_PASSWORD)
    certified = replace(STREAM, certificate_user="user")
    for authzid in ("", "user@example.com"):
        assert log_in(choose(["EXTERNAL"], authzid=authzid), people, certified) == Success(USER)
    assert isinstance(log_in(choose(["ANONYMOUS"]), people), Success)


@pytest.mark.parametrize("kind", [None, "tls-server-end-point", "tls-unique"])
@pytest.mark.parametrize("family", ["SHA-1", "SHA-256", "SHA-512"])  # all that it knows
def test_scramp(family: str, kind: str | None) -> None:
    name = f"SCRAM-{family}" if kind is None else f"SCRAM-{family}-PLUS"
    binding = None if kind is None else (kind, BINDINGS[kind])

    def play(user: str, password: str) -> tuple[Scramp, Success | Failure]:
        theirs = cast("Scramp", ScramClient([name], user, password, channel_binding=binding))
        ours = Client(name, People({"a=b,c": "pencil"}), stream=BOUND if binding else STREAM)
        told = ours.begin(theirs.get_client_first().encode())
        assert isinstance(told, Challenge)
        theirs.set_server_first(told.data.decode())
        step = ours.respond(theirs.get_client_final().encode())
        assert not isinstance(step, Challenge)
        return theirs, step

    theirs, success = play("a=b,c", "pencil")
    assert isinstance(success, Success)
    assert success.data is not None
    theirs.set_server_final(success.data.decode())
    theirs, success = play("a=b,c", "an app password")
    assert isinstance(success, Success)
    assert success.data is not None
    with pytest.raises(ScramException):
        theirs.set_server_final("v=" + "A" * (len(success.data) - 2))
    assert is_refused(play("a=b,c", "wrong")[1], "not-authorized", Reason.BAD_PASSWORD)
    assert is_refused(play("nobody", "pencil")[1], "not-authorized", Reason.NO_USER)
