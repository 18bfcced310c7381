"""Names: one canonical form of each, whoever sends it."""
# ruff: noqa: RUF001 - ambiguous characters are the subject

import logging
import stringprep
import sys
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from extauth import jid
from extauth.jid import InvalidName, domain_part, local_part
from extauth.model import Identity

# Characters that preparation maps, removes, forbids or treats by their direction, among ordinary ones.
TRICKY = st.text(
    st.one_of(
        st.sampled_from("aZ09._ @/:'\"&<>ßſKςΣéÅﬁⅧİı\u200d\u00ad\u2024\u3002\u05d0\u0661\u0301\ufdfa\u0221\U0001f600\ud800\0"),
        st.characters(),
    ),
    max_size=12,
)


def accepted(prepare: object, text: str) -> str | None:
    """Return the prepared text, or None where it is refused; any other exception is a defect."""
    assert callable(prepare)
    try:
        return str(prepare(text))
    except InvalidName:
        return None


# Local parts ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("alice", "alice"),
        ("Alice", "alice"),
        ("\u13a0", "\u13a0"),  # CHEROKEE LETTER A, without case in Unicode 3.2
        ("Straße", "strasse"),  # RFC 3454 table B.2; UsernameCaseMapped alone would keep it
        ("ſam", "sam"),  # long s
        ("\u212aate", "kate"),  # KELVIN SIGN
        ("\u212bngström", "ångström"),  # ANGSTROM SIGN
        ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
        ("σίσυφος", "σίσυφοσ"),  # final sigma
        ("ａｌｉｃｅ", "alice"),  # full width
        ("Ⅷ", "viii"),
        ("ﬁn", "fin"),
        ("e\u0301", "\u00e9"),  # composed
        ("a\u0323\u0307", "\u1ea1\u0307"),  # marks in canonical order ...
        ("a\u0307\u0323", "\u1ea1\u0307"),  # ... whichever came first
        ("İ", "i\u0307"),
        ("a\u00adb", "ab"),  # table B.1: mapped to nothing
        ("a\u200db", "ab"),  # ZERO WIDTH JOINER
        ("a\u2024b", "a.b"),  # ONE DOT LEADER
        ("\u05d0\u05d1", "\u05d0\u05d1"),
        ("\u05d01\u05d1", "\u05d01\u05d1"),
        ("\u4f60\u597d", "\u4f60\u597d"),
        ("#1!$%()*+,-.;=?[\\]^_`{|}~", "#1!$%()*+,-.;=?[\\]^_`{|}~"),
    ],
)
def test_local_parts_are_prepared_by_nodeprep(text: str, prepared: str) -> None:
    assert local_part(text) == prepared


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("\u0221", "\u0221"),
        ("\u2c65", "\u2c65"),
        ("\u023a", "\u2c65"),  # its case mapping is of Unicode 4.1
        ("\u023aＡ", "\u2c65a"),  # full width is mapped by this profile, too
    ],
)
def test_what_unicode_3_2_does_not_assign_takes_username_case_mapped(text: str, prepared: str) -> None:
    assert local_part(text) == prepared


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "\u00ad", "a b", "a\u00a0b", "a\u3000b", "a\tb", "a\nb", "a\0b", "a\x7fb", "a\u0085b"),
        *("a" + c + "b" for c in "\"&'/:<>@"),
        "a\uff20b",  # FULLWIDTH COMMERCIAL AT becomes one
        "a\uff1ab",
        "a\u2100b",  # ACCOUNT OF: a/c
        "\ufdfa",  # a ligature that holds spaces
        "a\u2028b",
        "a\u202eb",  # RIGHT-TO-LEFT OVERRIDE
        "\ue000",  # private use
        "\ufdd0",  # no character
        "\ufffd",
        "\u206a",  # deprecated
        "\U0001f600",  # emoji: unassigned in 3.2, and a symbol
        "\u0221\u200d",  # ZWJ is dropped by Nodeprep only
        "\u05d0a",  # mixed directions
        "a\u05d0",
        "\u05d01",
        "1\u05d0",
        "\u1e9e",  # capital sharp s becomes ß and that ss: no fixed point
    ],
)
def test_no_local_part(text: str) -> None:
    with pytest.raises(InvalidName):
        local_part(text)


def test_a_name_that_is_too_long_is_not_prepared() -> None:
    """It takes a while for each character, and nobody is answered meanwhile."""
    with pytest.raises(InvalidName, match="1023"):
        local_part("\uff58" * 342)  # of 3 bytes, which would be 1


@pytest.mark.parametrize(("c", "most"), [("a", 1023), ("é", 511), ("\u4f60", 341), ("\u0221", 511)])
def test_a_local_part_has_at_most_1023_bytes(c: str, most: int) -> None:
    assert local_part(c * most) == c * most
    with pytest.raises(InvalidName, match="1023"):
        local_part(c * (most + 1))


def test_the_length_counts_after_preparation() -> None:
    assert local_part("ﬁ" * 341) == "fi" * 341
    with pytest.raises(InvalidName, match="1023"):
        local_part("ß" * 512)  # 1024 bytes as they arrive and as "ss"
    with pytest.raises(InvalidName, match="1023"):
        local_part("㌖" * 300)  # six characters each


@given(TRICKY)
@example("\u1e9e")
def test_preparing_again_changes_nothing(text: str) -> None:
    prepared = accepted(local_part, text)
    if prepared is not None:
        assert local_part(prepared) == prepared
        assert 0 < len(prepared.encode()) <= 1023


@given(st.text(st.characters(max_codepoint=127), max_size=20))
@example("a" * 255)
@example("A:b")
def test_ascii_takes_a_fast_path_to_the_same_place(text: str) -> None:
    assert accepted(local_part, text) == accepted(jid._prepare, text)  # pyright: ignore[reportPrivateUsage]


@pytest.fixture(scope="module")
def others_nodeprep() -> Iterator[object]:
    """Give Nodeprep as slixmpp has it: another implementation, in Rust, with tables of its own."""
    logging.disable(logging.WARNING)
    from slixmpp.jid import JID  # noqa: PLC0415 - it takes its time

    def nodeprep(text: str) -> str:
        try:
            return str(JID(f"{text}@example.com").node)
        except ValueError as error:
            raise InvalidName(str(error)) from error

    yield nodeprep
    logging.disable(logging.NOTSET)


def is_ordinary(c: str) -> bool:
    """Leave out what is unassigned, for private use, a surrogate, and the long rows of Han and Hangul, all alike."""
    if stringprep.in_table_a1(c) or stringprep.in_table_c3(c) or stringprep.in_table_c5(c):
        return False
    return not ("\u3400" <= c <= "\ud7a3" or "\U00020000" <= c <= "\U0002a6d6")


@cache
def assigned() -> list[str]:
    """Return the ordinary characters; not while tests are collected, which is in every process of them."""
    return [c for c in map(chr, range(sys.maxunicode + 1)) if is_ordinary(c)]


CORRECTED = set("\U0002f868\U0002f874\U0002f91f\U0002f95f\U0002f9bf")  # slixmpp decomposes them as Corrigendum 4 has it


def test_each_character_of_unicode_3_2_is_prepared_as_by_others(others_nodeprep: object) -> None:
    assert len(assigned()) > 10_000
    characters = set(assigned()) - CORRECTED - set("@/")
    assert [c for c in characters if accepted(local_part, c) != accepted(others_nodeprep, c)] == []


@given(st.deferred(lambda: st.text(st.sampled_from(assigned()), min_size=1, max_size=8)))
@example("ΣΊΣΥΦΟς")
@example("Straße")
@example("\u05d0a")
def test_nodeprep_is_everybodys_nodeprep(others_nodeprep: object, text: str) -> None:
    assume(not set(text) & {"@", "/", *CORRECTED})  # slixmpp itself parts a JID at two of them
    assert accepted(local_part, text) == accepted(others_nodeprep, text)


# Domains ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.com", "example.com"),
        ("example.com.", "example.com"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("Exämple.COM", "xn--exmple-cua.com"),
        ("xn--exmple-cua.com", "xn--exmple-cua.com"),
        ("XN--EXMPLE-CUA.com", "xn--exmple-cua.com"),
        ("straße.example", "xn--strae-oqa.example"),  # IDNA 2008: not "strasse"
        ("ＥＸＡＭＰＬＥ．com", "example.com"),
        ("example\u3002com", "example.com"),  # IDEOGRAPHIC FULL STOP
        ("exämple.com\u3002", "xn--exmple-cua.com"),
        ("a-b.example", "a-b.example"),
    ],
)
def test_domains_are_lower_case_a_labels_without_a_last_dot(text: str, prepared: str) -> None:
    assert domain_part(text) == prepared


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "a..b", ".a", "a.b..", "a b", "a@b", "a/b", "a:b", "a_b.example", "-a.example", "a-.example"),
        *("[::1]", "a" * 64, "a\nb", "a\n", "a\0", "é" * 64, "ex\u200dample.com", "\u2488com", "\ud800", "\u05d0a", "a." * 512),
    ],
)
def test_no_domain(text: str) -> None:
    with pytest.raises(InvalidName):
        domain_part(text)


@given(TRICKY)
@example("exämple.com\u3002")
@example("XN--A")
def test_a_prepared_domain_is_ascii_and_stays_the_same(text: str) -> None:
    prepared = accepted(domain_part, text)
    if prepared is not None:
        assert prepared.isascii()
        assert prepared == prepared.lower()
        assert domain_part(prepared) == prepared


# Whole names ------------------------------------------------------------------------------------------------------------------


def test_an_identity_is_canonical_in_both_parts() -> None:
    assert jid.identity("Alice", "Example.COM.") == Identity("alice", "example.com")
    assert str(jid.parse("Alice@Example.com")) == "alice@example.com"


@pytest.mark.parametrize("text", ["alice", "@example.com", "alice@", "alice@a@b", "alice@example.com/phone", ""])
def test_no_bare_jid(text: str) -> None:
    with pytest.raises(InvalidName):
        jid.parse(text)


@pytest.mark.parametrize("text", ["alice", "ALICE", "alice@example.com", "Alice@EXAMPLE.com"])
def test_other_writings_of_a_name_are_this_user(text: str) -> None:
    assert jid.is_name(text, Identity("alice", "example.com"))


@pytest.mark.parametrize("text", ["alic\u00e9", "alice ", "alice@example.org", "alice@", "alice@a@b", "", "bob", "alice\0"])
def test_other_names_are_not(text: str) -> None:
    assert not jid.is_name(text, Identity("alice", "example.com"))


@pytest.mark.parametrize("name", ["alice@corp.example", "corp\\alice"])
def test_a_name_that_only_a_backend_knows_is_compared_as_a_whole(name: str) -> None:
    there = Identity(name, "example.com")
    assert jid.is_name(name, there)
    assert jid.is_name(name.upper(), there)
    for other in ("alice", "alice@example.com", f"{name} ", f"{name}@example.org", name.replace("e", "\u00e9"), ""):
        assert not jid.is_name(other, there), other
