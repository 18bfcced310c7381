"""Backend `local`: the contract, and how it keeps passwords."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import extauth_local
import pytest
import trio
from extauth_local import Config, accounts

from extauth.backend import Backend, Context
from extauth.errors import BackendDown, ConfigError
from extauth.keyring import Keyring
from extauth.model import (
    Accept,
    CheckCertificate,
    CheckPassword,
    CreateUser,
    Decoy,
    FindAccount,
    FindKeys,
    Identity,
    ImportedKeys,
    ImportUser,
    Keys,
    Listing,
    ListUsers,
    Reason,
    Reject,
    RemoveUser,
    Request,
    Secret,
    SetEnabled,
    SetPassword,
    UserExists,
)
from extauth.passwords import scram
from extauth.passwords.scram import Hash
from extauth.soon import Soon, settle
from extauth.store import Row, Statement, Store, Value, open_store
from extauth.store.interface import Results
from extauth.threads import Threads
from tests.contract import ACCOUNTS, ALICE, DOMAIN, ORIGIN, BackendContract, ask, is_yes, login

T = TypeVar("T")

CAROL = Identity("carol", DOMAIN)
FEW = scram.MIN_ITERATIONS
SALTS = "SELECT hash, salt FROM scram_salt WHERE name = $1"
TABLES = ("account", "scram_user", "scram_salt", "scram_key")
KEYS = "SELECT hash, credential, stored_key, server_key FROM scram_key WHERE name = $1"


class RecordingStore:
    """A store that remembers which statements it was given."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.seen: set[str] = set()

    def read(self, sql: str, *values: Value) -> Soon[list[Row]]:
        """Run one SELECT."""
        self.seen.add(sql)
        return self._store.read(sql, *values)

    async def write(self, *statements: Statement) -> Results:
        """Run a unit of work."""
        self.seen.update(sql for sql, _ in statements)
        return await self._store.write(*statements)


class CountingThreads(Threads):
    """Counts the calls; runs `before` ahead of each."""

    def __init__(self) -> None:
        super().__init__("test", 2, 10)
        self.calls = 0
        self.before: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint

    async def run(self, call: Callable[[], T]) -> T:
        """Run `call` in a thread."""
        self.calls += 1
        await self.before()
        return await super().run(call)


@dataclass
class Place:
    """Where accounts are kept."""

    store: RecordingStore
    hashing: CountingThreads
    time: float = 1_000_000_000.5

    async def rows(self, sql: str, *values: Value) -> list[Row]:
        """Run one SELECT."""
        return await settle(self.store.read(sql, *values))

    def open(self, config: Config | None = None) -> AbstractAsyncContextManager[Backend]:
        """Open a backend on the accounts."""
        context = Context("local", self.store, self.hashing, lambda: self.time)
        return extauth_local.open(config or Config(iterations=FEW), context)


@pytest.fixture
async def place(state: str) -> AsyncIterator[Place]:
    """Give an empty store."""
    async with open_store(state) as store:
        yield Place(RecordingStore(store), CountingThreads())


async def create(backend: Backend, user: str, password: str) -> None:
    assert is_yes(await ask(backend, CreateUser(Identity(user, DOMAIN), ORIGIN, Secret(password))), user)


@pytest.fixture
async def local(place: Place) -> AsyncIterator[Backend]:
    """Give a backend that has the account of alice."""
    async with place.open() as opened:
        await create(opened, "alice", ACCOUNTS["alice"])
        yield opened


class TestContract(BackendContract):
    """The contract."""

    handles = frozenset(
        {
            *(CheckPassword, FindKeys, CheckCertificate, UserExists, Decoy, FindAccount, ListUsers),
            *(SetPassword, CreateUser, ImportUser, RemoveUser, SetEnabled),
        }
    )

    @pytest.fixture
    async def backend(self, local: Backend) -> Backend:
        """Give a backend that has the contract's accounts."""
        for user, password in ACCOUNTS.items():
            if user != "alice":
                await create(local, user, password)
        return local


# What is stored ---------------------------------------------------------------------------------------------------------------


async def test_each_family_has_a_salt_of_its_own_and_keys(local: Backend, place: Place) -> None:
    await ask(local, SetPassword(ALICE, ORIGIN, Secret("battery staple")))
    salts: dict[Value, Value] = {hash_: salt for hash_, salt in await place.rows(SALTS, "alice")}  # noqa: C416 - two of each row
    assert set(salts) == {"SHA-1", "SHA-256", "SHA-384", "SHA-512"}
    assert len(set(salts.values())) == 4
    for hash_, credential, stored_key, server_key in await place.rows(KEYS, "alice"):
        salt = salts[hash_]
        assert isinstance(salt, bytes)
        made = scram.make(Hash(str(hash_)), "battery staple", salt, FEW)
        assert (credential, stored_key, server_key) == ("password", made.stored_key, made.server_key)


async def test_two_users_with_one_password_share_nothing(local: Backend, place: Place) -> None:
    await create(local, "carol", ACCOUNTS["alice"])
    alice, carol = [{value for row in await place.rows(KEYS, user) for value in row[2:]} for user in ("alice", "carol")]
    assert not alice & carol
    assert not set(await place.rows(SALTS, "alice")) & set(await place.rows(SALTS, "carol"))


async def test_the_password_itself_is_not_stored(local: Backend, place: Place) -> None:
    await ask(local, SetPassword(ALICE, ORIGIN, Secret("canary-51c0ffee")))
    rows = [row for table in TABLES for row in await place.rows(f"SELECT * FROM {table}")]  # noqa: S608
    assert "alice" in str(rows)
    assert "canary" not in str(rows)


async def test_a_new_password_has_new_salts(local: Backend, place: Place) -> None:
    before = await place.rows(SALTS, "alice"), await place.rows(KEYS, "alice")
    await ask(local, SetPassword(ALICE, ORIGIN, Secret(ACCOUNTS["alice"])))
    after = await place.rows(SALTS, "alice"), await place.rows(KEYS, "alice")
    assert not set(before[0]) & set(after[0])
    assert not set(before[1]) & set(after[1])
    assert (len(after[0]), len(after[1])) == (4, 4)


async def test_more_iterations_are_for_new_passwords(local: Backend, place: Place) -> None:
    assert await described(local, "iterations") == str(FEW)
    before = await place.rows(SALTS, "alice"), await place.rows(KEYS, "alice")
    async with place.open(Config(iterations=2 * FEW)) as stricter:
        assert is_yes(await login(stricter, "alice", ACCOUNTS["alice"]), "alice")
        assert (await place.rows(SALTS, "alice"), await place.rows(KEYS, "alice")) == before
        assert await described(stricter, "iterations") == str(FEW)
        await ask(stricter, SetPassword(ALICE, ORIGIN, Secret("battery staple")))
        assert await described(stricter, "iterations") == str(2 * FEW)
        keys = await ask(stricter, FindKeys(ALICE, ORIGIN, "SHA-512"))
        assert isinstance(keys, Keys)
        assert keys.iterations == 2 * FEW
        assert is_yes(await login(stricter, "alice", "battery staple"), "alice")


async def described(backend: Backend, attribute: str) -> str:
    account = await ask(backend, FindAccount(ALICE, ORIGIN))
    assert isinstance(account, Accept)
    return account.attributes[attribute]


async def test_a_removed_account_leaves_nothing(local: Backend, place: Place) -> None:
    await ask(local, RemoveUser(ALICE, ORIGIN))
    for table in TABLES:
        assert await place.rows(f"SELECT * FROM {table}") == []  # noqa: S608


async def test_an_account_tells_its_times_and_state(local: Backend, place: Place) -> None:
    place.time += 3600
    await ask(local, SetPassword(ALICE, ORIGIN, Secret("battery staple")))
    await ask(local, SetEnabled(ALICE, ORIGIN, enabled=False))
    listing = await ask(local, ListUsers(Identity("", DOMAIN), ORIGIN))
    told = {
        "enabled": "no",
        "iterations": "4096",
        "created": "2001-09-09T01:46:40Z",
        "password-changed": "2001-09-09T02:46:40Z",
    }
    assert listing == Listing((Accept(ALICE, told),))


async def test_another_credential_of_the_user_is_for_scram_alone(local: Backend, place: Place) -> None:
    keyring = Keyring(place.store, place.hashing, lambda: place.time, FEW)
    assert await keyring.add(ALICE, "app:phone", "app password")
    assert is_yes(await login(local, "alice", ACCOUNTS["alice"]), "alice")
    for text in ("app password", "wrong"):  # whoever has issued it judges it as a password
        assert await login(local, "alice", text) == Reject(Reason.BAD_PASSWORD)
    keys = await ask(local, FindKeys(ALICE, ORIGIN, "SHA-256"))
    assert isinstance(keys, Keys)
    assert {candidate.credential for candidate in keys.candidates} == {"password", "app:phone"}


async def test_an_account_without_a_password_takes_as_long_to_refuse(local: Backend, place: Place) -> None:
    imported = "INSERT INTO account VALUES ($1, 'carol', 0, '', 0, 0)"
    await place.store.write((imported, (DOMAIN,)))
    before = place.hashing.calls
    assert await login(local, "carol", "anything") == Reject(Reason.BAD_PASSWORD)
    assert place.hashing.calls == before + 1
    assert await ask(local, FindKeys(CAROL, ORIGIN, "SHA-256")) is None
    assert is_yes(await ask(local, SetPassword(CAROL, ORIGIN, Secret("battery staple"))), "carol")
    assert is_yes(await login(local, "carol", "battery staple"), "carol")


async def test_a_decoy_costs_one_derivation(local: Backend, place: Place) -> None:
    before = place.hashing.calls
    assert await ask(local, Decoy(CAROL, ORIGIN, Secret("x"))) == Reject(Reason.NO_USER)
    assert place.hashing.calls == before + 1


# Races ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (SetEnabled(ALICE, ORIGIN, enabled=False), Reject(Reason.DISABLED)),
        (SetPassword(ALICE, ORIGIN, Secret("battery staple")), Reject(Reason.BAD_PASSWORD)),
        (RemoveUser(ALICE, ORIGIN), None),
        (SetPassword(ALICE, ORIGIN, Secret("short")), Accept(ALICE)),
    ],
    ids=["disabled", "another password", "removed", "unchanged"],
)
async def test_what_changes_while_a_password_is_checked_counts(
    local: Backend, place: Place, change: Request, answer: Accept | Reject | None
) -> None:
    async def first() -> None:
        place.hashing.before = trio.lowlevel.checkpoint
        await ask(local, change)

    place.hashing.before = first
    assert await login(local, "alice", ACCOUNTS["alice"]) == answer


async def test_of_two_who_make_an_account_only_the_winners_keys_are_kept(local: Backend, place: Place) -> None:
    async with trio.open_nursery() as nursery:
        for password in ("the first one", "the second one"):
            nursery.start_soon(ask, local, CreateUser(CAROL, ORIGIN, Secret(password)))
    assert len(await place.rows(SALTS, "carol")) == len(await place.rows(KEYS, "carol")) == 4
    fits = [is_yes(await login(local, "carol", password), "carol") for password in ("the first one", "the second one")]
    assert sorted(fits) == [False, True]


@pytest.mark.parametrize(
    "change", [SetPassword(ALICE, ORIGIN, Secret("battery staple")), CreateUser(CAROL, ORIGIN, Secret("battery staple"))]
)
async def test_keys_that_come_too_late_are_not_kept(local: Backend, place: Place, change: Request) -> None:
    async def interfere() -> None:
        """Remove the account whose password is changed, or make the one that is to be made."""
        place.hashing.before = trio.lowlevel.checkpoint
        if isinstance(change, SetPassword):
            await ask(local, RemoveUser(ALICE, ORIGIN))
        else:
            await create(local, "carol", "another one")

    place.hashing.before = interfere
    expected = None if isinstance(change, SetPassword) else Reject(Reason.USER_EXISTS)
    assert await ask(local, change) == expected
    assert await place.rows(SALTS, "alice") == [] or isinstance(change, CreateUser)
    assert await place.rows(KEYS, "alice") == [] or isinstance(change, CreateUser)
    if isinstance(change, CreateUser):
        assert is_yes(await login(local, "carol", "another one"), "carol")
        assert len(await place.rows(KEYS, "carol")) == 4


async def test_of_two_new_passwords_one_is_kept_whole(local: Backend, place: Place) -> None:
    async with trio.open_nursery() as nursery:
        for password in ("the first one", "the second one"):
            nursery.start_soon(ask, local, SetPassword(ALICE, ORIGIN, Secret(password)))
    assert len(await place.rows(SALTS, "alice")) == len(await place.rows(KEYS, "alice")) == 4
    for hash_ in Hash:
        keys = await ask(local, FindKeys(ALICE, ORIGIN, hash_.value))
        assert isinstance(keys, Keys)
        assert len(keys.candidates) == 1
    fits = [is_yes(await login(local, "alice", password), "alice") for password in ("the first one", "the second one")]
    assert sorted(fits) == [False, True]


# Outages ----------------------------------------------------------------------------------------------------------------------


async def test_a_store_that_is_gone_is_an_outage(state: str) -> None:
    async with open_store(state) as store:
        place = Place(RecordingStore(store), CountingThreads())
    async with place.open() as backend:
        for question in (CheckPassword(ALICE, ORIGIN, Secret("x")), UserExists(ALICE, ORIGIN)):
            with pytest.raises(BackendDown):
                await ask(backend, question)


async def test_threads_that_are_busy_are_an_outage(local: Backend, place: Place) -> None:
    async def busy() -> None:
        raise BackendDown("all password threads are busy")

    place.hashing.before = busy
    with pytest.raises(BackendDown, match="busy"):
        await login(local, "alice", ACCOUNTS["alice"])


# Imported accounts ------------------------------------------------------------------------------------------------------------


def imported(identity: Identity, password: str, family: Hash = Hash.SHA_1, *, replace: bool = False) -> ImportUser:
    """Return a request with keys of one hash, as an older server keeps them."""
    salt = scram.new_salt()
    keys = scram.make(family, password, salt, FEW)
    given = ImportedKeys(family.value, salt, keys.stored_key, keys.server_key)
    return ImportUser(identity, ORIGIN, FEW, (given,), replace=replace)


@pytest.mark.parametrize("family", Hash)
async def test_an_imported_account_logs_in_whatever_its_hash(local: Backend, family: Hash) -> None:
    assert is_yes(await ask(local, imported(CAROL, "fake one", family)), "carol")
    assert is_yes(await login(local, "carol", "fake one"), "carol")
    assert await login(local, "carol", "fake two") == Reject(Reason.BAD_PASSWORD)
    found = {each for each in Hash if isinstance(await ask(local, FindKeys(CAROL, ORIGIN, each.value)), Keys)}
    assert found == {family}


async def test_an_imported_account_with_an_app_password_has_its_own_password_still(local: Backend, place: Place) -> None:
    await ask(local, imported(CAROL, "fake one"))
    keyring = Keyring(place.store, place.hashing, lambda: 0.0, FEW)
    assert await keyring.add(CAROL, "app:1", "fake app password")
    assert is_yes(await login(local, "carol", "fake one"), "carol")
    assert await login(local, "carol", "fake two") == Reject(Reason.BAD_PASSWORD)


async def test_an_import_replaces_an_account_only_if_it_is_told_to(local: Backend) -> None:
    assert await ask(local, imported(ALICE, "fake one")) == Reject(Reason.USER_EXISTS)
    assert is_yes(await login(local, "alice", ACCOUNTS["alice"]), "alice")
    assert is_yes(await ask(local, imported(ALICE, "fake one", replace=True)), "alice")
    assert await login(local, "alice", ACCOUNTS["alice"]) == Reject(Reason.BAD_PASSWORD)
    assert is_yes(await login(local, "alice", "fake one"), "alice")


# Configuration ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [0, FEW - 1, scram.MAX_ITERATIONS + 1])
def test_too_few_or_too_many_iterations_are_refused(iterations: int) -> None:
    with pytest.raises(ValueError, match="iterations: must be 4096 to 1000000"):
        Config(iterations=iterations)


@pytest.mark.parametrize(("shortest", "longest"), [(0, 10), (11, 10), (1, 1025), (-1, -1)])
def test_lengths_out_of_order_are_refused(shortest: int, longest: int) -> None:
    with pytest.raises(ValueError, match="must be in order and from 1 to 1024"):
        Config(min_length=shortest, max_length=longest)


def test_the_defaults_are_the_advised_ones() -> None:
    assert Config() == Config(iterations=10_000, min_length=8, max_length=1024, blocklist=None)


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("seven77", Reason.PASSWORD_TOO_SHORT),
        ("a" * 1025, Reason.PASSWORD_TOO_LONG),
        ("\x07" * 8, Reason.MALFORMED),
        ("Letmein1", Reason.PASSWORD_COMMON),
    ],
)
async def test_a_password_against_the_rules_is_not_set(place: Place, tmp: Path, password: str, reason: Reason) -> None:
    blocklist = tmp / "blocklist"
    await trio.Path(blocklist).write_text("password\n\nletMEin1\r\n")
    async with place.open(Config(iterations=FEW, blocklist=str(blocklist))) as backend:
        await create(backend, "alice", ACCOUNTS["alice"])
        before = place.hashing.calls
        for change in (SetPassword(ALICE, ORIGIN, Secret(password)), CreateUser(CAROL, ORIGIN, Secret(password))):
            assert await ask(backend, change) == Reject(reason)
        assert place.hashing.calls == before
        assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")
        assert await ask(backend, UserExists(CAROL, ORIGIN)) is None


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
async def test_a_blocklist_that_cannot_be_read_is_told(place: Place, tmp: Path, content: bytes | None) -> None:
    blocklist = tmp / "blocklist"
    if content is not None:
        await trio.Path(blocklist).write_bytes(content)
    with pytest.raises(ConfigError, match=f"backend.local.blocklist: {blocklist}: "):
        async with place.open(Config(blocklist=str(blocklist))):
            raise AssertionError("it was opened")


# Forms of a password ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "sent"),
    [
        ("pa\u0308ssword", "p\u00e4ssword"),  # composed or not
        ("p\u00e4ssword", "pa\u0308ssword"),
        ("\u2168\u2168\u2168\u2168", "IXIXIXIX"),  # a server that prepares, and one that does not
        ("IXIXIXIX", "\u2168\u2168\u2168\u2168"),
        ("\U0001f600" * 8, "\U0001f600" * 8),
        ("pass\u00a0word", "pass word"),
        ("pass:word ", "pass:word "),
    ],
)
async def test_a_password_is_accepted_in_every_form(local: Backend, chosen: str, sent: str) -> None:
    await create(local, "carol", chosen)
    assert is_yes(await login(local, "carol", sent), "carol")


# SQL --------------------------------------------------------------------------------------------------------------------------


async def test_every_statement_is_run_and_fits_both_databases(local: Backend, place: Place) -> None:
    requests: list[Request] = [
        CheckPassword(ALICE, ORIGIN, Secret("x")),
        CheckCertificate(ALICE, ORIGIN),
        FindKeys(ALICE, ORIGIN, "SHA-1"),
        UserExists(ALICE, ORIGIN),
        FindAccount(ALICE, ORIGIN),
        ListUsers(ALICE, ORIGIN),
        SetPassword(ALICE, ORIGIN, Secret("battery staple")),
        SetEnabled(ALICE, ORIGIN, enabled=True),
        imported(CAROL, "fake one"),
        imported(CAROL, "fake one", replace=True),
        RemoveUser(ALICE, ORIGIN),
    ]
    for request in requests:
        await ask(local, request)
    texts = {
        value
        for name, value in vars(accounts).items()
        if name.isupper() and isinstance(value, str) and value.startswith(("SELECT ", "INSERT ", "UPDATE ", "DELETE "))
    }
    assert texts <= place.store.seen
    for text in place.store.seen:
        assert "::" not in text
        assert "?" not in text
