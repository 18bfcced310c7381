"""What is advertised where, and who would be locked out."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from extauth.model import (
    Anonymous,
    CheckCertificate,
    CheckPassword,
    CheckToken,
    FindHashedTokens,
    FindKeys,
    Request,
    UserExists,
)
from extauth.sasl.advertise import Holder, Offer, problems, repertoire
from extauth.sasl.exchange import Stream
from tests.sasl import BOUND, MECHANISMS, OPTIONS, STREAM

LOCAL = Holder("local", frozenset({CheckPassword, FindKeys, UserExists}), keyring=True)
STORED = Holder("app", LOCAL.handles)  # with SCRAM keys of its own
LDAP = Holder("people", frozenset({CheckPassword, UserExists}))
JWT = Holder("app", frozenset({CheckPassword, CheckToken}))
TOKENS = Holder("tokens", frozenset({CheckPassword, CheckToken, FindHashedTokens}), keyring=True)
KEYLESS = Holder("tokens", TOKENS.handles)
CARDS = Holder("cards", frozenset({CheckCertificate}))
GUESTS = Holder("guests", frozenset({Anonymous}))

SCRAM = ("SCRAM-SHA-512", "SCRAM-SHA-384", "SCRAM-SHA-256", "SCRAM-SHA-1")
PLUS = tuple(f"{name}-PLUS" for name in SCRAM)
BEARER = ("OAUTHBEARER", "X-OAUTH2", "XOAUTH2", "X-OAUTH")
PASSWORD = ("PLAIN", "LOGIN")
FAST = tuple(f"HT-SHA-{bits}-NONE" for bits in (512, 384, 256))

OPEN = replace(STREAM, secure=False)
CERTIFIED = replace(STREAM, certificate_user="user")
FOREIGN = replace(STREAM, certificate_user="user@other.example")


def offer(holders: Sequence[Holder], stream: Stream = STREAM, chosen: Sequence[str] | None = None) -> Offer:
    return repertoire(holders, MECHANISMS, chosen).offer(stream, OPTIONS)


@pytest.mark.parametrize(
    ("holders", "stream", "names"),
    [
        ([LOCAL], STREAM, SCRAM + PASSWORD),
        ([LOCAL], OPEN, SCRAM),
        ([LOCAL], BOUND, PLUS + SCRAM + PASSWORD),
        ([LDAP], STREAM, PASSWORD),
        ([LDAP], OPEN, ()),
        ([LOCAL, LDAP], STREAM, PASSWORD),  # those of LDAP would choose SCRAM and fail
        ([LOCAL, LDAP], BOUND, PASSWORD),
        ([TOKENS, LDAP], STREAM, BEARER + PASSWORD),
        ([TOKENS, LOCAL], STREAM, SCRAM + BEARER + PASSWORD),
        ([TOKENS, LOCAL], OPEN, SCRAM),
        ([JWT, LOCAL], STREAM, SCRAM + BEARER + PASSWORD),
        ([JWT], STREAM, BEARER + PASSWORD),
        ([TOKENS], STREAM, BEARER + PASSWORD),
        ([GUESTS], STREAM, ("ANONYMOUS",)),
        ([GUESTS], OPEN, ("ANONYMOUS",)),
        ([GUESTS, LOCAL, JWT], STREAM, ("ANONYMOUS",)),
        ([CARDS, LOCAL], STREAM, SCRAM + PASSWORD),
        ([CARDS, LOCAL], CERTIFIED, ("EXTERNAL",)),
        ([CARDS, LOCAL], FOREIGN, SCRAM + PASSWORD),
        ([LOCAL], CERTIFIED, SCRAM + PASSWORD),
        ([], STREAM, ()),
    ],
)
def test_what_is_offered(holders: Sequence[Holder], stream: Stream, names: tuple[str, ...]) -> None:
    assert offer(holders, stream).mechanisms == names


def test_only_hashes_that_all_have_keys_for() -> None:
    old = Holder("old", LOCAL.handles, frozenset({"SHA-1", "SHA-256"}))
    assert offer([old, LOCAL]).mechanisms == ("SCRAM-SHA-256", "SCRAM-SHA-1", *PASSWORD)
    new = Holder("new", LOCAL.handles, frozenset({"SHA-512"}))
    assert offer([old, new]).mechanisms == PASSWORD


def test_fast_mechanisms_have_a_list_of_their_own() -> None:
    assert offer([TOKENS]).fast == FAST
    assert set(offer([TOKENS], BOUND).fast) == {name for name in MECHANISMS if name.startswith("HT-")}
    assert offer([LOCAL]).fast == ()


def test_the_configuration_chooses() -> None:
    assert offer([LOCAL, LDAP], chosen=["PLAIN", "SCRAM-SHA-256"]).mechanisms == ("PLAIN", "SCRAM-SHA-256")
    assert offer([LOCAL], OPEN, ["PLAIN", "SCRAM-SHA-1"]).mechanisms == ("SCRAM-SHA-1",)
    assert offer([LDAP], chosen=["SCRAM-SHA-256", "PLAIN", "X-NONE"]).mechanisms == ("PLAIN",)
    assert offer([CARDS, LOCAL], CERTIFIED, ["EXTERNAL", "PLAIN"]).mechanisms == ("EXTERNAL", "PLAIN")
    assert offer([GUESTS, LOCAL], chosen=["ANONYMOUS", "PLAIN"]).mechanisms == ("ANONYMOUS", "PLAIN")
    assert offer([LOCAL], chosen=[]).mechanisms == ()


def test_the_names_for_an_exchange() -> None:
    assert repertoire([LDAP], MECHANISMS).names == {"PLAIN", "LOGIN"}


# Who is locked out ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "holders",
    [
        [LOCAL],
        [LDAP],
        [LOCAL, LDAP],
        [TOKENS, LDAP],
        [KEYLESS, LDAP],
        [TOKENS, LOCAL],
        [STORED],
        [GUESTS],
        [CARDS, LOCAL],
        [JWT, LDAP],
    ],
)
def test_a_good_combination(holders: Sequence[Holder]) -> None:
    assert problems("example.com", holders, MECHANISMS) == []


@pytest.mark.parametrize(
    ("holders", "chosen", "words"),
    [
        ([LOCAL, LDAP], ["SCRAM-SHA-256", "PLAIN"], ["'people' are locked out: clients take SCRAM-SHA-256"]),
        (
            [LDAP],
            ["PLAIN", "SCRAM-SHA-1"],
            ["SCRAM-SHA-1 can't work: no backend of the domain answers for SCRAM keys"],
        ),
        (
            [JWT, LOCAL],
            ["SCRAM-SHA-1"],
            ["what backend 'app' takes in a password's place is refused", "'app' (bearer tokens, passwords) are locked out"],
        ),
        ([JWT, LOCAL], None, ["'app' takes in a password's place is refused from clients that prefer SCRAM-SHA-512-PLUS"]),
        ([KEYLESS, LOCAL], None, ["'tokens' takes in a password's place is refused"]),
        ([TOKENS, STORED], None, ["'tokens' takes in a password's place is refused"]),
        ([TOKENS, LOCAL, STORED], None, ["'tokens' takes in a password's place is refused"]),
        ([LDAP, JWT], None, ["backend 'app' stands after 'people'"]),
        ([LOCAL, CARDS], ["PLAIN"], ["'cards' (certificates) are locked out"]),
        ([LOCAL, CARDS], ["EXTERNAL", "PLAIN"], ["must ask for EXTERNAL"]),
        ([GUESTS, LOCAL], None, ["'local' (SCRAM keys, passwords) are locked out"]),
        ([GUESTS, JWT], ["ANONYMOUS", "OAUTHBEARER"], ["guests need another domain"]),
        ([], None, ["nobody can log in by SASL"]),
    ],
)
def test_a_bad_combination_is_named(holders: Sequence[Holder], chosen: Sequence[str] | None, words: list[str]) -> None:
    told = problems("example.com", holders, MECHANISMS, chosen)
    assert len(told) == len(words), told
    assert all(expected in line for expected, line in zip(words, told, strict=True)), told
    assert all(line.startswith("domain 'example.com': ") for line in told)


def test_a_backend_of_no_logins_is_no_problem() -> None:
    names: frozenset[type[Request]] = frozenset({UserExists})
    assert problems("example.com", [LOCAL, Holder("names", names)], MECHANISMS) == []
