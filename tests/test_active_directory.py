"""Backend `ldap` on a real Active Directory domain controller (Samba)."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import extauth_ldap
import pytest
from extauth_ldap import Config
from extauth_ldap.desk import Desk
from extauth_ldap.messages import Check, Setup, Told
from extauth_ldap.servers import Servers

from extauth.backend import Backend
from extauth.errors import BackendDown
from extauth.layers.cache import Caching, Remembered
from extauth.layers.rules import CacheRules
from extauth.model import (
    Accept,
    CheckCertificate,
    CheckPassword,
    Decoy,
    Identity,
    Reason,
    Reject,
    Secret,
    SetPassword,
    UserExists,
)
from tests import needs
from tests.certificates import Certificates
from tests.contract import ACCOUNTS, ALICE, DOMAIN, ORIGIN, BackendContract, ask, is_yes, login
from tests.servers.process import temporary_folder
from tests.servers.samba import ADMIN, ADMIN_PASSWORD, SUFFIX, TLS_URL, URL, USERS, Samba, dn_of
from tests.test_ldap import PATIENT, context, login_by

pytestmark = [needs.debian("samba"), needs.root()]

LONG_AGO = 132_000_000_000_000_000  # 2019, in 100 ns since 1601
DISABLED = 514  # userAccountControl


@pytest.fixture(scope="module")
def domain(certificates: Certificates) -> Iterator[Samba]:
    """Give a domain controller with the contract's accounts, whose short names are account0 and so on."""
    with temporary_folder() as folder, Samba(folder, certificates) as samba:
        for number, (name, password) in enumerate(ACCOUNTS.items()):
            samba.add_user(name, password, sAMAccountName=f"account{number}")
        yield samba


@pytest.fixture
def samba(domain: Samba) -> Samba:
    """Give the domain controller with the passwords as they were at first, and no lock-out."""
    domain.change(SUFFIX, lockoutThreshold=0)
    for name in ("alice", "bob"):
        domain.set_password(dn_of(name), ACCOUNTS[name])
    return domain


@pytest.fixture
def config(samba: Samba, certificates: Certificates) -> Config:
    """Give a configuration that finds users by their userPrincipalName."""
    secret = samba.folder / "secret"
    secret.write_text(ADMIN_PASSWORD)
    secret.chmod(0o600)
    return Config(
        servers=(TLS_URL,),
        ca_file=str(certificates.ca),
        bind_dn=ADMIN,
        bind_password_file=str(secret),
        base=SUFFIX,
        filter="(&(objectCategory=person)(userPrincipalName={user}@{domain}))",
        name_attribute="userPrincipalName",
        active_directory=True,
        **PATIENT,
    )


@pytest.fixture
async def backend(config: Config) -> AsyncIterator[Backend]:
    """Give a backend of this configuration."""
    async with extauth_ldap.open(config, context()) as opened:
        yield opened


class TestContract(BackendContract):
    """The contract, by userPrincipalName."""

    handles = frozenset({CheckPassword, CheckCertificate, UserExists, SetPassword, Decoy})


# Names ------------------------------------------------------------------------------------------------------------------------


async def test_start_tls_and_the_account_name_log_in(config: Config) -> None:
    filter_ = "(&(objectCategory=person)(sAMAccountName={user}))"
    config = replace(config, servers=(URL,), start_tls=True, filter=filter_, name_attribute="sAMAccountName")
    assert is_yes(await login_by(config, "account0", ACCOUNTS["alice"]), "account0")
    assert await login_by(config, "account0", "fake wrong") == Reject(Reason.BAD_PASSWORD)
    assert await login_by(config, "alice", ACCOUNTS["alice"]) is None


@pytest.mark.parametrize(
    ("template", "user"),
    [("{user}@example.com", "alice"), ("EXAMPLE\\{user}", "account0"), (f"CN={{user}},{USERS}", b"alice".hex())],
)
async def test_a_principal_name_is_bound_directly(certificates: Certificates, samba: Samba, template: str, user: str) -> None:
    config = Config(servers=(TLS_URL,), ca_file=str(certificates.ca), bind_dn_template=template)
    assert is_yes(await login_by(config, user, ACCOUNTS["alice"]), user)
    assert await login_by(config, user, "fake wrong") == Reject(Reason.BAD_PASSWORD)
    assert await login_by(config, "nobody", ACCOUNTS["alice"]) == Reject(Reason.BAD_PASSWORD)


async def test_the_other_signs_of_a_principal_name_are_of_no_use(certificates: Certificates, samba: Samba) -> None:
    config = Config(servers=(TLS_URL,), ca_file=str(certificates.ca), bind_dn_template="{user}@example.com")
    for user in ("EXAMPLE\\account0", "alice@example.com", "alice ", '"alice"'):
        assert await login_by(config, user, ACCOUNTS["alice"]) is None


# Reasons ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"userAccountControl": DISABLED}, Reason.DISABLED),
        ({"accountExpires": LONG_AGO}, Reason.ACCOUNT_EXPIRED),
        ({"pwdLastSet": 0}, Reason.MUST_CHANGE_PASSWORD),
    ],
)
async def test_an_account_that_may_not_log_in_has_its_reason(
    backend: Backend, samba: Samba, attributes: dict[str, int], reason: Reason
) -> None:
    (name,) = attributes
    samba.add_user(name, "fake right", sAMAccountName=name[:20])
    samba.change(dn_of(name), **attributes)
    assert await login(backend, name.lower(), "fake right") == Reject(reason)
    if reason is Reason.DISABLED:  # also by a certificate
        assert await ask(backend, CheckCertificate(Identity(name.lower(), DOMAIN), ORIGIN)) == Reject(reason)


async def test_a_locked_account_is_told_also_to_who_knows_the_password(backend: Backend, samba: Samba) -> None:
    samba.change(SUFFIX, lockoutThreshold=3)
    samba.add_user("locked", "fake right")
    for _ in range(3):
        assert await login(backend, "locked", "fake wr\u00f6ng") == Reject(Reason.BAD_PASSWORD)
    assert samba.read(dn_of("locked"), "badPwdCount") == "3"
    assert await login(backend, "locked", "fake right") == Reject(Reason.ACCOUNT_LOCKED)


async def test_a_password_is_tried_once(backend: Backend, samba: Samba) -> None:
    """A password that SASLprep and OpaqueString turn into two others; U+00B2 is kept, as Windows' own tools do."""
    samba.change(SUFFIX, lockoutThreshold=3)
    samba.add_user("square", "fake \u00b2 \u00fc")
    assert await login(backend, "square", "fake \u00b2\u00b2 u\u0308") == Reject(Reason.BAD_PASSWORD)
    assert samba.read(dn_of("square"), "badPwdCount") == "1"
    assert is_yes(await login(backend, "square", "fake \u00b2 u\u0308"), "square")


async def test_a_client_that_repeats_a_stale_password_locks_nobody_out(backend: Backend, samba: Samba) -> None:
    samba.change(SUFFIX, lockoutThreshold=3)
    for name in ("spared", "unspared"):
        samba.add_user(name, "fake right")
    sparing = Caching("people", backend, CacheRules(repeats=300), Remembered(100))
    for number in range(10):
        assert await login(sparing, "spared", "fake stale") == Reject(Reason.BAD_PASSWORD, via="repeat" if number else "")
        if number == 5:
            assert samba.read(dn_of("spared"), "badPwdCount") == "1"
            assert is_yes(await login(sparing, "spared", "fake right"), "spared")
    assert is_yes(await login(sparing, "spared", "fake right"), "spared")
    for _ in range(3):
        assert await login(backend, "unspared", "fake stale") == Reject(Reason.BAD_PASSWORD)
    assert await login(backend, "unspared", "fake right") == Reject(Reason.ACCOUNT_LOCKED)


# Groups -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"groups_by": "in-chain"}, {"nested": True}, {"nested": True, "groups_by": "search"}], ids=str)
async def test_members_of_members_are_found(config: Config, samba: Samba, how: dict[str, Any]) -> None:
    number = len(str(how))
    inner = samba.add_group(f"inner{number}", dn_of("alice"))
    middle = samba.add_group(f"middle{number}", inner)
    outer = samba.add_group(f"outer{number}", middle, dn_of("bob"))
    samba.change(inner, member=outer)  # a cycle, which leaves alice out
    samba.change(middle, member=dn_of("alice"))
    flat = replace(config, group_base=USERS, required_group=outer, roles=(f"staff:{middle}",))
    config = replace(flat, **how)
    assert await login_by(config) == Accept(ALICE, {"role": "staff"})
    assert await login_by(config, "gr\u00fcn", ACCOUNTS["gr\u00fcn"]) == Reject(Reason.NOT_IN_GROUP)
    assert await login_by(flat) == Reject(Reason.NOT_IN_GROUP)
    assert is_yes(await login_by(flat, "bob", ACCOUNTS["bob"]), "bob")


# Passwords --------------------------------------------------------------------------------------------------------------------


async def test_a_password_that_the_domain_forbids_is_refused(backend: Backend, samba: Samba) -> None:
    samba.change(SUFFIX, minPwdLength=12)
    try:
        answer = await ask(backend, SetPassword(ALICE, ORIGIN, Secret("too short")))
        assert answer == Reject(Reason.PASSWORD_REFUSED)
        assert is_yes(await ask(backend, SetPassword(ALICE, ORIGIN, Secret("gr\u00fcn is \u00b2 long enough"))), "alice")
        assert is_yes(await login(backend, "alice", "gru\u0308n is \u00b2 long enough"), "alice")
    finally:
        samba.change(SUFFIX, minPwdLength=0)


async def test_an_account_without_the_right_can_not_set_passwords(config: Config, samba: Samba) -> None:
    secret = samba.folder / "alice"
    secret.write_text(ACCOUNTS["alice"])
    secret.chmod(0o600)
    config = replace(config, bind_dn="alice@example.com", bind_password_file=str(secret))
    async with extauth_ldap.open(config, context()) as opened:
        change = SetPassword(Identity("bob", DOMAIN), ORIGIN, Secret("battery staple"))
        assert await ask(opened, change) == Reject(Reason.NOT_SUPPORTED)


async def test_active_directory_takes_no_password_in_plain_text(config: Config) -> None:
    with pytest.raises(BackendDown, match="strongerAuthRequired"):
        await login_by(replace(config, servers=(URL,), allow_plaintext=True))


# Referrals --------------------------------------------------------------------------------------------------------------------


def test_the_referrals_of_a_search_of_the_whole_domain_are_left_alone(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refers to the domain's partitions on hosts that don't exist here: to follow them would be an outage."""
    references: list[tuple[str, ...]] = []
    plain = Servers.run

    def run(self: Servers, *arguments: Any) -> Any:  # noqa: ANN401
        result = plain(self, *arguments)
        references.extend(getattr(result, "references", ()))
        return result

    monkeypatch.setattr(Servers, "run", run)
    with closing(Desk(Setup("people", config, Secret(ADMIN_PASSWORD)))) as desk:
        assert desk.answer(Check(ALICE, Secret(ACCOUNTS["alice"])), time.monotonic() + 20) == Told(Reason.OK)
    assert references
