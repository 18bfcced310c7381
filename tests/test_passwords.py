"""Passwords: prepared as the RFCs say, kept as SCRAM keys, allowed by simple rules."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.model import Reason
from extauth.passwords import scram
from extauth.passwords.prepare import LONGEST, for_checking, for_storing, is_blank, opaque_string, saslprep
from extauth.passwords.rules import Rules
from extauth.passwords.scram import Hash

ANY_TEXT = st.text(
    st.one_of(st.sampled_from("aB \u00a0\u00ad\u00aa\u05d0\u0627\u0661\u0221\u0301\U0001f600\ud800\0\x7f"), st.characters())
)

# Preparation ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("I\u00adX", "IX"),  # the examples of RFC 4013 section 3
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("\u0007", None),
        ("\u0627\u0031", None),
        ("a\u00a0b", "a b"),  # section 2.1: other spaces become SPACE
        ("a\u3000b", "a b"),
        ("\u00ad", ""),
        ("a\u200db", "ab"),
        ("e\u0301", "\u00e9"),
        ("\u0627\u0628", "\u0627\u0628"),
        ("\u06271\u0628", "\u06271\u0628"),
        ("\u0627a\u0628", None),  # a left-to-right letter within
        ("1\u0628", None),
        ("\u0221", None),  # unassigned in Unicode 3.2
        ("\U0001f600", None),
        ("a\x7f", None),
        ("\ud800", None),
        ("", ""),
    ],
)
def test_saslprep(text: str, prepared: str | None) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("correct horse battery staple", "correct horse battery staple"),  # the examples of RFC 8265 section 4.3
        ("Correct Horse Battery Staple", "Correct Horse Battery Staple"),
        ("\u03c0\u00df\u00e5", "\u03c0\u00df\u00e5"),
        ("Jack of \u2666s", "Jack of \u2666s"),
        ("foo\u1680bar", "foo bar"),
        ("", None),
        ("my cat is a \u0009by", None),
        ("e\u0301", "\u00e9"),
        ("\uff21", "\uff21"),  # full width stays
        ("\U0001f600", "\U0001f600"),
        ("\ud800", None),
    ],
)
def test_opaque_string(text: str, prepared: str | None) -> None:
    assert opaque_string(text) == prepared


@pytest.mark.parametrize("text", ["", " ", "\t", "\u00a0 \u3000", "\u00ad", "\u00ad \u200d", "\0", "secret\0", "\u200b"])
def test_a_blank_is_nobodys_password(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", " a", "\u00ada", "\U0001f600", "\x07", "\ud800"])
def test_what_has_a_character_is_not_blank(text: str) -> None:
    assert not is_blank(text)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("\u2168", "IX"),  # SASLprep where it can
        ("\U0001f600", "\U0001f600"),  # else OpaqueString
        ("\u0007", None),
        ("\u00ad", None),
        ("", None),
    ],
)
def test_keys_are_made_of_one_form(text: str, stored: str | None) -> None:
    assert for_storing(text) == stored


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        ("plain one", ("plain one",)),
        ("\u2168\u1680", ("\u2168\u1680", "IX ", "\u2168 ")),
        ("\u00e9", ("\u00e9",)),
        ("e\u0301", ("e\u0301", "\u00e9")),
        ("\U0001f600", ("\U0001f600",)),
        ("\u00ad", ("\u00ad",)),
        ("\x07", ("\x07",)),
        ("", ()),
    ],
)
def test_every_form_is_tried_once(text: str, forms: tuple[str, ...]) -> None:
    assert for_checking(text) == forms


def test_what_is_too_long_for_a_password_is_not_prepared() -> None:
    assert for_checking("\u2168" * LONGEST) == ("\u2168" * LONGEST, "IX" * LONGEST)
    assert for_checking("\u2168" * (LONGEST + 1)) == ("\u2168" * (LONGEST + 1),)


@given(ANY_TEXT)
def test_what_is_stored_can_be_checked(text: str) -> None:
    stored = for_storing(text)
    if stored is not None:
        assert stored in for_checking(text)
        assert stored in for_checking(stored)


@given(ANY_TEXT)
def test_no_form_is_empty_and_none_comes_twice(text: str) -> None:
    forms = for_checking(text)
    assert "" not in forms
    assert len(set(forms)) == len(forms)
    assert text == "" or forms[0] == text


@given(ANY_TEXT)
def test_what_has_nothing_left_is_blank(text: str) -> None:
    if saslprep(text) == "":
        assert is_blank(text)


# Rules ------------------------------------------------------------------------------------------------------------------------

RULES = Rules(min_length=8, max_length=12, blocked=frozenset({"password1"}))


@pytest.mark.parametrize(
    ("password", "judgement"),
    [
        ("1234567", Reason.PASSWORD_TOO_SHORT),
        ("12345678", "12345678"),
        ("123456789012", "123456789012"),
        ("1234567890123", Reason.PASSWORD_TOO_LONG),
        ("", Reason.MALFORMED),
        ("\u00ad" * 8, Reason.MALFORMED),
        ("\x07" * 8, Reason.MALFORMED),
        ("\u00ad2345678", Reason.PASSWORD_TOO_SHORT),  # seven are left
        ("\u2168" * 4, "IX" * 4),
        ("\u2168" * 7, Reason.PASSWORD_TOO_LONG),  # fourteen in the end
        ("Password1", Reason.PASSWORD_COMMON),
        ("\uff30assword1", Reason.PASSWORD_COMMON),  # full width
        ("password2", "password2"),
        ("\U0001f600" * 8, "\U0001f600" * 8),
    ],
)
def test_rules(password: str, judgement: str | Reason) -> None:
    assert RULES.judge(password) == judgement
    assert isinstance(RULES.judge(password), Reason) is isinstance(judgement, Reason)


@given(ANY_TEXT)
def test_what_the_rules_let_pass_keeps_them(password: str) -> None:
    judged = RULES.judge(password)
    if not isinstance(judged, Reason):
        assert 8 <= len(judged) <= 12
        assert for_storing(judged) is not None


# SCRAM ------------------------------------------------------------------------------------------------------------------------

# RFC 5802 section 5, RFC 7677 section 3; for the other two, what Strophe.js 5.0.0 makes of the former's salt.
VECTORS = [
    (Hash.SHA_1, "QSXCR+Q6sek8bf92", "6dlGYMOdZcOPutkcNY8U2g7vK9Y=", "D+CSWLOshSulAsxiupA+qs2/fTE="),
    (
        Hash.SHA_256,
        "W22ZaJ0SNY7soEsUEjb6gQ==",
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
    ),
    (
        Hash.SHA_384,
        "QSXCR+Q6sek8bf92",
        "6xW5xWA4KuzJ4CScOrlxBngu5klynGCqVz/aqDd2nALcr68DAqMtB1VaAgDnA8q8",
        "2tQBaEw74RFgwqVK4pYTkVwSLWUWWoqVVE9yD/Kc+jZPp0fdw3YKPFZqlIZALkkJ",
    ),
    (
        Hash.SHA_512,
        "QSXCR+Q6sek8bf92",
        "Lm7w6zPGAx+UoahlEm1whIN7PS1KGU+9+V5PyudK6c/mWVVtkXSCpVPmUKQLYDKR7v0uSkxrBzPm7HuSwZ/ytw==",
        "b/Ph5kGCpfdw2MyLh0C8l10iiFENloZLKPiJIHv57J3BRD9++4RvoYjTKhOehyHgJS/nsxnNB17UKgNU7nRy6g==",
    ),
]


@pytest.mark.parametrize(("family", "salt", "stored_key", "server_key"), VECTORS)
def test_scram_keys(family: Hash, salt: str, stored_key: str, server_key: str) -> None:
    made = scram.make(family, "pencil", base64.b64decode(salt), 4096)
    assert made.stored_key == base64.b64decode(stored_key)
    assert made.server_key == base64.b64decode(server_key)


@given(st.text(st.characters(codec="utf-8")), st.binary(min_size=1), st.sampled_from(Hash))
def test_scram_keys_are_those_of_the_standard_library(password: str, salt: bytes, family: Hash) -> None:
    salted = hashlib.pbkdf2_hmac(family.digest, password.encode(), salt, 3)
    client_key = hmac.digest(salted, b"Client Key", family.digest)
    made = scram.make(family, password, salt, 3)
    assert made.stored_key == hashlib.new(family.digest, client_key).digest()
    assert made.server_key == hmac.digest(salted, b"Server Key", family.digest)


SALT = b"0123456789abcdef"


def stored(password: str) -> bytes:
    return scram.make(Hash.SHA_256, password, SALT, 10).stored_key


def verify(password: str, *stored_keys: bytes) -> int | None:
    return scram.verify(Hash.SHA_256, for_checking(password), SALT, 10, stored_keys)


def test_a_password_is_found_among_the_credentials() -> None:
    keys = (stored("first"), stored("second"))
    assert verify("first", *keys) == 0
    assert verify("second", *keys) == 1
    assert verify("third", *keys) is None
    assert verify("first") is None


def test_any_form_of_the_password_may_have_been_stored() -> None:
    assert verify("\u2168", stored("IX")) == 0
    assert verify("\u2168", stored("\u2168")) == 0
    assert verify("IX", stored("\u2168")) is None


def test_iterations_and_salt_count() -> None:
    forms = ("pencil",)
    assert scram.verify(Hash.SHA_256, forms, SALT, 11, (stored("pencil"),)) is None
    assert scram.verify(Hash.SHA_256, forms, SALT[:-1], 10, (stored("pencil"),)) is None
    assert scram.verify(Hash.SHA_512, forms, SALT, 10, (stored("pencil"),)) is None


def test_salts_are_fresh() -> None:
    salts = {scram.new_salt() for _ in range(100)}
    assert len(salts) == 100
    assert {len(salt) for salt in salts} == {16}


def test_keys_are_not_shown() -> None:
    made = scram.make(Hash.SHA_256, "pencil", SALT, 10)
    assert repr(made) == "ScramKeys(...)"
