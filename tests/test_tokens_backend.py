"""Backend `tokens`: who may log in by which token where, and what is issued to whom."""

import base64
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
from extauth_tokens.config import Config
from msgspec.structs import replace

from extauth.errors import ConfigError
from extauth.issuing import InspectToken, IssueCredential, IssueToken, IssueTokens, Login, StartRelogin
from extauth.model import (
    Accept,
    CheckPassword,
    CheckToken,
    Identity,
    Origin,
    Reason,
    Reject,
    Request,
    Secret,
    Tokens,
)
from extauth.soon import settle
from extauth.store import Row
from extauth.tokens import grant, xoauth
from extauth.tokens.kinds import DAY, HOUR, KINDS, TOKEN_SECRET
from extauth.tokens.xoauth import Token
from tests.fakes import log_kept
from tests.sasl import VECTORS
from tests.tokenscene import ALICE, BEARER, BOB, NOBODY, PLAIN, START, X_OAUTH, Clock, Scene, parsed, scene_of


@pytest.fixture
async def scene(state: str) -> AsyncIterator[Scene]:
    async with scene_of(state, Config()) as scene:
        yield scene


@pytest.fixture
async def classic(state: str) -> AsyncIterator[Scene]:
    async with scene_of(state, Config(mode="mongooseim")) as scene:
        yield scene


# Logins -----------------------------------------------------------------------------------------------------------------------


async def test_what_a_primary_login_gets(scene: Scene) -> None:
    login = scene.primary()
    tokens = await scene.issue(login)
    access, refresh = parsed(tokens["access"]), parsed(tokens["refresh"])
    assert access == Token("access", f"alice@example.com/{login.family}", START + HOUR, {})
    assert refresh == Token("refresh", f"alice@example.com/{login.family}", START + 25 * DAY, {"seq": "1"})


@pytest.mark.parametrize("origin", [X_OAUTH, BEARER, PLAIN], ids=lambda origin: origin.mechanism)
async def test_an_access_token_logs_in_by_anything(scene: Scene, origin: Origin) -> None:
    tokens = await scene.issue()
    for identity in (ALICE, NOBODY) if origin is not PLAIN else (ALICE,):
        answer = await scene.login(tokens["access"], origin, identity)
        family = parsed(tokens["access"]).family
        assert answer == Accept(ALICE, {"login": "token", "expires": str(START + HOUR), "family": family})


async def test_a_refresh_token_logs_in_only_where_its_successor_can_be_given(scene: Scene) -> None:
    refresh = (await scene.issue())["refresh"]
    for origin in (BEARER, PLAIN, Origin("front", mechanism="X-OAUTH2"), Origin("front")):
        assert await scene.refused(refresh, origin, ALICE) is Reason.WRONG_TOKEN
    await scene.use(refresh)  # none of these has used it up


async def test_a_token_is_for_its_user_and_domain_alone(scene: Scene) -> None:
    tokens = await scene.issue()
    assert await scene.refused(tokens["access"], BEARER, BOB) is Reason.WRONG_TOKEN
    assert await scene.refused(tokens["access"], PLAIN, BOB) is Reason.WRONG_TOKEN
    assert await scene.refused(tokens["access"], X_OAUTH, Identity("", "example.org")) is Reason.BAD_TOKEN
    key = await scene.keys.signing("example.org", TOKEN_SECRET, 0)
    foreign = xoauth.encode(xoauth.seal(parsed(tokens["access"]), key))
    assert await scene.refused(foreign, X_OAUTH, Identity("", "example.org")) is Reason.WRONG_TOKEN


async def test_a_kind_is_never_taken_for_another(scene: Scene) -> None:
    tokens = await scene.issue()
    for text in (base64.b64decode(token).decode() for token in tokens.values()):
        for kind in KINDS:
            changed = "\0".join([kind, *text.split("\0")[1:]])
            if changed != text:
                assert await scene.refused(xoauth.encode(changed)) is Reason.BAD_TOKEN
        assert isinstance(await scene.login(xoauth.encode(text)), Accept)


@pytest.mark.parametrize("credential", ["correct horse", "access", "YWNjZXNz", "eyJhbGciOiJIUzI1NiJ9.e30.x", "\u2603"])
async def test_what_is_no_token_of_ours_is_left_to_others(scene: Scene, credential: str) -> None:
    assert await scene.ask(CheckPassword(ALICE, PLAIN, Secret(credential))) is None
    assert await scene.ask(CheckToken(ALICE, BEARER, Secret(credential))) is None


@pytest.mark.parametrize("text", ["access\0", "refresh\0\0\0", "access\0alice@example.com\x001\0" + "0" * 96])
async def test_what_looks_like_one_is_left_to_nobody(scene: Scene, text: str) -> None:
    assert await scene.refused(xoauth.encode(text)) is Reason.BAD_TOKEN
    assert await scene.refused(xoauth.encode(text), PLAIN, ALICE) is Reason.BAD_TOKEN


async def test_expiry_is_strict_and_the_clock_may_jump(scene: Scene) -> None:
    tokens = await scene.issue()
    scene.clock.time = START + HOUR - 0.5
    assert isinstance(await scene.login(tokens["access"]), Accept)
    scene.clock.time = START + HOUR
    assert await scene.refused(tokens["access"]) is Reason.EXPIRED_TOKEN
    scene.clock.time = START - HOUR  # back before it was issued: nothing says when that was
    assert isinstance(await scene.login(tokens["access"]), Accept)


async def test_expiries_beyond_2038_and_32_bits(scene: Scene) -> None:
    scene.clock.time = float(1 << 32)
    tokens = await scene.issue()
    assert isinstance(await scene.login(tokens["access"]), Accept)
    assert parsed(await scene.use(tokens["refresh"])).expires == (1 << 32) + 25 * DAY


# Rotation ---------------------------------------------------------------------------------------------------------------------


async def test_each_use_gives_the_next(scene: Scene) -> None:
    refresh = (await scene.issue())["refresh"]
    for number in (2, 3, 4):
        scene.clock.time += DAY
        refresh = await scene.use(refresh)
        token = parsed(refresh)
        assert (token.number, token.expires) == (number, int(scene.clock.time) + 25 * DAY)


async def test_a_used_token_ends_the_family(scene: Scene) -> None:
    first = await scene.issue()
    second = await scene.use(first["refresh"])
    third = await scene.use(second)
    assert await scene.refused(first["refresh"]) is Reason.TOKEN_REUSED
    assert await scene.refused(third) is Reason.TOKEN_REUSED
    assert await scene.sessions() == []
    answer = await scene.ask(IssueTokens(ALICE, X_OAUTH, Login(0, parsed(third).family, primary=False)))
    assert answer == Reject(Reason.TOKEN_REUSED)


async def test_a_lost_successor_is_given_again_within_grace(scene: Scene) -> None:
    first = (await scene.issue())["refresh"]
    second = await scene.use(first)
    for later in (0.0, 5.0, 4.9):
        scene.clock.time += later
        assert await scene.use(first) == second
    third = await scene.use(second)  # the client has it after all
    assert await scene.refused(first) is Reason.TOKEN_REUSED
    assert await scene.refused(third) is Reason.TOKEN_REUSED


async def test_grace_ends(scene: Scene) -> None:
    first = (await scene.issue())["refresh"]
    second = await scene.use(first)
    scene.clock.time += 10
    assert await scene.refused(first) is Reason.TOKEN_REUSED
    assert await scene.refused(second) is Reason.TOKEN_REUSED


async def test_grace_is_counted_from_the_first_use(scene: Scene) -> None:
    first = (await scene.issue())["refresh"]
    await scene.use(first)
    scene.clock.time += 6
    await scene.use(first)
    scene.clock.time += 6
    assert await scene.refused(first) is Reason.TOKEN_REUSED


async def test_no_grace(state: str) -> None:
    async with scene_of(state, Config(grace=0)) as scene:
        first = (await scene.issue())["refresh"]
        await scene.use(first)
        assert await scene.refused(first) is Reason.TOKEN_REUSED


async def test_grace_outlasts_a_node_whose_clock_is_behind_but_not_a_jump(scene: Scene) -> None:
    first = (await scene.issue())["refresh"]
    second = await scene.use(first)
    scene.clock.time -= 5
    assert await scene.use(first) == second
    scene.clock.time -= HOUR
    assert await scene.refused(first) is Reason.TOKEN_REUSED


async def test_a_family_ends_whatever_is_done(scene: Scene) -> None:
    refresh = (await scene.issue())["refresh"]
    for _ in range(4):
        scene.clock.time += 20 * DAY
        refresh = await scene.use(refresh)
    assert parsed(refresh).expires == START + 90 * DAY
    tokens = await scene.issue(Login(0, parsed(refresh).family, primary=False))
    scene.clock.time = START + 90 * DAY - 60
    tokens = await scene.issue(Login(0, parsed(refresh).family, primary=False))
    assert parsed(tokens["access"]).expires == START + 90 * DAY
    scene.clock.time += 60
    assert await scene.refused(refresh) is Reason.EXPIRED_TOKEN
    again = await scene.ask(IssueTokens(ALICE, X_OAUTH, Login(0, parsed(refresh).family, primary=False)))
    assert again == Reject(Reason.EXPIRED_TOKEN)


async def test_a_token_of_mongooseim_names_no_family(scene: Scene) -> None:
    key = await scene.keys.signing("example.com", TOKEN_SECRET, START + DAY)
    for jid in ("alice@example.com", "alice@example.com/laptop"):
        refresh = xoauth.encode(xoauth.seal(Token("refresh", jid, START + DAY, {"seq": "1"}), key))
        assert await scene.refused(refresh) is Reason.UNKNOWN_FAMILY


# Who may ask ------------------------------------------------------------------------------------------------------------------


async def test_who_logged_in_by_a_token_gets_those_of_its_family(scene: Scene) -> None:
    first = await scene.issue()
    answer = await scene.login(first["access"])
    assert isinstance(answer, Accept)
    login = grant.login_of(answer.attributes, int(scene.clock.time * 1000))
    assert login is not None
    assert not login.primary
    again = await scene.issue(login)
    assert again["refresh"] == first["refresh"]  # it is the one that lives
    assert len(await scene.sessions()) == 1


async def test_a_login_that_asks_twice_has_one_family(scene: Scene) -> None:
    login = scene.primary()
    assert await scene.issue(login) == await scene.issue(login)
    assert len(await scene.sessions()) == 1


async def test_another_user_can_not_have_a_family(scene: Scene) -> None:
    login = scene.primary()
    await scene.issue(login)
    for primary, reason in ((True, Reason.TOKEN_REVOKED), (False, Reason.UNKNOWN_FAMILY)):
        answer = await scene.ask(IssueTokens(BOB, X_OAUTH, Login(login.at, login.family, primary)))
        assert answer == Reject(reason)


async def test_a_login_from_before_the_revocation_begins_none(scene: Scene) -> None:
    login = scene.primary()
    await scene.issue(device="laptop")
    assert await scene.end() == 1
    later = await scene.issue(device="laptop")
    assert await scene.ask(IssueTokens(ALICE, PLAIN, login, "laptop")) == Reject(Reason.TOKEN_REVOKED)
    await scene.use(later["refresh"])  # nor does it end one


async def test_a_device_has_one_family(scene: Scene) -> None:
    first = await scene.issue(device="laptop")
    phone = await scene.issue(device="phone")
    second = await scene.issue(device="laptop")
    assert await scene.refused(first["refresh"]) is Reason.TOKEN_REVOKED
    for tokens in (phone, second):
        await scene.use(tokens["refresh"])
    assert {session.attributes["device"] for session in await scene.sessions()} == {"laptop", "phone"}


async def test_one_session_too_many_ends_the_oldest(state: str) -> None:
    async with scene_of(state, Config(max_sessions=2)) as scene:
        tokens: list[str] = []
        with log_kept() as log:
            for number in range(4):
                scene.clock.time += 1
                tokens.append((await scene.issue())["refresh"])
                assert log.getvalue().count("a session too many ended the oldest") == max(0, number - 1)
        assert [await scene.refused(token) for token in tokens[:2]] == [Reason.TOKEN_REVOKED] * 2
        for token in tokens[2:]:
            await scene.use(token)
        await scene.issue(identity=BOB)
        assert len(await scene.sessions()) == 2


async def test_what_a_device_replaces_does_not_count(state: str) -> None:
    async with scene_of(state, Config(max_sessions=2)) as scene:
        phone = (await scene.issue(device="phone"))["refresh"]
        for _ in range(3):
            scene.clock.time += 1
            await scene.issue(device="laptop")
        await scene.use(phone)


@pytest.mark.parametrize(("device", "good"), [("\u00fc" * 511 + "x", True), ("\u00fc" * 512, False), ("a\0b", False)])
@pytest.mark.parametrize("mode", ["rotating", "mongooseim"])
async def test_a_device_has_no_endless_name(
    state: str,
    mode: Literal["rotating", "mongooseim"],
    device: str,
    good: bool,  # noqa: FBT001
) -> None:
    async with scene_of(state, Config(mode=mode)) as scene:
        requests: list[Request] = [
            IssueTokens(ALICE, PLAIN, scene.primary(), device),
            StartRelogin(ALICE, PLAIN, scene.primary(), device),
            IssueCredential(ALICE, PLAIN, "temporary", device),
            IssueCredential(ALICE, PLAIN, "fast", device, mechanism="HT-SHA-256-NONE"),
        ]
        for request in requests:
            answer = await scene.ask(request)
            assert isinstance(answer, Tokens) if good else answer == Reject(Reason.MALFORMED)


# Revocation -------------------------------------------------------------------------------------------------------------------


async def test_a_family_that_begins_while_its_user_is_revoked_is_stillborn(scene: Scene) -> None:
    """PostgreSQL lets a row be inserted that the revocation, a moment before, could not see."""
    tokens = await scene.issue()
    session = Login(0, parsed(tokens["refresh"]).family, primary=False)
    for name in ("", "alice"):
        horizon = (name, int(scene.clock.time * 1000))
        await scene.store.write(
            ("INSERT INTO token_horizon (domain, name, not_before, seq) VALUES ('example.com', $1, $2, 1)", horizon)
        )
        assert await scene.sessions() == []
        assert await scene.refused(tokens["refresh"]) is Reason.TOKEN_REVOKED
        assert await scene.ask(IssueTokens(ALICE, X_OAUTH, session)) == Reject(Reason.TOKEN_REVOKED)
        await scene.store.write(("DELETE FROM token_horizon", ()))
    await scene.use(tokens["refresh"])


async def of_three(scene: Scene) -> dict[str, str]:
    """Return refresh tokens of alice's two devices and of bob."""
    return {
        "laptop": (await scene.issue(device="laptop"))["refresh"],
        "phone": (await scene.issue(device="phone"))["refresh"],
        "bob": (await scene.issue(identity=BOB, device="laptop"))["refresh"],
    }


@pytest.mark.parametrize(
    ("identity", "family", "device", "gone"),
    [
        (ALICE, "laptop", "", ["laptop"]),
        (ALICE, "", "laptop", ["laptop"]),
        (ALICE, "", "tablet", []),
        (ALICE, "bob", "", []),
        (ALICE, "", "", ["laptop", "phone"]),
        (NOBODY, "", "", ["laptop", "phone", "bob"]),
        (Identity("", "example.org"), "", "", []),
    ],
    ids=["family", "device", "other-device", "other-user", "user", "domain", "other-domain"],
)
async def test_revocation(scene: Scene, identity: Identity, family: str, device: str, gone: list[str]) -> None:
    tokens = await of_three(scene)
    named = parsed(tokens[family]).family if family else ""
    assert await scene.end(identity, family=named, device=device) == len(gone)
    for name, token in tokens.items():
        if name in gone:
            assert await scene.refused(token) is Reason.TOKEN_REVOKED
        else:
            await scene.use(token)
    for user in (ALICE, BOB):
        await scene.use((await scene.issue(identity=user))["refresh"])  # a new login is let in


@pytest.mark.parametrize("revocable", [False, True])
async def test_access_tokens_outlive_it_unless_they_are_revocable(state: str, revocable: bool) -> None:  # noqa: FBT001
    async with scene_of(state, Config(revocable_access=revocable)) as scene:
        first, other = await scene.issue(device="laptop"), await scene.issue(device="phone")
        assert isinstance(await scene.login(first["access"]), Accept)
        await scene.end(device="laptop")
        assert isinstance(await scene.login(first["access"]), Accept) is not revocable
        assert isinstance(await scene.login(other["access"]), Accept)
        await scene.end(NOBODY)
        assert isinstance(await scene.login(other["access"]), Accept) is not revocable


# As MongooseIM does -----------------------------------------------------------------------------------------------------------


async def test_mode_mongooseim(classic: Scene) -> None:
    tokens = await classic.issue()
    assert parsed(tokens["access"]) == Token("access", "alice@example.com", START + HOUR, {})
    assert parsed(tokens["refresh"]) == Token("refresh", "alice@example.com", START + 25 * DAY, {"seq": "1"})
    for _ in range(3):
        access = await classic.use(tokens["refresh"])
        assert parsed(access).kind == "access"
        assert isinstance(await classic.login(access), Accept)
    await classic.end()
    assert await classic.refused(tokens["refresh"]) is Reason.TOKEN_REVOKED
    fresh = (await classic.issue())["refresh"]
    assert parsed(fresh).number == 2
    await classic.end(NOBODY)
    assert await classic.refused(fresh) is Reason.TOKEN_REVOKED
    assert parsed((await classic.issue())["refresh"]).number == 3


async def test_it_may_return_a_refresh_token(state: str) -> None:
    async with scene_of(state, Config(mode="mongooseim", refresh_returns="refresh")) as scene:
        refresh = (await scene.issue())["refresh"]
        scene.clock.time += DAY
        assert parsed(await scene.use(refresh)) == Token("refresh", "alice@example.com", START + 26 * DAY, {"seq": "1"})


async def test_access_tokens_of_mongooseim_may_be_revocable(state: str) -> None:
    async with scene_of(state, Config(mode="mongooseim", revocable_access=True)) as scene:
        access = (await scene.issue())["access"]
        assert isinstance(await scene.login(access), Accept)
        await scene.end(BOB)
        assert isinstance(await scene.login(access), Accept)
        await scene.end()
        assert await scene.refused(access) is Reason.TOKEN_REVOKED
        scene.clock.time += 1
        assert isinstance(await scene.login((await scene.issue())["access"]), Accept)


async def test_who_logs_in_by_an_access_token_of_before_gets_none_that_outlive_it(classic: Scene) -> None:
    old = (await classic.issue())["access"]
    accepted = await classic.login(old)
    assert isinstance(accepted, Accept)
    login = grant.login_of(accepted.attributes, int(classic.clock.time * 1000))
    assert login is not None
    assert parsed((await classic.issue(login))["refresh"]).number == 1
    await classic.end()
    accepted = await classic.login(old)
    assert isinstance(accepted, Accept)  # it is not revocable
    login = grant.login_of(accepted.attributes, int(classic.clock.time * 1000))
    assert login is not None
    assert await classic.ask(IssueTokens(ALICE, PLAIN, login)) == Reject(Reason.TOKEN_REVOKED)
    classic.clock.time += 1
    fresh = await classic.login((await classic.issue())["access"])
    assert isinstance(fresh, Accept)
    login = grant.login_of(fresh.attributes, int(classic.clock.time * 1000))
    assert login is not None
    assert parsed((await classic.issue(login))["refresh"]).number == 2


@pytest.mark.parametrize("revoked", [ALICE, NOBODY], ids=["user", "all"])
async def test_a_shorter_lifetime_saves_no_older_token_from_revocation(state: str, revoked: Identity) -> None:
    """Tokens don't say when they were issued: of one with a lifetime of before, it looks later than it was."""
    clock = Clock()
    before = Config(mode="mongooseim", revocable_access=True)
    after = dataclasses.replace(before, access_lifetime=600)
    async with scene_of(state, before, clock) as old, scene_of(state, after, clock) as new:
        refresh = (await old.issue())["refresh"]
        tokens = [(await old.issue())["access"], await old.use(refresh)]
        clock.time += 600
        logins = [await new.login(access) for access in tokens]
        assert all(isinstance(login, Accept) for login in logins)
        await new.end(revoked)
        clock.time += 1000
        for scene in (old, new):
            for access in tokens:
                assert await scene.refused(access) is Reason.TOKEN_REVOKED
        assert isinstance(await old.login((await old.issue())["access"]), Accept)

        # Once no token of before can live, what is issued after a revocation is good at once.
        clock.time += 2 * HOUR
        await new.end(revoked)
        clock.time += 1
        assert isinstance(await new.login((await new.issue())["access"]), Accept)


async def test_a_shorter_lifetime_gives_no_older_token_others(state: str) -> None:
    clock = Clock()
    before = Config(mode="mongooseim")
    async with (
        scene_of(state, before, clock) as old,
        scene_of(state, dataclasses.replace(before, access_lifetime=600), clock) as new,
    ):
        access = (await old.issue())["access"]
        clock.time += 600
        await new.end()
        clock.time += 1000
        accepted = await new.login(access)
        assert isinstance(accepted, Accept)  # it is not revocable
        login = grant.login_of(accepted.attributes, int(clock.time * 1000))
        assert login is not None
        assert await new.ask(IssueTokens(ALICE, PLAIN, login)) == Reject(Reason.TOKEN_REVOKED)
        assert parsed((await new.issue())["refresh"]).number == 2  # after a login by password


async def test_a_longer_lifetime_saves_no_token_either(state: str) -> None:
    clock = Clock()
    before = Config(mode="mongooseim", revocable_access=True)
    async with (
        scene_of(state, before, clock) as old,
        scene_of(state, dataclasses.replace(before, access_lifetime=7200), clock) as new,
    ):
        tokens = [(await scene.issue())["access"] for scene in (old, new)]
        clock.time += 600
        await new.end()
        clock.time += 1
        for scene in (old, new):
            for access in tokens:
                assert await scene.refused(access) is Reason.TOKEN_REVOKED


async def test_a_lifetime_is_written_down_once_in_a_while(classic: Scene) -> None:
    async def latest() -> list[Row]:
        return await settle(classic.store.read("SELECT seconds, latest FROM token_lifetime"))

    await classic.issue()
    assert await latest() == [(HOUR, START + 2 * HOUR)]
    classic.clock.time += HOUR
    await classic.issue()
    assert await latest() == [(HOUR, START + 2 * HOUR)]
    classic.clock.time += 1
    await classic.issue()
    assert await latest() == [(HOUR, START + 3 * HOUR + 1)]


async def test_a_login_from_before_the_revocation_gets_none(classic: Scene) -> None:
    login = classic.primary()
    await classic.end()
    assert await classic.ask(IssueTokens(ALICE, PLAIN, login)) == Reject(Reason.TOKEN_REVOKED)


async def test_the_vectors_log_in(tmp: Path, state: str) -> None:
    for name in ("access_or_refresh", "provision"):
        (tmp / name).write_text(name)
        (tmp / name).chmod(0o600)
    secret, shared = str(tmp / "access_or_refresh"), str(tmp / "provision")
    config = Config(mode="mongooseim", token_secret_file=secret, provision_pre_shared_file=shared)
    localhost = Identity("", "localhost")
    async with scene_of(state, config) as scene:
        for vector in VECTORS["mongooseim_x_oauth"]["vectors"]:
            answer = await scene.login(vector["token_b64"], X_OAUTH, localhost)
            assert isinstance(answer, Accept)
            assert answer.identity == Identity("alice", "localhost")
            assert (answer.payload is not None) == vector["name"].startswith("refresh")
        assert await scene.refused(VECTORS["mongooseim_x_oauth"]["bad_mac_b64"], X_OAUTH, localhost) is Reason.BAD_TOKEN


# Other kinds ------------------------------------------------------------------------------------------------------------------


async def make(scene: Scene, kind: str, lifetime: int = 0, **fields: str) -> str:
    answer = await scene.ask(IssueToken(Identity("visitor", "example.com"), PLAIN, kind, fields, lifetime))
    assert isinstance(answer, Tokens)
    return answer.tokens[kind].reveal()


async def test_a_guest_is_let_in_only_where_its_limits_are_enforced(scene: Scene) -> None:
    token = await make(scene, "guest", rooms="lobby@rooms.example.com")
    for origin in (X_OAUTH, BEARER):
        assert await scene.refused(token, origin) is Reason.NOT_ENFORCED
    answer = await scene.ask(CheckToken(NOBODY, Origin("front", mechanism="OAUTHBEARER", enforces=True), Secret(token)))
    assert isinstance(answer, Accept)
    expected = {"login": "guest", "role": "guest", "may-change-account": "no", "rooms": "lobby@rooms.example.com"}
    assert answer.attributes == {**expected, "expires": str(START + 8 * HOUR)}
    assert grant.login_of(answer.attributes, 0) is None


async def test_a_provision_token_logs_in_by_x_oauth(scene: Scene) -> None:
    token = await make(scene, "provision", vcard="<vCard xmlns='vcard-temp'/>")
    answer = await scene.login(token)
    assert isinstance(answer, Accept)
    assert grant.login_of(answer.attributes, 0) is None
    assert await scene.refused(token, BEARER) is Reason.WRONG_TOKEN


async def test_a_one_time_token_logs_in_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extauth_tokens.keeper.KINDS", {**KINDS, "provision": replace(KINDS["provision"], one_time=True)})
    token = await make(scene, "provision", vcard="")
    assert isinstance(await scene.login(token), Accept)
    assert await scene.refused(token) is Reason.TOKEN_REUSED
    upper = base64.b64decode(token).decode()
    assert await scene.refused(xoauth.encode(upper[:-96] + upper[-96:].upper())) is Reason.TOKEN_REUSED


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        ("access", {}, Reason.NOT_SUPPORTED),
        ("refresh", {"seq": "1"}, Reason.NOT_SUPPORTED),
        ("novelty", {}, Reason.NOT_SUPPORTED),
        ("guest", {}, Reason.MALFORMED),
        ("guest", {"rooms": "a\0b"}, Reason.MALFORMED),
        ("guest", {"rooms": "", "seq": "1"}, Reason.MALFORMED),
    ],
)
async def test_what_can_not_be_made(scene: Scene, kind: str, fields: dict[str, str], reason: Reason) -> None:
    assert await scene.ask(IssueToken(ALICE, PLAIN, kind, fields)) == Reject(reason)


async def test_inspection_uses_nothing_up(scene: Scene) -> None:
    async def state(token: str) -> str:
        answer = await scene.ask(InspectToken(NOBODY, PLAIN, Secret(token)))
        return answer.attributes["state"] if isinstance(answer, Accept) else str(answer)

    tokens = await scene.issue()
    assert [await state(token) for token in tokens.values()] == ["ok", "ok"]
    second = await scene.use(tokens["refresh"])
    assert await state(tokens["refresh"]) == "token-reused"
    assert await state(second) == "ok"
    await scene.end()
    assert await state(second) == "token-revoked"
    assert await state(tokens["access"]) == "ok"
    assert await scene.ask(InspectToken(NOBODY, PLAIN, Secret("access\0"))) == Reject(Reason.BAD_TOKEN)


# The configuration ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"grace": 11}, "grace"),
        ({"access_lifetime": 0}, "access_lifetime"),
        ({"access_lifetime": 30 * DAY}, "in order"),
        ({"session_lifetime": DAY}, "in order"),
        ({"max_sessions": 0}, "max_sessions"),
        ({"token_secret_file": "/dev/null"}, "no families"),
    ],
)
def test_what_makes_no_sense(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Config(**values)  # type: ignore[arg-type]


async def test_keys_in_files_that_can_not_be_used(tmp: Path, state: str) -> None:
    (tmp / "open").write_text("fake key")
    (tmp / "open").chmod(0o644)
    config = Config(mode="mongooseim", token_secret_file=str(tmp / "open"), provision_pre_shared_file=str(tmp / "nowhere"))
    with pytest.raises(ConfigError) as caught:
        async with scene_of(state, config):
            pass
    assert len(caught.value.problems) == 2
