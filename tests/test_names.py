"""What a backend calls a user, and that nobody is taken for somebody else by it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.layers.names import Naming
from extauth.layers.rules import NameRules
from extauth.model import (
    Accept,
    Answer,
    Candidate,
    CheckPassword,
    CheckToken,
    FindKeys,
    Identity,
    Keys,
    ListUsers,
    Reason,
    Reject,
    Request,
    Secret,
    UserExists,
)
from extauth.soon import settle
from extauth.templates import Template
from tests.fakes import ALICE, ORIGIN, FakeBackend, Scene, check

CORP = NameRules(strip_suffix="-corp")


def echo(request: Request) -> Answer:
    """Accept whoever is asked for."""
    return Accept(request.identity)


async def asked(rules: NameRules, user: str) -> str | None:
    """Return under which name a backend is asked, and see that the answer is about the user."""
    backend = FakeBackend({CheckPassword: echo})
    identity = Identity(user, "example.com")
    answer = await settle(Naming(backend, rules).answer(check("x", identity)))
    if not backend.asked:
        assert answer is None
        return None
    assert answer == Accept(identity)
    assert backend.asked[0].identity.domain == "example.com"
    return backend.asked[0].identity.user


@pytest.mark.parametrize(
    ("rules", "user", "there"),
    [
        (NameRules(), "alice", "alice"),
        (NameRules(template="{user}@{domain}"), "alice", "alice@example.com"),
        (NameRules(template="CORP\\{user}"), "alice", "CORP\\alice"),
        (CORP, "alice-corp", "alice"),
        (CORP, "alice", None),
        (CORP, "-corp", None),
        (NameRules(strip_prefix="x-"), "x-alice", "alice"),
        (NameRules(strip_prefix="x-"), "alice", None),
        (NameRules(strip_prefix="x-", strip_suffix="-y", template="{domain}/{user}"), "x-alice-y", "example.com/alice"),
        (NameRules(strip_prefix="ab", strip_suffix="bc"), "abc", None),
    ],
)
async def test_a_user_has_another_name_there(rules: NameRules, user: str, there: str | None) -> None:
    assert await asked(rules, user) == there


HOSTILE = [
    *("{user}", "{domain}", "{0.__class__}", "{user.__class__.__mro__}", "{{}}"),
    *("%{env}", "$(id)", "%s", "%u", "\\1", "${user}"),
]


@pytest.mark.parametrize("user", HOSTILE)
async def test_names_that_look_like_code_are_names(user: str) -> None:
    assert await asked(NameRules(template="{user}@{domain}"), user) == f"{user}@example.com"
    assert await asked(CORP, f"{user}-corp") == user
    assert Template("{user}").fill(Identity(user, user)) == user


def test_a_colon_makes_no_difference() -> None:
    assert Template("{user}").fill(Identity("%{env:HOME}", "example.com")) == "%{env:HOME}"


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8")))
def test_a_template_holds_what_is_put_in_as_it_is(user: str, domain: str) -> None:
    assert Template("a{user}b{domain}c").fill(Identity(user, domain)) == f"a{user}b{domain}c"


@given(st.text(), st.text())
def test_two_users_never_have_one_name_there(one: str, other: str) -> None:
    naming = Naming(FakeBackend({}), NameRules(strip_suffix="-y", template="{user}@{domain}"))
    names = [naming._there(Identity(user, "example.com")) for user in (one, other)]  # pyright: ignore[reportPrivateUsage]
    if None not in names:
        assert (names[0] == names[1]) is (one == other)


@pytest.mark.parametrize("found", ["alice-corp", "bob", "älice", "Alice ", "", "al ice"])
async def test_somebody_else_who_is_found_is_not_taken_for_the_user(found: str) -> None:
    scene = Scene([Naming(FakeBackend({CheckPassword: Accept(Identity(found, "example.com"))}), CORP)])
    verdict = await settle(scene.authority.ask(check("x", Identity("alice-corp", "example.com"))))
    assert verdict == Reject(Reason.NO_USER)


async def test_a_name_in_other_letters_is_the_same() -> None:
    backend = FakeBackend({CheckPassword: Accept(Identity("ALICE", "example.com"))})
    verdict = await settle(Scene([Naming(backend, CORP)]).authority.ask(check("x", Identity("alice-corp", "example.com"))))
    assert verdict == Accept(Identity("alice-corp", "example.com"))


async def test_a_name_without_the_templates_text_is_nobodys() -> None:
    backend = FakeBackend({CheckPassword: Accept(ALICE)})
    assert await settle(Naming(backend, NameRules(template="{user}@{domain}")).answer(check("x"))) is None


async def test_another_domain_stays_another() -> None:
    backend = FakeBackend({CheckPassword: Accept(Identity("alice", "example.org"))})
    verdict = await settle(Scene([Naming(backend, CORP)]).authority.ask(check("x", Identity("alice-corp", "example.com"))))
    assert verdict == Reject(Reason.NO_USER)


async def test_keys_refusals_and_ignorance_come_back_as_they_are() -> None:
    keys = Keys(ALICE, b"salt", 4096, (Candidate("password", b"x", b"y"),), "a")
    corp = Identity("alice-corp", "example.com")
    naming = Naming(FakeBackend({FindKeys: keys, CheckPassword: Reject(Reason.DISABLED), UserExists: None}), CORP)
    assert await settle(naming.answer(FindKeys(corp, ORIGIN, "SHA-1"))) == Keys(corp, b"salt", 4096, keys.candidates, "a")
    assert await settle(naming.answer(check("x", corp))) == Reject(Reason.DISABLED)
    assert await settle(naming.answer(UserExists(corp, ORIGIN))) is None


async def test_whom_a_credential_names_is_named_as_here() -> None:
    nobody = Identity("", "example.com")
    backend = FakeBackend({CheckToken: Accept(ALICE)})
    answer = await settle(Naming(backend, CORP).answer(CheckToken(nobody, ORIGIN, Secret("fake token"))))
    assert answer == Accept(Identity("alice-corp", "example.com"))
    assert backend.asked[0].identity == nobody


def test_users_are_not_listed_under_other_names() -> None:
    assert Naming(FakeBackend({ListUsers: None, UserExists: None}), CORP).handles == {UserExists}


@pytest.mark.parametrize(
    "template", ["", "{domain}", "{user}{user}", "{0.__class__}", "{user", "{user!r}", "{user:>9}", "{env:HOME}"]
)
def test_a_template_that_is_none_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="template: "):
        NameRules(template=template)
