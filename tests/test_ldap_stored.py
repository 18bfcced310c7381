"""Backend `ldap` where it reads stored passwords instead of binding: on a real slapd."""

import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import extauth_ldap
import pytest
from extauth_ldap import wire
from extauth_ldap.desk import Desk
from extauth_ldap.messages import Admit, Question, Read, Setup, Told
from extauth_ldap.process import LdapProcess

from extauth.backend import Backend, Context
from extauth.model import (
    Accept,
    CheckCertificate,
    CheckPassword,
    Decoy,
    FindKeys,
    Identity,
    Keys,
    Reason,
    Reject,
    Secret,
    SetPassword,
    UserExists,
)
from extauth.passwords.stored import make
from tests import needs
from tests.certificates import Certificates
from tests.contract import ACCOUNTS, ALICE, DOMAIN, ORIGIN, BackendContract, ask, is_yes, login
from tests.servers.slapd import ADMIN_PASSWORD, GROUPS, PEOPLE, Slapd, dn_of
from tests.test_ldap import MANAGER, Site, add_group, context, login_by
from tests.test_ldap import site as site  # noqa: PLC0414 - a fixture

pytestmark = needs.debian("slapd")

SCRAM = "dovecot-scram-sha-256"
COSTS = {SCRAM: (4096,), "ldap-argon2": (8, 1, 1)}  # the least
RIGHT = "fake r\u00efght"


@cache
def value(form: str, password: str) -> str:
    return make(form, password, COSTS.get(form))


@pytest.fixture
def slapd(tmp: Path, certificates: Certificates) -> Iterator[Slapd]:
    """Give a directory in which the contract's accounts have SCRAM keys."""
    folder = tmp / "slapd"
    folder.mkdir()
    with Slapd(folder, certificates, {name: value(SCRAM, password) for name, password in ACCOUNTS.items()}) as server:
        yield server


@contextmanager
def hashing() -> Generator[Context]:
    """Give a context with threads that end."""
    found = context()
    with found.hashing:
        yield found


@pytest.fixture
async def backend(site: Site, slapd: Slapd) -> AsyncIterator[Backend]:
    """Give a backend that reads what it finds, and writes SCRAM keys."""
    config = site.config(slapd.tls_url, password_attribute="userPassword", password_form=SCRAM, scram=("SHA-256",))
    with hashing() as around:
        async with extauth_ldap.open(config, around) as opened:
            yield opened


class TestContract(BackendContract):
    """The contract, by the stored keys."""

    handles = frozenset({CheckPassword, CheckCertificate, UserExists, SetPassword, Decoy, FindKeys})


async def test_nobody_is_bound(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Question] = []
    plain = LdapProcess.ask

    async def recording(self: LdapProcess, question: Question, patience: float) -> Told:
        asked.append(question)
        return await plain(self, question, patience)

    monkeypatch.setattr(LdapProcess, "ask", recording)
    assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")
    assert await login(backend, "alice", "fake wrong") == Reject(Reason.BAD_PASSWORD)
    assert asked == [Read(ALICE), Read(ALICE)]


def test_to_read_is_to_bind_nobody(site: Site, slapd: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    config = site.config(slapd.tls_url, password_attribute="userPassword")
    with closing(Desk(Setup("people", config, Secret(ADMIN_PASSWORD)))) as desk:
        assert desk.answer(Admit(ALICE), time.monotonic() + 20) == Told(Reason.OK)  # the search is bound by now
        monkeypatch.setattr(wire.Connection, "bind", None)  # would be a bug
        assert desk.answer(Read(ALICE), time.monotonic() + 20).values == (value(SCRAM, ACCOUNTS["alice"]),)


@pytest.mark.parametrize(
    "form", ["ssha512", "ldap-argon2", "ldap-pbkdf2-sha256", "{CRYPT}sha512-crypt", "scram-sha-512", SCRAM]
)
async def test_what_is_stored_is_judged(site: Site, slapd: Slapd, form: str) -> None:
    prefix, _, form = form.rpartition("}")
    stored = (prefix and f"{prefix}}}") + value(form, RIGHT)
    slapd.modify(f"dn: {dn_of('alice')}\nchangetype: modify\nreplace: userPassword\nuserPassword: {stored}\n")
    config = site.config(slapd.tls_url, password_attribute="userpassword")
    with hashing() as around:
        async with extauth_ldap.open(config, around) as opened:
            assert FindKeys not in opened.handles
            assert is_yes(await login(opened, "alice", RIGHT), "alice")
            assert await login(opened, "alice", "fake wrong") == Reject(Reason.BAD_PASSWORD)
            assert await login(opened, "alice", stored) == Reject(Reason.BAD_PASSWORD)
    if prefix == "{CRYPT":  # slapd knows it, too
        assert is_yes(await login_by(site.config(slapd.tls_url), "alice", RIGHT), "alice")


async def test_a_weak_scheme_counts_only_if_named(site: Site, slapd: Slapd) -> None:
    slapd.modify(f"dn: {dn_of('alice')}\nchangetype: modify\nreplace: userPassword\nuserPassword: fake plain\n")
    for weak in ((), ("plain",)):
        config = site.config(slapd.tls_url, password_attribute="userPassword", weak_schemes=weak)
        with hashing() as around:
            async with extauth_ldap.open(config, around) as opened:
                assert is_yes(await login(opened, "alice", "fake plain"), "alice") is bool(weak)


async def test_values_that_may_not_be_read_match_nothing(site: Site, slapd: Slapd) -> None:
    slapd.modify(MANAGER)
    site.secret.write_text(ACCOUNTS["alice"])
    slapd.modify(f"dn: {dn_of('alice')}\nchangetype: modify\nreplace: userPassword\nuserPassword: {ACCOUNTS['alice']}\n")
    config = site.config(slapd.tls_url, password_attribute="userPassword", bind_dn=dn_of("alice"), scram=("SHA-256",))
    with hashing() as around:
        async with extauth_ldap.open(config, around) as opened:
            assert await login(opened, "bob", ACCOUNTS["bob"]) == Reject(Reason.BAD_PASSWORD)
            assert await ask(opened, FindKeys(Identity("bob", DOMAIN), ORIGIN, "SHA-256")) is None


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("replace: pwdAccountLockedTime\npwdAccountLockedTime: 000001010000Z", Reason.ACCOUNT_LOCKED),
        ("replace: pwdReset\npwdReset: TRUE", Reason.MUST_CHANGE_PASSWORD),
    ],
)
async def test_an_entry_that_is_locked_keeps_its_user_out(backend: Backend, slapd: Slapd, lines: str, reason: Reason) -> None:
    slapd.modify(f"dn: {dn_of('alice')}\nchangetype: modify\n{lines}\n")
    assert await login(backend, "alice", ACCOUNTS["alice"]) == Reject(reason)
    assert await login(backend, "alice", "fake wrong") == Reject(Reason.BAD_PASSWORD)
    keys = await ask(backend, FindKeys(ALICE, ORIGIN, "SHA-256"))
    assert isinstance(keys, Keys)
    assert keys.refusal is reason
    assert await ask(backend, CheckCertificate(ALICE, ORIGIN)) == Reject(reason)
    assert await ask(backend, UserExists(ALICE, ORIGIN)) == Accept(ALICE)


async def test_groups_count_for_scram_too(site: Site, slapd: Slapd) -> None:
    add_group(slapd, "chat", dn_of("alice"))
    group = f"cn=chat,{GROUPS}"
    keys: dict[str, Any] = {"required_group": group, "roles": (f"talker:{group}",), "scram": ("SHA-256",)}
    config = site.config(slapd.tls_url, password_attribute="userPassword", **keys)
    with hashing() as around:
        async with extauth_ldap.open(config, around) as opened:
            found = {name: await ask(opened, FindKeys(Identity(name, DOMAIN), ORIGIN, "SHA-256")) for name in ("alice", "bob")}
            assert await login(opened, "bob", ACCOUNTS["bob"]) == Reject(Reason.NOT_IN_GROUP)
    alice, bob = found["alice"], found["bob"]
    assert isinstance(alice, Keys)
    assert isinstance(bob, Keys)
    assert (alice.refusal, alice.attributes) == (None, {"role": "talker"})
    assert bob.refusal is Reason.NOT_IN_GROUP


async def test_a_new_password_is_stored_by_the_directory_unless_a_form_is_named(site: Site, slapd: Slapd) -> None:
    slapd.modify(MANAGER)
    site.secret.write_text("fake manager")
    binding = site.config(slapd.tls_url, bind_dn=f"cn=manager,{PEOPLE}")
    config = replace(binding, password_attribute="userPassword")
    with hashing() as around:
        async with extauth_ldap.open(replace(config, password_form=SCRAM, scram=("SHA-256",)), around) as opened:
            assert is_yes(await ask(opened, SetPassword(ALICE, ORIGIN, Secret("battery staple"))), "alice")
            assert isinstance(await ask(opened, FindKeys(ALICE, ORIGIN, "SHA-256")), Keys)
        assert await login_by(binding, "alice", "battery staple") == Reject(Reason.BAD_PASSWORD)
        async with extauth_ldap.open(config, around) as opened:
            assert is_yes(await login(opened, "alice", "battery staple"), "alice")
            assert is_yes(await ask(opened, SetPassword(ALICE, ORIGIN, Secret("staple battery"))), "alice")
            assert await ask(opened, SetPassword(ALICE, ORIGIN, Secret("\u00ad"))) == Reject(Reason.MALFORMED)
    assert is_yes(await login_by(binding, "alice", "staple battery"), "alice")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"scram": ("SHA-256",)}, "need password_attribute"),
        ({"password_form": "ssha512"}, "need password_attribute"),
        ({"password_attribute": "userPassword", "password_form": "rot13"}, "password_form: 'rot13' is none"),
        ({"password_attribute": "userPassword", "weak_schemes": ("rot13",)}, "weak_schemes: 'rot13' is none"),
        ({"password_attribute": "userPassword", "password_form": "scram-sha-256"}, "would be taken for a plain password"),
        ({"password_attribute": "userPassword", "active_directory": True}, "shows stored passwords"),
    ],
)
def test_what_is_wrong_is_told(site: Site, keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        site.config("ldaps://a", **keys)
    assert problem in str(caught.value)
