"""Backend `signed`: the tokens of xcauth and TalkJS, and what only looks like them."""

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import extauth_signed
import pytest
from extauth_signed import Config
from extauth_signed.formats import TalkJs, Xcauth
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from extauth.backend import BackendModule
from extauth.errors import ConfigError
from extauth.model import Accept, CheckPassword, CheckToken, Identity, Reason, Secret
from tests import jwts
from tests.contract import STRANGERS, WRONG
from tests.jwts import ALICE, BOB, NOBODY, START, Clock, Judge, judging, write_secret
from tests.sasl import VECTORS

MODULE = cast("BackendModule", extauth_signed)
SITE = b"01234"  # the secret of the vectors


def token(identity: Identity, expiry: int, secret: bytes = SITE, version: int = 0, keyed: bytes | None = None) -> str:
    """Make a token of xcauth, with what a test wants to be wrong about it."""
    signed = (hashlib.sha256(secret).digest()[:2] if keyed is None else keyed) + expiry.to_bytes(4)
    mac = hmac.digest(secret, bytes([version]) + signed + str(identity).encode(), "sha256")[:16]
    text = base64.b64encode(bytes([version]) + mac + signed).decode().rstrip("=")
    return text.translate(str.maketrans("OIl", "-$%"))


@pytest.fixture
async def xcauth(tmp: Path) -> AsyncIterator[Judge]:
    """Give a backend for xcauth's tokens with two secrets."""
    files = (write_secret(tmp / "a", "another fake"), write_secret(tmp / "b", SITE))
    async with judging(MODULE, Config(format="xcauth", secret_files=files), tmp) as judge:
        yield judge


@pytest.mark.parametrize("vector", VECTORS["xcauth_time_limited_token"], ids=lambda vector: vector["user"])
async def test_the_vectors_of_xcauth(xcauth: Judge, vector: dict[str, Any]) -> None:
    user = Identity(vector["user"], vector["domain"])
    assert token(user, vector["expiry"]) == vector["token"]  # the test's own, to be trusted below
    for now, said in ((vector["expiry"], user), (vector["expiry"] + 0.1, Reason.EXPIRED_TOKEN), (0, user)):
        xcauth.clock.time = now
        assert await xcauth.password(vector["token"], user) == await xcauth.token(vector["token"], user) == said
    xcauth.clock.time = 0
    assert await xcauth.password(vector["token"], ALICE) is Reason.BAD_TOKEN


async def test_a_token_is_for_one_user_of_one_domain(xcauth: Judge) -> None:
    text = token(ALICE, START)
    assert await xcauth.password(text) == ALICE
    assert await xcauth.password(text, BOB) is Reason.BAD_TOKEN
    assert await xcauth.token(text, NOBODY) is Reason.BAD_TOKEN
    for stranger in STRANGERS:
        assert await xcauth.password(text, stranger) is Reason.BAD_TOKEN
    assert await xcauth.ask(CheckToken(ALICE, jwts.BEARER, Secret(text))) == Accept(ALICE, {"login": "xcauth"})
    assert await xcauth.password(token(ALICE, START, b"another fake")) == ALICE
    assert await xcauth.password(token(ALICE, 2**32 - 1)) == ALICE  # beyond 2038
    assert await xcauth.password(token(NOBODY, START), NOBODY) is Reason.WRONG_TOKEN


async def test_every_changed_character_is_noticed(xcauth: Judge) -> None:
    text = token(ALICE, START + 5)
    for position in range(len(text)):
        for other in "A-%$z9":
            changed = text[:position] + other + text[position + 1 :]
            assert changed == text or await xcauth.password(changed) in (None, Reason.BAD_TOKEN)


async def test_what_is_no_token_is_left_to_others(xcauth: Judge) -> None:
    good = token(ALICE, START)
    others = [
        *WRONG,
        *(good[:-1], good + "A", good + "=", " " + good[1:], good[:30] + "\n", "a" * 31, "\u0662" * 31),
        token(ALICE, START, b"unknown secret"),  # a key id that is none of ours
        token(ALICE, START, version=1),
        good.translate(str.maketrans("-$%", "OIl")) + "=",
    ]
    for text in others:
        assert await xcauth.password(text) is None, text
    assert (
        await xcauth.password(token(ALICE, START, b"unknown secret", keyed=hashlib.sha256(SITE).digest()[:2]))
        is Reason.BAD_TOKEN
    )


@given(
    st.text(max_size=40)
    | st.binary(min_size=23, max_size=23).map(lambda data: base64.b64encode(b"\0" + data[1:]).decode()[:31])
)
def test_garbage_is_no_token(text: str) -> None:
    assert Xcauth([SITE]).judge(text, ALICE, 0) in (None, Reason.BAD_TOKEN)
    assert TalkJs([SITE]).judge(text, ALICE, 0) is None


async def test_the_vectors_of_talkjs(tmp: Path) -> None:
    vector = VECTORS["talkjs"]["signature"]
    user = Identity(vector["user_id"], "example.com")
    files = (write_secret(tmp / "a", "another fake"), write_secret(tmp / "b", vector["secret"]))
    with capture_logs() as logs:
        async with judging(MODULE, Config(format="talkjs", secret_files=files), tmp, Clock()) as judge:
            for text in (vector["hex_lower"], vector["hex_upper"]):
                assert await judge.password(text, user) == await judge.token(text, user) == user
                assert await judge.password(text, ALICE) is None
                assert await judge.password(text[:-1], user) is None
                assert await judge.token(text, NOBODY) is None
            escaped = hmac.new(vector["secret"].encode(), b"ann lee", "sha256").hexdigest()
            assert await judge.password(escaped, Identity(r"ann\20lee", "example.com")) == Identity(r"ann\20lee", "example.com")
    assert [(log["log_level"], "never expire" in log["event"]) for log in logs] == [("warning", True)]
    assert vector["secret"] not in str(logs)


async def test_what_it_handles(xcauth: Judge) -> None:
    assert xcauth.backend.handles == {CheckPassword, CheckToken}


async def test_secrets_must_be_there(tmp: Path) -> None:
    with pytest.raises(ValueError, match="secret_files: name at least one"):
        Config(format="xcauth", secret_files=())
    with pytest.raises(ConfigError, match=r"backend\.app\.secret_files: /nonexistent") as caught:
        async with judging(MODULE, Config(format="xcauth", secret_files=("/nonexistent", str(tmp / "no"))), tmp):
            pass
    assert len(caught.value.problems) == 2
