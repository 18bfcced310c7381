"""Relogin keys: the rules of Resgate's client sessions, cookies, and what a page does whose reply got lost."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jwt
import pytest
import trio
from extauth_tokens.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extauth.issuing import EndSessions, InspectToken, Login, Relogin, StartRelogin
from extauth.model import VIA, Accept, Answer, CheckPassword, CheckToken, Identity, Reason, Reject, Secret, Tokens
from extauth.tokens import relogin
from extauth.tokens.grant import FAMILY, login_of
from extauth.tokens.kinds import RELOGIN_SECRET
from extauth.tokens.relogin import FORMS, Key
from tests.daemons import Daemon
from tests.test_tokens_crash import Link
from tests.test_tokens_daemon import configuration, run
from tests.tokenscene import ALICE, BEARER, BOB, NOBODY, PLAIN, START, X_OAUTH, Clock, Scene, scene_of

LIFETIME = 120
WHOLE = 30 * LIFETIME  # of a session, however often it is used
COOKIE = "sid=fake-cookie"


RULES = Config(
    access_lifetime=60, refresh_lifetime=60, session_lifetime=WHOLE, relogin_lifetime=LIFETIME, grace=0
)  # fmt: skip


class Page(NamedTuple):
    """A web page that holds a relogin key."""

    scene: Scene
    key: str

    async def use(self, cookie: str | None = None) -> "Page | Reason":
        return taken(self.scene, await self.scene.ask(Relogin(NOBODY, PLAIN, Secret(self.key), secret(cookie))))

    async def next(self, cookie: str | None = None) -> "Page":
        given = await self.use(cookie)
        assert isinstance(given, Page), given
        assert given.key != self.key
        return given


def secret(text: str | None) -> Secret | None:
    return None if text is None else Secret(text)


def taken(scene: Scene, answer: Answer | None) -> Page | Reason:
    if isinstance(answer, Reject):
        return answer.reason
    assert isinstance(answer, Tokens), answer
    assert answer.identity == ALICE
    return Page(scene, answer.tokens["relogin"].reveal())


async def start(scene: Scene, cookie: str | None = None, *, device: str = "") -> Page:
    page = taken(scene, await scene.ask(StartRelogin(ALICE, PLAIN, scene.primary(), device, secret(cookie))))
    assert isinstance(page, Page)
    return page


@pytest.fixture(params=["opaque", "jwt"])
async def strict(state: str, request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    """Give the rules of Resgate."""
    async with scene_of(state, replace(RULES, relogin_key=request.param)) as scene:
        yield scene


@pytest.fixture(params=["opaque", "jwt"])
async def lenient(state: str, request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    """Give ten seconds for lost replies."""
    async with scene_of(state, replace(RULES, grace=10, relogin_key=request.param)) as scene:
        yield scene


# What Resgate's session service does -----------------------------------------------------------------------------------------


async def test_each_key_is_good_for_one_relogin(strict: Scene) -> None:
    page = await start(strict)
    for _ in range(5):
        page = await page.next()
    assert len(await strict.sessions()) == 1


async def test_an_unknown_key_is_refused_and_disposes_nothing(strict: Scene) -> None:
    page = await start(strict)
    changed = page.key[:-2] + ("AA" if page.key[-2:] != "AA" else "BB")
    for invented in ("", "fake", f"erk-{'A' * 22}-1-{'A' * 43}", changed):
        assert await Page(strict, invented).use() is Reason.BAD_TOKEN
    key = Key(ALICE, "A" * 22, 1, START + 60)
    genuine = await strict.keys.signing("example.com", RELOGIN_SECRET, 0)
    for form in FORMS.values():
        assert await Page(strict, form(key, genuine).reveal()).use() is Reason.UNKNOWN_FAMILY
        assert await Page(strict, form(key, b"another fake key of thirty-two bytes").reveal()).use() is Reason.BAD_TOKEN
    await page.next()


@pytest.mark.parametrize("age", [1, 2, 4])
async def test_a_known_old_key_disposes_the_session(strict: Scene, age: int) -> None:
    pages = [await start(strict)]
    other = await start(strict)
    for _ in range(4):
        pages.append(await pages[-1].next())
    assert await pages[-1 - age].use() is Reason.TOKEN_REUSED
    assert await pages[-1].use() is Reason.TOKEN_REUSED
    assert await strict.sessions() != []
    await other.next()


async def test_the_right_key_logs_in_from_anywhere(state: str) -> None:
    """The session is bound to no connection: another node takes the next key."""
    clock = Clock()
    async with scene_of(state, RULES, clock) as one, scene_of(state, RULES, clock) as other:
        page = await start(one)
        for scene in (other, one, other):
            page = Page(scene, (await page.next()).key)


async def test_it_slides_and_ends(strict: Scene) -> None:
    page = await start(strict)
    for _ in range(3):
        strict.clock.time += LIFETIME - 1
        (session,) = await strict.sessions()
        page = await page.next()
        (later,) = await strict.sessions()
        assert int(later.attributes["ends"]) - int(session.attributes["ends"]) == LIFETIME - 1
    strict.clock.time += LIFETIME
    assert await page.use() is Reason.EXPIRED_TOKEN
    assert await strict.sessions() == []
    await start(strict)  # which also forgets it
    assert await page.use() is Reason.UNKNOWN_FAMILY


async def test_it_ends_whatever_is_done(strict: Scene) -> None:
    page = await start(strict)
    while strict.clock.time < START + WHOLE - LIFETIME / 2:
        strict.clock.time += LIFETIME / 2
        page = await page.next()
    (session,) = await strict.sessions()
    assert session.attributes["ends"] == str(START + WHOLE)
    strict.clock.time = START + WHOLE
    assert await page.use() is Reason.EXPIRED_TOKEN


async def test_an_old_key_past_its_time_disposes_the_session_too(strict: Scene) -> None:
    first = await start(strict)
    page = await first.next()
    for _ in range(5):
        strict.clock.time += LIFETIME - 1
        page = await page.next()
    assert await first.use() is Reason.TOKEN_REUSED
    assert await page.use() is Reason.TOKEN_REUSED


async def test_a_stolen_key(strict: Scene) -> None:
    """The thief is quicker. The page comes back with the same key as soon as it may, and both are out."""
    page = await start(strict)
    thief = await page.next()
    thief = await thief.next()
    assert await page.use() is Reason.TOKEN_REUSED
    assert await thief.use() is Reason.TOKEN_REUSED


async def test_logout(strict: Scene) -> None:
    page, other = await start(strict), await start(strict)
    page = await page.next()
    found = await strict.ask(InspectToken(NOBODY, PLAIN, Secret(page.key)))
    assert isinstance(found, Accept)
    assert (found.identity, found.attributes["kind"], found.attributes["state"]) == (ALICE, "relogin", "ok")
    assert await strict.end(family=found.attributes[FAMILY]) == 1
    assert await page.use() is Reason.TOKEN_REVOKED
    await other.next()


async def test_what_is_told_of_keys(strict: Scene) -> None:
    first = await start(strict)
    second = await first.next()

    async def state(page: Page) -> str:
        answer = await strict.ask(InspectToken(NOBODY, PLAIN, Secret(page.key)))
        return answer.attributes["state"] if isinstance(answer, Accept) else str(answer)

    assert [await state(page) for page in (first, second)] == ["token-reused", "ok"]
    await second.next()  # to be asked about is no use
    await strict.end()
    assert await state(second) == "token-revoked"
    assert await strict.ask(InspectToken(NOBODY, PLAIN, Secret(f"erk-{'A' * 22}-1-{'A' * 43}"))) == Reject(Reason.BAD_TOKEN)


@pytest.mark.parametrize("end", [EndSessions(ALICE, PLAIN, "test"), EndSessions(NOBODY, PLAIN, "test")], ids=["user", "all"])
async def test_it_ends_with_everything_of_the_user(strict: Scene, end: EndSessions) -> None:
    page, login = await start(strict), strict.primary()
    strict.clock.time += 1
    await strict.ask(end)
    assert await page.use() is Reason.TOKEN_REVOKED
    assert await strict.ask(StartRelogin(ALICE, PLAIN, login)) == Reject(Reason.TOKEN_REVOKED)


# A lost reply ----------------------------------------------------------------------------------------------------------------


async def test_within_grace_the_same_key_is_given_again(lenient: Scene) -> None:
    page = await start(lenient)
    lost = await page.next()
    lenient.clock.time += 9
    assert (await page.next()).key == lost.key
    assert await (await lost.next()).use() != lost
    assert await page.use() is Reason.TOKEN_REUSED


async def test_after_grace_a_lost_reply_costs_the_session(lenient: Scene) -> None:
    page = await start(lenient)
    lost = await page.next()
    lenient.clock.time += 10
    assert await page.use() is Reason.TOKEN_REUSED
    assert await lost.use() is Reason.TOKEN_REUSED


async def test_within_grace_a_thief_and_the_page_still_meet(lenient: Scene) -> None:
    page = await start(lenient)
    stolen = await page.next()
    same = await page.next()
    await stolen.next()
    lenient.clock.time += 10
    assert await same.use() is Reason.TOKEN_REUSED
    assert await lenient.sessions() == []


@pytest.mark.parametrize("grace", [0, 10])
async def test_of_many_relogins_at_once_one_wins(state: str, grace: int) -> None:
    clock, given = Clock(), list[Page | Reason]()
    async with (
        scene_of(state, replace(RULES, grace=grace), clock) as one,
        scene_of(state, replace(RULES, grace=grace), clock) as other,
    ):
        page = await start(one)

        async def use(scene: Scene) -> None:
            given.append(await Page(scene, page.key).use())

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(use, (one, other)[number % 2])
        pages = [found for found in given if isinstance(found, Page)]
        assert len({page.key for page in pages}) == 1
        assert len(pages) == (100 if grace else 1)
        assert len(await one.sessions()) == (1 if grace else 0)


# Cookies ---------------------------------------------------------------------------------------------------------------------


async def test_without_the_cookie_it_is_refused_and_nothing_is_disposed(strict: Scene) -> None:
    first = await start(strict, COOKIE)
    page = await first.next(COOKIE)
    for wrong in (None, "", "sid=another"):
        assert await page.use(wrong) is Reason.WRONG_TOKEN
        assert await first.use(wrong) is Reason.WRONG_TOKEN  # nor by an old key
    page = await page.next(COOKIE)
    assert await first.use(COOKIE) is Reason.TOKEN_REUSED
    assert await page.use(COOKIE) is Reason.TOKEN_REUSED


async def test_a_session_without_a_cookie_minds_none(strict: Scene) -> None:
    await (await start(strict)).next(COOKIE)


async def test_a_cookie_may_be_demanded(state: str) -> None:
    async with scene_of(state, replace(RULES, bind_cookie=True)) as scene:
        assert await scene.ask(StartRelogin(ALICE, PLAIN, scene.primary())) == Reject(Reason.MALFORMED)
        await (await start(scene, COOKIE)).next(COOKIE)


async def test_cookies_and_keys_are_not_stored(tmp: Path) -> None:
    async with scene_of(f"sqlite://{tmp}/state/state.db", RULES) as scene:
        page = await start(scene, COOKIE)
    data = b"".join(path.read_bytes() for path in (tmp / "state").iterdir())
    assert COOKIE.encode() not in data
    assert page.key.encode() not in data
    assert page.key.encode()[-43:] not in data


# Any story -------------------------------------------------------------------------------------------------------------------

GRACE = 10


@dataclass
class Told:
    """A session as the rules tell it, and all keys there ever were: the first is number 1."""

    cookie: str | None
    keys: list[str]
    made: int
    ends: int
    rotated: int = -1000
    lives: bool = True

    def use(self, number: int, cookie: str | None, now: int) -> int | None:
        """Return the number of the key that is given; None: it is refused."""
        if not self.lives or now >= self.ends or self.cookie not in (None, cookie):
            return None
        last = len(self.keys)
        if number == last:
            self.rotated, self.ends = now, min(now + LIFETIME, self.made + 4 * LIFETIME)
            return last + 1
        if number == last - 1 and abs(now - self.rotated) < GRACE:
            return last
        self.lives = False
        return None


@given(data=st.data())
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("form", ["opaque", "jwt"])
def test_sessions_are_as_the_rules_say(
    new_state: Callable[[], str], form: Literal["opaque", "jwt"], data: st.DataObject
) -> None:
    config = replace(RULES, grace=GRACE, relogin_key=form, session_lifetime=4 * LIFETIME)

    async def play() -> None:
        async with scene_of(new_state(), config) as scene:
            told: list[Told] = []
            for cookie in (None, COOKIE):
                page = await start(scene, cookie)
                told.append(Told(cookie, [page.key], START, START + LIFETIME))
            for _ in range(data.draw(st.integers(5, 30))):
                scene.clock.time += data.draw(st.sampled_from([0, 0, 0.4, 1, GRACE - 1, GRACE, LIFETIME - 1, LIFETIME]))
                session = data.draw(st.sampled_from(told))
                back = data.draw(st.sampled_from([0, 0, 0, 0, 1, 1, 2, 5]))
                number = max(len(session.keys) - back, 1)
                cookie = data.draw(st.sampled_from([COOKIE, COOKIE, COOKIE, None]))
                key = session.keys[number - 1]
                expected = session.use(number, cookie, int(scene.clock.time))
                given = await Page(scene, key).use(cookie)
                assert isinstance(given, Page) == (expected is not None), (given, expected)
                if isinstance(given, Page) and expected == len(session.keys) + 1:
                    assert given.key not in session.keys
                    session.keys.append(given.key)
                elif isinstance(given, Page):
                    assert given.key == session.keys[-1]
                ends = sorted(session.ends for session in told if session.lives and scene.clock.time < session.ends)
                assert sorted(int(found.attributes["ends"]) for found in await scene.sessions()) == ends

    trio.run(play)


# Who gets one, and where it logs in ------------------------------------------------------------------------------------------


async def test_only_a_primary_login_begins_one(strict: Scene) -> None:
    assert await strict.ask(StartRelogin(ALICE, PLAIN, Login(0, "A" * 22, primary=False))) == Reject(Reason.NOT_ALLOWED)


async def test_it_takes_no_turns_with_refresh_tokens(strict: Scene) -> None:
    """Both of one login: each has a session of its own."""
    login = strict.primary()
    refresh = (await strict.issue(login))["refresh"]
    page = taken(strict, await strict.ask(StartRelogin(ALICE, PLAIN, login)))
    assert isinstance(page, Page)
    await strict.use(refresh)
    await page.next()
    assert len(await strict.sessions()) == 2


async def test_it_logs_in_by_x_oauth_where_the_next_can_be_returned(strict: Scene) -> None:
    page = await start(strict)
    for asked, key in ((ALICE, BEARER), (ALICE, PLAIN)):
        request = CheckPassword(asked, key, Secret(page.key)) if key is PLAIN else CheckToken(asked, key, Secret(page.key))
        assert await strict.ask(request) == Reject(Reason.WRONG_TOKEN)
    assert await strict.ask(CheckToken(BOB, X_OAUTH, Secret(page.key))) == Reject(Reason.WRONG_TOKEN)
    answer = await strict.ask(CheckToken(NOBODY, X_OAUTH, Secret(page.key)))
    assert isinstance(answer, Accept)
    assert (answer.identity, answer.attributes[VIA]) == (ALICE, "relogin")
    assert answer.payload is not None
    assert login_of(answer.attributes, START * 1000) is None  # no tokens come of it
    await Page(strict, answer.payload.reveal()).next()
    assert await strict.ask(CheckToken(NOBODY, X_OAUTH, Secret(page.key))) == Reject(Reason.TOKEN_REUSED)


async def test_where_a_cookie_is_needed_x_oauth_is_refused(strict: Scene) -> None:
    page = await start(strict, COOKIE)
    assert await strict.ask(CheckToken(NOBODY, X_OAUTH, Secret(page.key))) == Reject(Reason.WRONG_TOKEN)
    await page.next(COOKIE)


async def test_it_is_of_its_domain_alone(strict: Scene) -> None:
    page = await start(strict)
    other = Identity("", "example.org")
    value = await strict.keys.signing("example.com", RELOGIN_SECRET, 0)
    for imported in (False, True):
        if imported:  # the same key for two domains
            await strict.keys.add("example.org", RELOGIN_SECRET, value)
        assert await strict.ask(Relogin(other, PLAIN, Secret(page.key))) == Reject(Reason.BAD_TOKEN)
    await page.next()


async def test_it_counts_among_the_users_sessions_and_devices(state: str) -> None:
    async with scene_of(state, replace(RULES, max_sessions=2)) as scene:
        pages: list[Page] = []
        for device in ("", "", "", "tab", "tab"):
            scene.clock.time += 1
            pages.append(await start(scene, device=device))
        lives = [isinstance(await page.use(), Page) for page in pages]
        assert lives == [False, False, True, False, True]


async def test_keys_outlive_a_rotation_of_what_signs_them(strict: Scene) -> None:
    page = await start(strict)
    await strict.keys.add("example.com", RELOGIN_SECRET)
    page = await page.next()
    await page.next()


# The texts -------------------------------------------------------------------------------------------------------------------

SECRET = b"a fake key that is long enough!!"
FAMILIES = st.text("ABCxyz019-_", min_size=22, max_size=22)


@given(FAMILIES, st.integers(1, 10**15 - 1), st.sampled_from(sorted(FORMS)))
def test_what_is_made_is_read(family: str, number: int, form: str) -> None:
    text = FORMS[form](Key(ALICE, family, number, START), SECRET).reveal()
    claim = relogin.recognise(text)
    assert claim is not None
    assert (claim.family, claim.number) == (family, number)
    assert claim.is_by("example.com", [b"another fake key of 32 bytes....", SECRET])
    assert not claim.is_by("example.com", [b"another fake key of 32 bytes...."])
    assert not claim.is_by("xample.com", [SECRET])
    assert text not in repr(claim)


def test_a_jwt_tells_what_the_page_needs() -> None:
    text = FORMS["jwt"](Key(ALICE, "A" * 22, 7, START), SECRET).reveal()
    assert jwt.get_unverified_header(text) == {"alg": "HS256", "typ": "relogin+jwt"}
    claims = jwt.decode(text, options={"verify_signature": False})
    assert claims == {"sub": "alice@example.com", "sid": "A" * 22, "seq": 7, "exp": START}


def test_what_a_jwt_says_of_its_end_is_for_the_page_alone() -> None:
    """Whether its session lives, the store knows; and an old key has to be known again when it is old."""
    claim = relogin.recognise(FORMS["jwt"](Key(ALICE, "A" * 22, 7, 1), SECRET).reveal())
    assert claim is not None
    assert claim.is_by("example.com", [SECRET])


def _forged(claims: dict[str, object], algorithm: str = "HS256") -> str:
    return jwt.encode(claims, SECRET if algorithm == "HS256" else "", algorithm, {"typ": "relogin+jwt"})


@pytest.mark.parametrize(
    "text",
    [
        _forged({"sub": "alice@example.com", "sid": "A" * 22, "seq": 1}, "none"),
        _forged({"sid": "A" * 22, "seq": 1}),
        _forged({"sub": 7, "sid": "A" * 22, "seq": 1}),
        _forged({"sub": "alice@example.org", "sid": "A" * 22, "seq": 1}),
    ],
    ids=["none", "no sub", "number", "domain"],
)
def test_what_nobody_has_signed_so_is_no_key(text: str) -> None:
    claim = relogin.recognise(text)
    assert claim is not None
    assert not claim.is_by("example.com", [SECRET])


@given(st.text() | st.from_regex(r"erk-[A-Za-z0-9_-]{21,23}-[0-9]{1,16}-[A-Za-z0-9_-]{42,44}\n?"))
def test_only_the_whole_form_is_recognised(text: str) -> None:
    claim = relogin.recognise(text)
    if claim is not None:
        assert text.startswith("erk-")
        assert text.isascii()
        assert not claim.is_by("example.com", [SECRET])


@given(
    st.dictionaries(
        st.sampled_from(["sub", "sid", "seq", "exp", "nbf", "aud"]), st.none() | st.booleans() | st.integers() | st.text()
    )
)
def test_any_claims_end_in_yes_or_no(claims: dict[str, object]) -> None:
    signed: Callable[..., str] = jwt.encode
    claim = relogin.recognise(signed(claims, SECRET, "HS256", {"typ": "relogin+jwt"}, json.JSONEncoder))
    assert claim is not None
    claim.is_by("example.com", [SECRET])


# The command line ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def daemon(tmp: Path) -> Iterator[Daemon]:
    with Daemon(tmp, configuration(tmp, "grace = 0")) as daemon:
        run(daemon, "user add alice@xmpp.test --password-stdin", stdin="fake password")
        yield daemon


def test_from_the_command_line(daemon: Daemon) -> None:
    key = json.loads(run(daemon, "session start alice@xmpp.test --json"))["relogin"]
    login = "login alice@xmpp.test --mechanism X-OAUTH --password-stdin"
    assert "state: ok" in run(daemon, "token inspect", stdin=key)
    assert "accept (ok)" in run(daemon, login, stdin=key)
    assert "reject (token-reused)" in run(daemon, login, stdin=key, status=77)
    bound = json.loads(run(daemon, "session start alice@xmpp.test --cookie --json", stdin=COOKIE))["relogin"]
    assert "reject (wrong-token)" in run(daemon, login, stdin=bound, status=77)
    assert run(daemon, "token revoke", stdin=bound) == "alice@xmpp.test: 1 sessions ended\n"
    run(daemon, "session start nobody@xmpp.test", status=67)
    for text in (key, bound, COOKIE):
        assert text not in daemon.log()


def test_by_a_program_of_the_site(daemon: Daemon) -> None:
    admin = Link(daemon.folder / "admin.sock")

    def perform(verb: str, **fields: str | int) -> dict[str, Any]:
        admin.say(json.dumps({"verb": verb, **fields}))
        reply: dict[str, Any] = json.loads(admin.line())
        return reply

    first = perform("session-start", jid="alice@xmpp.test", cookie=COOKIE)["result"]
    second = perform("session-relogin", domain="xmpp.test", token=first["relogin"], cookie=COOKIE)["result"]
    assert (second["jid"], second["family"]) == ("alice@xmpp.test", first["family"])
    (decision,) = perform("audit-tail", seen=-1)["result"]["decisions"]
    assert (decision["operation"], decision["user"], decision["result"]) == ("relogin", "alice@xmpp.test", "accept")
    assert perform("session-relogin", domain="xmpp.test", token=second["relogin"])["reason"] == "wrong-token"
    assert perform("session-relogin", domain="xmpp.test", token=first["relogin"], cookie=COOKIE)["reason"] == "token-reused"
    assert perform("session-start", jid="nobody@xmpp.test")["reason"] == "no-user"
    admin.close()
