"""What every backend does alike. A backend's tests subclass `BackendContract`, say what it handles, and open it.

    class TestLdap(BackendContract):
        handles = frozenset({CheckPassword, UserExists})

        @pytest.fixture
        async def backend(self) -> AsyncIterator[Backend]: ...

It knows the accounts of `ACCOUNTS` and nobody else.
"""

from typing import ClassVar

import pytest
import trio

from extauth.backend import Backend
from extauth.jid import identity
from extauth.model import (
    Accept,
    Answer,
    CheckCertificate,
    CheckPassword,
    CreateUser,
    Decoy,
    FindAccount,
    FindKeys,
    Identity,
    Keys,
    Listing,
    ListUsers,
    Origin,
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
from extauth.passwords.prepare import for_checking
from extauth.passwords.scram import Hash
from extauth.soon import settle

DOMAIN = "example.com"
ACCOUNTS = {
    "alice": "correct horse",
    "bob": "a:b'c\"d\\e %s * (&) \u00f6\u2603",
    "o.neil-x+y=z": "a" * 200,
    "gr\u00fcn": "plain enough",
}
ALICE = Identity("alice", DOMAIN)
ORIGIN = Origin("contract")

STRANGERS = [
    Identity("mallory", DOMAIN),
    Identity("alice", "example.org"),
    Identity("alic", DOMAIN),
    Identity("alice2", DOMAIN),
    Identity("alic\u00e9", DOMAIN),
    Identity("grun", DOMAIN),
    Identity("alice%", DOMAIN),
    Identity("a*", DOMAIN),
    Identity("*", DOMAIN),
    Identity("alice)(uid=*", DOMAIN),
    Identity("x') or 1=1 --", DOMAIN),
    Identity("a" * 1023, DOMAIN),
    identity("\u4f60\u597d", "\u4f60\u597d.example"),
]
WRONG = [
    *(
        "wrong horse",
        "correct hors",
        "correct horse ",
        " correct horse",
        "Correct horse",
        "correct\u00a0horse!",
        "*",
        "%",
        "\\",
    ),
    *("' or '1'='1", "\u2603", "\U0001f600", "a" * 1024, "\u00f6" * 4096, "correct horse\n"),
]


async def ask(backend: Backend, request: Request) -> Answer | None:
    answer: Answer | None = await settle(backend.answer(request))
    return answer


async def login(backend: Backend, user: str, password: str) -> Answer | None:
    return await ask(backend, CheckPassword(Identity(user, DOMAIN), ORIGIN, Secret(password)))


def is_yes(answer: Answer | None, user: str) -> bool:
    return isinstance(answer, Accept) and answer.identity == Identity(user, DOMAIN)


def asks(*kinds: type[Request]) -> pytest.MarkDecorator:
    """Leave a test out where the backend does not handle all of these."""
    return pytest.mark.asks.with_args(*kinds)


class BackendContract:
    """The behaviours; those that a backend doesn't offer are left out."""

    handles: ClassVar[frozenset[type[Request]]]

    @pytest.fixture(autouse=True)
    def offered(self, request: pytest.FixtureRequest) -> None:
        """Leave out what needs a kind of request that is not handled."""
        for mark in request.node.iter_markers("asks"):
            for kind in mark.args:
                if kind not in self.handles:
                    pytest.skip(f"{kind.operation} is not among what it handles")

    async def test_it_handles_what_it_says(self, backend: Backend) -> None:
        assert backend.handles == self.handles

    # Passwords

    @asks(CheckPassword)
    @pytest.mark.parametrize(("user", "password"), ACCOUNTS.items(), ids=ACCOUNTS)
    async def test_the_right_password_is_accepted(self, backend: Backend, user: str, password: str) -> None:
        assert is_yes(await login(backend, user, password), user)

    @asks(CheckPassword)
    async def test_a_wrong_password_is_refused(self, backend: Backend) -> None:
        for password in WRONG:
            assert await login(backend, "alice", password) == Reject(Reason.BAD_PASSWORD), password

    @asks(CheckPassword)
    async def test_anothers_password_is_refused(self, backend: Backend) -> None:
        assert await login(backend, "alice", ACCOUNTS["bob"]) == Reject(Reason.BAD_PASSWORD)

    @asks(CheckPassword)
    async def test_many_at_a_time_get_their_own_answers(self, backend: Backend) -> None:
        answers: dict[int, Answer | None] = {}

        async def one(number: int, user: str, password: str) -> None:
            answers[number] = await login(backend, user, password)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(one, 3 * number, "alice", ACCOUNTS["alice"])
                nursery.start_soon(one, 3 * number + 1, "alice", f"wrong {number}")
                nursery.start_soon(one, 3 * number + 2, "bob", ACCOUNTS["bob"])
        for number, answer in answers.items():
            assert is_yes(answer, ("alice", "", "bob")[number % 3]) or answer == Reject(Reason.BAD_PASSWORD)
            assert isinstance(answer, Reject) is (number % 3 == 1)

    @asks(Decoy)
    async def test_a_decoy_is_no_yes(self, backend: Backend) -> None:
        decoy = Decoy(Identity("alice", DOMAIN), ORIGIN, Secret(ACCOUNTS["alice"]))
        assert not isinstance(await ask(backend, decoy), Accept)

    # SCRAM keys and certificates

    @asks(FindKeys)
    @pytest.mark.parametrize(("user", "password"), ACCOUNTS.items(), ids=ACCOUNTS)
    async def test_keys_prove_the_right_password_alone(self, backend: Backend, user: str, password: str) -> None:
        keys = await ask(backend, FindKeys(Identity(user, DOMAIN), ORIGIN, "SHA-256"))
        assert isinstance(keys, Keys)
        assert keys.identity == Identity(user, DOMAIN)
        assert keys.refusal is None
        stored = tuple(candidate.stored_key for candidate in keys.candidates)
        assert scram.verify(Hash.SHA_256, for_checking(password), keys.salt, keys.iterations, stored) is not None
        assert scram.verify(Hash.SHA_256, ("wrong horse",), keys.salt, keys.iterations, stored) is None

    @asks(FindKeys)
    async def test_keys_for_an_unheard_of_hash_are_none(self, backend: Backend) -> None:
        assert await ask(backend, FindKeys(ALICE, ORIGIN, "MD5")) is None

    @asks(CheckCertificate)
    async def test_a_certificate_admits_its_user(self, backend: Backend) -> None:
        assert is_yes(await ask(backend, CheckCertificate(ALICE, ORIGIN)), "alice")

    # Strangers

    @pytest.mark.parametrize("stranger", STRANGERS, ids=lambda stranger: str(stranger)[-20:])
    async def test_a_stranger_is_unknown(self, backend: Backend, stranger: Identity) -> None:
        questions: list[Request] = [
            CheckPassword(stranger, ORIGIN, Secret(ACCOUNTS["alice"])),
            UserExists(stranger, ORIGIN),
            FindAccount(stranger, ORIGIN),
            FindKeys(stranger, ORIGIN, "SHA-256"),
            CheckCertificate(stranger, ORIGIN),
            SetPassword(stranger, ORIGIN, Secret("a good one")),
            SetEnabled(stranger, ORIGIN, enabled=False),
            RemoveUser(stranger, ORIGIN),
        ]
        for question in questions:
            if type(question) in self.handles:
                assert await ask(backend, question) is None, question.operation
        if CheckPassword in self.handles:
            assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")

    @asks(UserExists)
    @pytest.mark.parametrize("user", ACCOUNTS)
    async def test_a_user_exists(self, backend: Backend, user: str) -> None:
        assert is_yes(await ask(backend, UserExists(Identity(user, DOMAIN), ORIGIN)), user)

    # Accounts

    @asks(FindAccount)
    async def test_an_account_is_described(self, backend: Backend) -> None:
        account = await ask(backend, FindAccount(ALICE, ORIGIN))
        assert isinstance(account, Accept)
        assert account.identity == ALICE
        assert all(isinstance(value, str) for value in account.attributes.values())

    @asks(ListUsers)
    async def test_accounts_are_listed_in_order(self, backend: Backend) -> None:
        assert await self._listed(backend, "", 100) == sorted(ACCOUNTS)

    @asks(ListUsers)
    async def test_a_list_goes_on_where_it_ended(self, backend: Backend) -> None:
        assert await self._listed(backend, "", 1) == ["alice"]
        assert await self._listed(backend, "alice", 2) == ["bob", "gr\u00fcn"]
        assert await self._listed(backend, "zzz", 2) == []

    @asks(ListUsers)
    async def test_another_domain_has_other_accounts(self, backend: Backend) -> None:
        assert await ask(backend, ListUsers(Identity("", "example.org"), ORIGIN)) == Listing(())

    async def _listed(self, backend: Backend, after: str, limit: int) -> list[str]:
        listing = await ask(backend, ListUsers(Identity(after, DOMAIN), ORIGIN, limit))
        assert isinstance(listing, Listing)
        assert all(account.identity.domain == DOMAIN for account in listing.accounts)
        return [account.identity.user for account in listing.accounts]

    # Changes

    @asks(CheckPassword, SetPassword)
    async def test_a_new_password_takes_the_olds_place(self, backend: Backend) -> None:
        assert is_yes(await ask(backend, SetPassword(ALICE, ORIGIN, Secret("battery staple"))), "alice")
        assert is_yes(await login(backend, "alice", "battery staple"), "alice")
        assert await login(backend, "alice", ACCOUNTS["alice"]) == Reject(Reason.BAD_PASSWORD)
        assert is_yes(await login(backend, "bob", ACCOUNTS["bob"]), "bob")

    @asks(CheckPassword, CreateUser)
    async def test_a_new_account_can_log_in(self, backend: Backend) -> None:
        carol = Identity("carol", DOMAIN)
        assert await login(backend, "carol", "battery staple") is None
        assert is_yes(await ask(backend, CreateUser(carol, ORIGIN, Secret("battery staple"))), "carol")
        assert is_yes(await login(backend, "carol", "battery staple"), "carol")
        assert await login(backend, "carol", ACCOUNTS["alice"]) == Reject(Reason.BAD_PASSWORD)

    @asks(CheckPassword, CreateUser)
    async def test_an_account_is_not_made_twice(self, backend: Backend) -> None:
        again = CreateUser(ALICE, ORIGIN, Secret("battery staple"))
        assert await ask(backend, again) == Reject(Reason.USER_EXISTS)
        assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")
        assert await login(backend, "alice", "battery staple") == Reject(Reason.BAD_PASSWORD)

    @asks(CheckPassword, CreateUser)
    async def test_of_two_who_want_a_name_one_gets_it(self, backend: Backend) -> None:
        carol = Identity("carol", DOMAIN)
        answers: dict[str, Answer | None] = {}

        async def create(password: str) -> None:
            answers[password] = await ask(backend, CreateUser(carol, ORIGIN, Secret(password)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(create, "the first one")
            nursery.start_soon(create, "the second one")
        made = {password for password, answer in answers.items() if is_yes(answer, "carol")}
        (loser,) = answers.keys() - made
        (winner,) = made
        assert answers[loser] == Reject(Reason.USER_EXISTS)
        assert is_yes(await login(backend, "carol", winner), "carol")
        assert await login(backend, "carol", loser) == Reject(Reason.BAD_PASSWORD)

    @asks(CheckPassword, RemoveUser)
    async def test_a_removed_account_is_unknown(self, backend: Backend) -> None:
        assert is_yes(await ask(backend, RemoveUser(ALICE, ORIGIN)), "alice")
        assert await login(backend, "alice", ACCOUNTS["alice"]) is None
        assert await ask(backend, RemoveUser(ALICE, ORIGIN)) is None
        assert is_yes(await login(backend, "bob", ACCOUNTS["bob"]), "bob")

    @asks(CheckPassword, RemoveUser, CreateUser)
    async def test_a_name_used_again_has_no_old_password(self, backend: Backend) -> None:
        await ask(backend, RemoveUser(ALICE, ORIGIN))
        await ask(backend, CreateUser(ALICE, ORIGIN, Secret("battery staple")))
        assert is_yes(await login(backend, "alice", "battery staple"), "alice")
        assert await login(backend, "alice", ACCOUNTS["alice"]) == Reject(Reason.BAD_PASSWORD)

    @asks(CheckPassword, SetEnabled)
    async def test_a_disabled_account_keeps_its_password(self, backend: Backend) -> None:
        assert is_yes(await ask(backend, SetEnabled(ALICE, ORIGIN, enabled=False)), "alice")
        assert await login(backend, "alice", ACCOUNTS["alice"]) == Reject(Reason.DISABLED)
        assert await login(backend, "alice", "wrong horse") == Reject(Reason.BAD_PASSWORD)
        assert is_yes(await login(backend, "bob", ACCOUNTS["bob"]), "bob")
        if FindKeys in self.handles:
            keys = await ask(backend, FindKeys(ALICE, ORIGIN, "SHA-256"))
            assert isinstance(keys, Keys)
            assert keys.refusal is Reason.DISABLED
        if CheckCertificate in self.handles:
            assert await ask(backend, CheckCertificate(ALICE, ORIGIN)) == Reject(Reason.DISABLED)
        assert is_yes(await ask(backend, SetEnabled(ALICE, ORIGIN, enabled=True)), "alice")
        assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")
