"""Families of tokens: a model beside the store, and many at once."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest
import trio
from extauth_tokens.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extauth.issuing import IssueTokens, Login
from extauth.model import Accept, Answer, Identity, Reason, Reject, Tokens
from extauth.tokens import xoauth
from extauth.tokens.kinds import DAY, HOUR
from tests.tokenscene import ALICE, BOB, NOBODY, PLAIN, Clock, Scene, parsed, scene_of

GRACE = 10
CAP = 3
RULES = Config(
    access_lifetime=HOUR,
    refresh_lifetime=2 * DAY,
    session_lifetime=5 * DAY,
    grace=GRACE,
    max_sessions=CAP,
    revocable_access=True,
)


# A model of what should happen ------------------------------------------------------------------------------------------------


@dataclass
class Family:
    """What the model knows of a family."""

    owner: Identity
    device: str
    order: int
    proven: float
    ends: int
    number: int = 1
    expires: int = 0
    rotated: int = -1000
    lives: bool = True


class Model:
    """The rules once more, in plain words, over plain values."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.families: dict[str, Family] = {}
        self._not_before: dict[Identity, float] = {}

    @property
    def now(self) -> int:
        return int(self._clock.time)

    def lives(self, family: str) -> bool:
        known = self.families.get(family)
        return known is not None and known.lives and self.now < known.ends

    def issue(self, owner: Identity, login: Login, device: str) -> Family | None:
        """Return the family that a login has then; None if it gets nothing."""
        if login.family not in self.families:
            since = max(self._not_before.get(owner, 0), self._not_before.get(NOBODY, 0))
            if not login.primary or login.at <= since:
                return None
            ends = self.now + RULES.session_lifetime
            self.families[login.family] = Family(owner, device, len(self.families), login.at, ends)
        family = self.families[login.family]
        if family.owner != owner or not self.lives(login.family):
            return None
        if login.primary:
            self._end(
                f for f in self.families.values() if device and f.device == device and f.owner == owner and f is not family
            )
            others = [f for name, f in self.families.items() if f.owner == owner and f is not family and self.lives(name)]
            self._end(sorted(others, key=lambda f: -f.order)[CAP - 1 :])
        if family.expires <= self.now:
            family.expires = min(self.now + RULES.refresh_lifetime, family.ends)
        return family

    def use(self, token: xoauth.Token) -> Family | None:
        """Return the family after a login by a refresh token; None if it is refused."""
        family = self.families[token.family]
        if self.now >= token.expires or not self.lives(token.family):
            return None
        if token.number == family.number:
            family.number, family.rotated = family.number + 1, self.now
            family.expires = min(self.now + RULES.refresh_lifetime, family.ends)
            return family
        if token.number == family.number - 1 and abs(self.now - family.rotated) < GRACE:
            return family
        family.lives = False
        return None

    def revoke(self, owner: Identity, family: str, device: str) -> int:
        """End what is named; return how many lived by the store's book."""
        ms = self._clock.time * 1000
        if not family and not device:
            self._not_before[owner] = ms
        return self._end(
            f
            for name, f in self.families.items()
            if owner in (NOBODY, f.owner) and (not family or name == family) and (not device or f.device == device)
        )

    def _end(self, families: Iterable[Family]) -> int:
        living = [family for family in families if family.lives]
        for family in living:
            family.lives = False
        return len(living)


class Play:
    """The real thing and the model, step by step."""

    def __init__(self, scene: Scene, data: st.DataObject) -> None:
        self.scene = scene
        self.data = data
        self.model = Model(scene.clock)
        self.logins: list[tuple[Identity, Login]] = []
        self.refresh: list[str] = []
        self.access: list[str] = []

    async def login(self) -> None:
        self.scene.clock.time += 0.002
        self.logins.append((self.data.draw(st.sampled_from([ALICE, BOB])), self.scene.primary()))

    async def issue(self) -> None:
        """Ask for tokens: of a login of now or earlier, or of one by a token."""
        fresh: bool = self.data.draw(st.booleans())
        if not self.logins or fresh:
            await self.login()
        owner, login = self.data.draw(st.sampled_from(self.logins[-5:]))
        by_token: bool = self.data.draw(st.booleans())
        if self.access and by_token:
            login = Login(login.at, parsed(self.data.draw(st.sampled_from(self.access))).family, primary=False)
        device = self.data.draw(st.sampled_from(["", "laptop", "phone"]))
        self.scene.clock.time += 0.002  # which of two is older must be certain
        expected = self.model.issue(owner, login, device)
        answer = await self.scene.ask(IssueTokens(owner, PLAIN, login, device))
        assert isinstance(answer, Tokens) == (expected is not None), (answer, expected)
        if isinstance(answer, Tokens) and expected is not None:
            refresh = answer.tokens["refresh"].reveal()
            assert (parsed(refresh).number, parsed(refresh).expires) == (expected.number, expected.expires)
            self.access.append(answer.tokens["access"].reveal())
            self.refresh.append(refresh)

    async def use(self) -> None:
        """Log in by any refresh token there ever was."""
        if not self.refresh:
            return
        token = self.data.draw(st.one_of(st.sampled_from(self.refresh[-3:]), st.sampled_from(self.refresh)))
        expected = self.model.use(parsed(token))
        answer = await self.scene.login(token)
        assert isinstance(answer, Accept) == (expected is not None), (answer, expected)
        if isinstance(answer, Accept) and expected is not None:
            assert answer.payload is not None
            successor = xoauth.encode(answer.payload.reveal())
            assert (parsed(successor).number, parsed(successor).expires) == (expected.number, expected.expires)
            self.refresh.append(successor)

    async def revoke(self) -> None:
        """End one family, a device's, a user's or everybody's."""
        self.scene.clock.time += 0.002
        owner = self.data.draw(st.sampled_from([ALICE, ALICE, BOB, NOBODY]))
        family = device = ""
        if owner is not NOBODY and self.data.draw(st.booleans()):
            device = self.data.draw(st.sampled_from(["laptop", "phone"]))
        elif owner is not NOBODY and self.refresh and self.data.draw(st.booleans()):
            family = parsed(self.data.draw(st.sampled_from(self.refresh))).family
        self.model.revoke(owner, family, device)
        await self.scene.end(owner, family=family, device=device)

    async def wait(self) -> None:
        self.scene.clock.time += self.data.draw(st.sampled_from([0.5, 1, 1, GRACE - 1, GRACE, HOUR, DAY]))

    async def check(self) -> None:
        """What must always hold."""
        for token in self.access:
            dead = self.scene.clock.time >= parsed(token).expires or not self.model.lives(parsed(token).family)
            assert isinstance(await self.scene.login(token), Reject) == dead
        listed = {
            session.attributes["session"]: int(session.attributes["number"])
            for user in (ALICE, BOB)
            for session in await self.scene.sessions(user)
        }
        living = {name: family.number for name, family in self.model.families.items() if self.model.lives(name)}
        assert listed == living
        assert all(count <= CAP for count in Counter(self.model.families[name].owner for name in living).values())


@given(data=st.data())
@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
def test_families_are_as_the_model_says(new_state: Callable[[], str], data: st.DataObject) -> None:
    async def play() -> None:
        async with scene_of(new_state(), RULES) as scene:
            play = Play(scene, data)
            steps = [play.issue] * 4 + [play.use] * 5 + [play.wait] * 3 + [play.revoke]
            for step in data.draw(st.lists(st.sampled_from(steps), min_size=20, max_size=50)):
                await step()
                await play.check()

    trio.run(play)


# Many at once -----------------------------------------------------------------------------------------------------------------


async def all_at_once(scenes: list[Scene], token: str, count: int = 200) -> list[Answer | None]:
    """Log in by one refresh token, from all daemons in turn."""
    answers: list[Answer | None] = []

    async def use(scene: Scene) -> None:
        answers.append(await scene.login(token))

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(use, scenes[number % len(scenes)])
    return answers


@pytest.mark.parametrize("daemons", [1, 2])
async def test_of_many_uses_at_once_one_wins(state: str, daemons: int) -> None:
    clock, config = Clock(), Config(grace=0)
    async with scene_of(state, config, clock) as one, scene_of(state, config, clock) as other:
        refresh = (await one.issue())["refresh"]
        answers = await all_at_once([one, other][:daemons], refresh)
        won = [answer for answer in answers if isinstance(answer, Accept)]
        assert len(won) == 1
        refusals = Counter(answer.reason for answer in answers if isinstance(answer, Reject))
        assert refusals == {Reason.TOKEN_REUSED: 199}
        assert await one.sessions() == []
        assert won[0].payload is not None
        assert await other.refused(xoauth.encode(won[0].payload.reveal())) is Reason.TOKEN_REUSED


@pytest.mark.parametrize("daemons", [1, 2])
async def test_within_grace_all_get_the_same_successor(state: str, daemons: int) -> None:
    clock = Clock()
    async with scene_of(state, Config(), clock) as one, scene_of(state, Config(), clock) as other:
        refresh = (await one.issue())["refresh"]
        answers = await all_at_once([one, other][:daemons], refresh)
        given = {answer.payload.reveal() for answer in answers if isinstance(answer, Accept) and answer.payload}
        assert len(given) == 1
        assert all(isinstance(answer, Accept) for answer in answers)
        (session,) = await one.sessions()
        assert session.attributes["number"] == "2"
        await other.use(xoauth.encode(given.pop()))


async def test_a_revocation_wins_every_race(state: str) -> None:
    """Whatever is answered before or after it: when it is acknowledged, nothing of before lives."""
    clock = Clock()
    async with scene_of(state, Config(revocable_access=True), clock) as one, scene_of(state, Config(), clock) as other:
        given: list[str] = []
        logins = [one.primary() for _ in range(20)]
        clock.time += 0.01

        async def chain(scene: Scene, login: Login) -> None:
            answer = await scene.ask(IssueTokens(ALICE, PLAIN, login))
            while isinstance(answer, Tokens | Accept):
                if isinstance(answer, Tokens):
                    token = answer.tokens["refresh"].reveal()
                else:
                    assert answer.payload is not None
                    token = xoauth.encode(answer.payload.reveal())
                given.append(token)
                answer = await scene.login(token)

        async with trio.open_nursery() as nursery:
            for number, login in enumerate(logins):
                nursery.start_soon(chain, (one, other)[number % 2], login)
            await trio.sleep(0.05)
            await one.end()
        assert await one.sessions() == []
        for token in given[-60:]:
            assert isinstance(await other.login(token), Reject)
        for login in logins:
            assert isinstance(await one.ask(IssueTokens(ALICE, PLAIN, login)), Reject)
