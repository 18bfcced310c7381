"""Changed and invented messages: each exchange ends cleanly, and never in a success that was not deserved."""

import hmac

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from extauth.model import Identity, Reason
from extauth.passwords.scram import Hash
from extauth.sasl.exchange import Challenge, Failure, Success
from tests.sasl import BOUND, DOMAIN, ITERATIONS, MECHANISMS, Client, People
from tests.test_sasl_scram import fields, final

USER = Identity("user", DOMAIN)
TOKEN = "secret-token"
STREAM = replace(BOUND, certificate_user="user")
PEOPLE = People(tokens={TOKEN: "user"}, hashed={"user": (TOKEN,)})

# One change of a message: what to do, where (a share of its length), and the bytes for it.
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["insert", "overwrite", "delete", "double", "cut"]),
        st.floats(0, 1),
        st.one_of(st.binary(max_size=4), st.sampled_from([b"\0", b"\x01", b",", b"=", b"=2C", b",x=1", b"m=", b"@", b"A"])),
    ),
    max_size=3,
)
Changes = list[tuple[str, float, bytes]]


def changed(message: bytes, changes: Changes) -> bytes:
    for what, share, data in changes:
        place = round(share * len(message))
        start, end = message[:place], message[place:]
        message = {
            "insert": start + data + end,
            "overwrite": start + data + end[len(data) :],
            "delete": start + end[len(data) :],
            "double": start + end + end,
            "cut": start,
        }[what]
    return message


def ended(step: Challenge | Success | Failure) -> Success | None:
    """Return the success, or None for a refusal; anything else is a fault of ours."""
    if isinstance(step, Success):
        return step
    assert isinstance(step, Failure), step
    assert (step.bug, step.temporary) == (None, False)
    assert step.reason is not Reason.OK
    return None


# One of each family: the others differ by a hash.
FAMILIES = [name for name in MECHANISMS if not name.startswith(("SCRAM", "HT")) or "-256" in name]


@pytest.mark.parametrize("name", FAMILIES)
@given(messages=st.lists(st.one_of(st.none(), st.binary(max_size=60), st.text(max_size=30).map(str.encode)), max_size=4))
def test_invented_messages(name: str, messages: list[bytes | None]) -> None:
    client = Client(name, PEOPLE, stream=STREAM)
    step = client.play(*messages)
    if isinstance(step, Challenge):
        step = client.exchange.abort()
    success = ended(step)
    if name == "EXTERNAL":
        assert success is None or success.identity == USER
    elif name != "ANONYMOUS":
        assert success is None


FIRST = {
    "PLAIN": b"user@example.com\0user\0pencil",
    "OAUTHBEARER": f"n,a=user@example.com,\x01host=example.com\x01port=5222\x01auth=Bearer {TOKEN}\x01\x01".encode(),
    "X-OAUTH2": f"user\0user\0{TOKEN}".encode(),
    "XOAUTH2": f"user=user\x01auth=Bearer {TOKEN}\x01\x01".encode(),
    "X-OAUTH": TOKEN.encode(),
    "EXTERNAL": b"user@example.com",
    "HT-SHA-256-EXPR": b"user\0" + hmac.digest(TOKEN.encode(), b"Initiator" + BOUND.bindings["tls-exporter"], "sha256"),
}


@pytest.mark.parametrize("name", FIRST)
@given(changes=CHANGES)
def test_changed_messages(name: str, changes: Changes) -> None:
    message = changed(FIRST[name], changes)
    client = Client(name, PEOPLE, stream=STREAM)
    success = ended(client.play(message, b"\x01", b""))
    assert success is not None or message != FIRST[name]
    if success is not None:
        assert success.identity == USER
        match name:
            case "PLAIN":
                assert message.split(b"\0")[2] == b"pencil"
            case "HT-SHA-256-EXPR":
                assert message.endswith(FIRST[name][4:])
            case "EXTERNAL":
                pass
            case _:
                assert TOKEN.encode() in message


@pytest.mark.parametrize("name", ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"])
@given(which=st.sampled_from(["client-first", "server-first", "client-final", "none"]), changes=CHANGES)
def test_somebody_between_client_and_server(name: str, which: str, changes: Changes) -> None:
    plus = name.endswith("-PLUS")
    first = "p=tls-exporter,,n=user,r=abcdef" if plus else "n,,n=user,r=abcdef"
    header = b"p=tls-exporter,," + BOUND.bindings["tls-exporter"] if plus else b"n,,"

    def between(place: str, message: bytes) -> bytes:
        return changed(message, changes) if which == place else message

    client = Client(name, PEOPLE, stream=STREAM)
    got = between("client-first", first.encode())
    told = client.begin(got)
    if not isinstance(told, Challenge):
        assert ended(told) is None
        return
    heard = between("server-first", told.data)
    try:
        assume(int(fields(Challenge(heard))["i"]) == ITERATIONS)
        answer = final(first, Challenge(heard), header=header)
    except (ValueError, KeyError):
        return  # the client sees that it is garbage
    sent = between("client-final", answer)
    success = ended(client.respond(sent))
    untouched = got == first.encode() and heard == told.data and sent == answer
    assert (success is not None) == untouched
    assert success is None or success.identity == USER


@pytest.mark.parametrize("name", ["SCRAM-SHA-256", "SCRAM-SHA-512-PLUS"])
@given(share=st.floats(0, 1), bit=st.integers(0, 7))
def test_one_bit_of_the_proof(name: str, share: float, bit: int) -> None:
    plus = name.endswith("-PLUS")
    first = "p=tls-exporter,,n=user,r=abcdef" if plus else "n,,n=user,r=abcdef"
    header = b"p=tls-exporter,," + BOUND.bindings["tls-exporter"] if plus else b"n,,"
    client = Client(name, PEOPLE, stream=STREAM)
    told = client.begin(first.encode())
    family = Hash.SHA_512 if "512" in name else Hash.SHA_256
    message = bytearray(final(first, told, header=header, family=family))
    start = message.index(b",p=") + 3
    message[start + round(share * (len(message) - start - 1))] ^= 1 << bit
    assert ended(client.respond(bytes(message))) is None
