"""The tokens of X-OAUTH, byte for byte, and grants."""

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import extauth
from extauth.issuing import Login
from extauth.jid import InvalidName
from extauth.keystore import KEY_BYTES
from extauth.model import Identity
from extauth.tokens import credential, grant, xoauth
from extauth.tokens.kinds import KINDS
from extauth.tokens.xoauth import Sealed, Token
from tests.sasl import VECTORS

XOAUTH = VECTORS["mongooseim_x_oauth"]
ALICE = Identity("alice", "example.com")

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=50)
kinds = st.sampled_from(sorted(KINDS))
keys = st.binary(min_size=1, max_size=300)
times = st.integers(0, 1 << 40)


@st.composite
def tokens(draw: st.DrawFn) -> Token:
    kind = draw(kinds)
    fields = {name: str(draw(st.integers(0, 10**15 - 1))) if name == "seq" else draw(names) for name in KINDS[kind].fields}
    return Token(kind, draw(names), draw(times), fields)


def read(text: str) -> Sealed:
    sealed = xoauth.read(text)
    assert sealed is not None
    return sealed


@pytest.mark.parametrize("vector", XOAUTH["vectors"], ids=lambda vector: vector["name"])
def test_the_vectors_byte_for_byte(vector: dict[str, Any]) -> None:
    kind, jid, expires, *rest = vector["fields"]
    token = Token(kind, jid, int(expires) - xoauth.YEAR_ZERO, dict(zip(KINDS[kind].fields, rest, strict=True)))
    key = vector["key_utf8"].encode()
    text = xoauth.seal(token, key)
    assert text.encode().hex() == vector["serialized_hex"]
    assert xoauth.encode(text) == vector["token_b64"]
    assert xoauth.recognise(vector["token_b64"]) == text
    sealed = read(text)
    assert sealed.token == token
    assert sealed.body.hex() == vector["body_hex"]
    assert sealed.mac.hex() == vector["mac_hex"]
    assert sealed.is_by([b"another", key])
    assert not sealed.is_by([b"another"])
    assert token.owner == Identity("alice", "localhost")


def test_the_vector_with_a_bad_mac_is_not_by_the_key() -> None:
    text = xoauth.recognise(XOAUTH["bad_mac_b64"])
    assert text is not None
    assert not read(text).is_by([b"access_or_refresh"])


def test_the_offset_is_that_of_the_calendar() -> None:
    assert XOAUTH["epoch_offset_unix_to_gregorian"] == xoauth.YEAR_ZERO


@given(tokens(), keys, keys)
def test_what_is_sealed_can_be_read_and_is_by_its_key_alone(token: Token, key: bytes, other: bytes) -> None:
    text = xoauth.seal(token, key)
    assert xoauth.recognise(text) == text == xoauth.recognise(xoauth.encode(text))
    sealed = read(text)
    assert sealed.token == token
    assert sealed.is_by([key])
    # HMAC fills a short key up with zeros.
    assert sealed.is_by([other]) == (other.rstrip(b"\0") == key.rstrip(b"\0"))


@given(tokens(), keys, st.data())
def test_a_change_anywhere_is_found(token: Token, key: bytes, data: st.DataObject) -> None:
    text = xoauth.seal(token, key)
    place = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.characters(codec="utf-8"))
    changed = text[:place] + put + text[place + 1 :]
    sealed = xoauth.read(changed)
    same = changed == text or (changed.lower() == text.lower() and place >= len(text) - 96)  # hex digits have two cases
    assert same or sealed is None or not sealed.is_by([key])


@pytest.mark.parametrize(
    "code", ["", "f" * 94, "f" * 95, "f" * 98, "ff " * 32, "f" * 94 + "  ", "g" * 96, "\N{FULLWIDTH DIGIT ONE}" * 96]
)
def test_what_ends_in_no_mac_of_its_length_is_no_token(code: str) -> None:
    beginning = f"access\0alice@example.com\0{xoauth.YEAR_ZERO}"
    assert xoauth.read(f"{beginning}\0{'f' * 96}") is not None
    assert xoauth.read(f"{beginning}\0{code}") is None


@given(st.text())
def test_garbage_is_no_token(text: str) -> None:
    assert xoauth.read(text) is None


@given(
    st.lists(
        st.sampled_from(["access", "refresh", "guest", "", "a@b", "12", "\N{ARABIC-INDIC DIGIT ONE}", "-1", "f" * 96, "F" * 96])
    )
)
def test_garbage_of_fields_is_read_or_refused(fields: list[str]) -> None:
    sealed = xoauth.read("\0".join(fields))
    assert sealed is None or fields[0] in KINDS


@given(st.one_of(st.text(), st.binary().map(lambda data: base64.b64encode(data).decode())))
def test_nothing_but_a_kind_and_a_nul_is_taken_for_a_token(credential: str) -> None:
    assert xoauth.recognise(credential) is None


@given(st.sampled_from(["access", "YWNjZXNz", "YWNjZXNzAA", "cmVmcmVz", "Z3Vlc3QA"]), st.text())
def test_what_begins_like_a_token_is_read_or_refused(beginning: str, rest: str) -> None:
    text = xoauth.recognise(beginning + rest)
    assert text is None or xoauth.read(text) is None


@pytest.mark.parametrize(
    "credential", ["access", "accessible", "YWNjZXNz", "YWNjZXNzaWJsZQ==", "YWNjZXNzAGE", "YWNjZXNzAP8=", "YWNjZXNz\u00e9"]
)
def test_a_password_that_begins_alike_is_none_of_ours(credential: str) -> None:
    assert xoauth.recognise(credential) is None


@pytest.mark.parametrize("jid", ["", "alice", "@example.com", "alice@", "a b@example.com", "alice@exa mple"])
def test_a_token_that_names_nobody(jid: str) -> None:
    with pytest.raises(InvalidName):
        _ = Token("access", jid, 0, {}).owner


def test_a_full_jid_names_the_same_user_and_a_family() -> None:
    token = Token("access", "Alice@Example.com/a/b@c", 0, {})
    assert (token.owner, token.family) == (ALICE, "a/b@c")


def test_nothing_of_a_token_is_in_a_repr() -> None:
    text = xoauth.seal(Token("refresh", "alice@example.com", 1, {"seq": "1"}), b"key")
    assert "alice" not in repr(read(text))


# Grants -----------------------------------------------------------------------------------------------------------------------


@given(names, names, times, st.booleans(), keys, keys)
def test_a_grant_says_who_logged_in_and_how(user: str, domain: str, at: int, primary: bool, key: bytes, other: bytes) -> None:  # noqa: FBT001
    identity, login = Identity(user, domain), Login(at, grant.new_family(), primary)
    text = grant.seal(key, identity, login)
    assert grant.unseal(key, text) == (identity, login)
    if other.rstrip(b"\0") != key.rstrip(b"\0"):
        assert grant.unseal(other, text) is None


@given(st.text())
def test_garbage_is_no_grant(text: str) -> None:
    assert grant.unseal(b"key", text) is None


def test_which_logins_get_tokens() -> None:
    primary = grant.login_of({"group": "staff"}, 5)
    assert primary is not None
    assert primary.primary
    assert grant.login_of({}, 5) != primary  # every login has a family of its own
    assert grant.login_of({"login": "token", "family": "f"}, 5) == Login(5, "f", primary=False)
    assert grant.login_of({"login": "token"}, 5) is None  # somebody else's token
    assert grant.login_of({"login": "guest", "family": "f"}, 5) is None
    assert grant.login_of({"login": "anonymous"}, 5) is None


def test_what_is_random_has_128_bits() -> None:
    secret = credential.make("app").text.reveal().rpartition("-")[2]
    assert re.fullmatch("[a-z2-7]+", secret)
    assert len(secret) * 5 >= 128
    assert len(base64.urlsafe_b64decode(f"{grant.new_family()}==")) * 8 >= 128
    assert KEY_BYTES * 8 >= 128
    sources = [path.read_text() for path in (Path(extauth.__file__).parent).rglob("*.py")]
    assert not [source for source in sources if re.search(r"^\s*(import|from) random\b", source, re.MULTILINE)]  # `secrets`
