"""Logins judged by stored values, and a queue that delays nobody else."""

import threading
from collections.abc import Iterator

import pytest
import structlog
import trio
import trio.testing

from extauth.errors import BackendDown
from extauth.model import Accept, CheckPassword, Decoy, FindKeys, Identity, Keys, Origin, Reason, Reject, Secret
from extauth.passwords import scram, stored
from extauth.passwords.scram import Hash
from extauth.passwords.stored import Stored, make
from extauth.threads import Threads
from extauth.verifier import Verifier

ALICE = Identity("alice", "example.com")
ORIGIN = Origin("test")
SCRAM = [make(f"scram-{family}", "right one", (4096,)) for family in ("sha-1", "sha-256")]
ARGON2 = make("argon2id", "right one", (1024, 1, 1))
QUICK = make("ssha512", "another one")
MD5 = "$1$fakesalt$" + "x" * 22
PLAIN = frozenset({"plain"})


@pytest.fixture
def threads() -> Iterator[Threads]:
    """Give a crew of two."""
    with Threads("password", 2, 10) as threads:
        yield threads


@pytest.fixture
def verifier(threads: Threads) -> Verifier:
    """Give one that allows nothing weak."""
    return Verifier("people", threads)


def check(password: str) -> CheckPassword:
    return CheckPassword(ALICE, ORIGIN, Secret(password))


@pytest.mark.parametrize("values", [[ARGON2], SCRAM, ["garbage", ARGON2], [ARGON2, "{CRAM-MD5}00"]], ids=len)
async def test_one_of_the_values_has_to_match(verifier: Verifier, values: list[str]) -> None:
    assert await verifier.check(check("right one"), values, {"role": "admin"}) == Accept(ALICE, {"role": "admin"})
    assert await verifier.check(check("wrong one"), values) == Reject(Reason.BAD_PASSWORD)


@pytest.mark.parametrize("values", [[], [""], ["garbage"], ["right one"], ["{PLAIN}right one"], ["!" + ARGON2]])
async def test_what_cannot_be_judged_by_matches_nothing(verifier: Verifier, values: list[str]) -> None:
    assert await verifier.check(check("right one"), values) == Reject(Reason.BAD_PASSWORD)
    # nor does the decoy that is spent on it, which is by now a value of somebody's
    await verifier.check(check("right one"), [ARGON2])
    assert await verifier.check(check("right one"), values) == Reject(Reason.BAD_PASSWORD)


async def test_weak_schemes_are_judged_by_where_they_are_allowed(threads: Threads) -> None:
    verifier = Verifier("people", threads, PLAIN)
    assert await verifier.check(check("right one"), ["right one"]) == Accept(ALICE)
    assert await verifier.check(check("wrong one"), ["right one"]) == Reject(Reason.BAD_PASSWORD)


async def test_a_password_is_tried_as_it_came_and_prepared(threads: Threads) -> None:
    verifier = Verifier("people", threads, PLAIN)
    assert await verifier.check(check("a\u00a0b"), ["a b"]) == Accept(ALICE)
    assert await verifier.check(check("a\u00a0b"), ["a\u00a0b"]) == Accept(ALICE)


async def test_only_who_knows_the_password_is_told_the_refusal(verifier: Verifier) -> None:
    assert await verifier.check(check("right one"), [ARGON2], refusal=Reason.DISABLED) == Reject(Reason.DISABLED)
    assert await verifier.check(check("wrong one"), [ARGON2], refusal=Reason.DISABLED) == Reject(Reason.BAD_PASSWORD)


async def test_keys_are_those_of_the_hash_that_is_asked_for(verifier: Verifier) -> None:
    for family in (Hash.SHA_1, Hash.SHA_256):
        keys = verifier.keys(FindKeys(ALICE, ORIGIN, family.value), [ARGON2, *SCRAM], {"role": "admin"}, Reason.DISABLED)
        assert isinstance(keys, Keys)
        assert (keys.identity, keys.backend, keys.refusal) == (ALICE, "people", Reason.DISABLED)
        assert keys.attributes == {"role": "admin"}
        stored_keys = tuple(candidate.stored_key for candidate in keys.candidates)
        assert scram.verify(family, ("right one",), keys.salt, keys.iterations, stored_keys) == 0
    assert verifier.keys(FindKeys(ALICE, ORIGIN, "SHA-512"), SCRAM) is None
    assert verifier.keys(FindKeys(ALICE, ORIGIN, "SHA-1"), [ARGON2, "garbage"]) is None


async def test_a_decoy_costs_what_the_last_value_does(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[str] = []
    verify = Stored.verify

    def noted(self: Stored, forms: tuple[str, ...]) -> bool:
        spent.append(self.scheme)
        return verify(self, forms)

    monkeypatch.setattr(stored.Stored, "verify", noted)
    decoy = Decoy(ALICE, ORIGIN, Secret("right one"))
    assert await verifier.decoy(decoy) == Reject(Reason.NO_USER)
    await verifier.check(check("wrong one"), [ARGON2])
    assert await verifier.decoy(decoy) == Reject(Reason.NO_USER)
    await verifier.check(check("wrong one"), ["garbage"])
    assert spent == ["scram-sha-256", "argon2id", "argon2id", "argon2id"]


async def test_a_value_that_cannot_be_used_is_told_once_a_minute(
    verifier: Verifier, autojump_clock: trio.testing.MockClock
) -> None:
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            await verifier.check(check("right one"), ["{PLAIN}right one"])
        assert lines == [
            {
                "event": "a stored password can't be used",
                "log_level": "warning",
                "backend": "people",
                "user": "alice@example.com",
                "problem": "plain: weak, and not among the weak schemes that are allowed",
                "unsaid": 0,
            }
        ]
        await trio.sleep(61)
        await verifier.check(check("right one"), ["{CRAM-MD5}0123456789abcdef"])
        assert (lines[1]["problem"], lines[1]["unsaid"]) == ("{CRAM-MD5}: not supported", 2)
        assert len(lines) == 2


async def test_what_is_quick_waits_for_no_thread(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = float("inf")
    finish = threading.Event()
    with Threads("password", 1, 3) as threads:
        verifier = Verifier("people", threads, frozenset({"plain", "md5-crypt"}))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(threads.run, lambda: finish.wait(60))
            await trio.testing.wait_all_tasks_blocked()
            assert await verifier.check(check("right one"), ["{PLAIN}right one"]) == Accept(ALICE)
            assert await verifier.check(check("wrong one"), [QUICK]) == Reject(Reason.BAD_PASSWORD)
            assert await verifier.decoy(Decoy(ALICE, ORIGIN, Secret("right one"))) == Reject(Reason.NO_USER)
            autojump_clock.autojump_threshold = 0
            for values in ([ARGON2], [QUICK, ARGON2], [MD5]):
                with pytest.raises(BackendDown):
                    await verifier.check(check("right one"), values)
            with pytest.raises(BackendDown):  # whose preparation takes long if it is long
                await verifier.check(check("r\u00efght one"), [QUICK])
            finish.set()


async def test_a_hundred_slow_hashes_delay_no_other_login(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = float("inf")
    running = threading.Semaphore(0)
    finish = threading.Event()

    def slow(self: Stored, forms: tuple[str, ...]) -> bool:
        running.release()
        return finish.wait(60)

    monkeypatch.setattr(stored.Stored, "verify", slow)
    outcomes: list[object] = []

    async def login(verifier: Verifier) -> None:
        try:
            outcomes.append(await verifier.check(check("right one"), [ARGON2]))
        except BackendDown as down:
            outcomes.append(str(down))

    with Threads("password", 2, 3) as threads:
        verifier = Verifier("people", threads)
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(login, verifier)
            await trio.testing.wait_all_tasks_blocked()
            # Who needs no hash is answered at once, while all threads are at work and the queue is full.
            assert running.acquire(timeout=10)
            assert running.acquire(timeout=10)
            assert verifier.keys(FindKeys(ALICE, ORIGIN, "SHA-256"), SCRAM) is not None
            assert outcomes == []
            # Who waits for a thread is told in time that it can't be told: 98 of them, and at the same time.
            autojump_clock.jump(3.1)
            await trio.testing.wait_all_tasks_blocked()
            assert outcomes == ["all password threads are busy"] * 98
            finish.set()
        assert outcomes[98:] == [Accept(ALICE)] * 2
        assert not running.acquire(blocking=False), "what nobody waits for any more is not computed"
        # and the threads are free again
        assert await verifier.check(check("right one"), [ARGON2]) == Accept(ALICE)
