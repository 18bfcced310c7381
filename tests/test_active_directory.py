"""Backend `ldap` on a real Active Directory domain controller (Samba)."""

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
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
    Answer,
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
from tests.daemons import Daemon, extauth, head
from tests.servers.process import poll, temporary_folder
from tests.servers.samba import ADMIN, ADMIN_PASSWORD, SUFFIX, TLS_URL, URL, USERS, Samba, dn_of
from tests.test_ldap import PATIENT, context, login_by

pytestmark = [needs.debian("samba"), needs.root()]

LONG_AGO = 132_000_000_000_000_000  # 2019, in 100 ns since 1601
DISABLED = 514  # userAccountControl
COMPUTED = "msDS-User-Account-Control-Computed"
TICKS = 10_000_000  # in a second
LEARNING = """\
[backend.people]
type = "ldap"
servers = ["{config.servers[0]}"]
ca_file = "{config.ca_file}"
bind_dn = "{config.bind_dn}"
bind_password_file = "{config.bind_password_file}"
base = "{config.base}"
filter = "{config.filter}"
name_attribute = "{config.name_attribute}"
active_directory = true
learn_scram = "offer"
learn_iterations = 4096
[domain."example.com"]
backends = ["people"]
"""


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
    assert await certified(backend, name.lower()) == Reject(reason)


async def certified(backend: Backend, name: str) -> Answer | None:
    """Log in by a certificate."""
    return await ask(backend, CheckCertificate(Identity(name, DOMAIN), ORIGIN))


@pytest.mark.parametrize("expires", [0, 0x7FFFFFFFFFFFFFFF, 200_000_000_000_000_000])  # the last is in 2234
async def test_an_account_that_has_not_expired_logs_in(backend: Backend, samba: Samba, expires: int) -> None:
    samba.change(dn_of("bob"), accountExpires=expires)
    assert is_yes(await login(backend, "bob", ACCOUNTS["bob"]), "bob")
    assert is_yes(await certified(backend, "bob"), "bob")


async def test_a_locked_account_is_told_also_to_who_knows_the_password(backend: Backend, samba: Samba) -> None:
    samba.change(SUFFIX, lockoutThreshold=3)
    samba.add_user("locked", "fake right")
    for _ in range(3):
        assert await login(backend, "locked", "fake wr\u00f6ng") == Reject(Reason.BAD_PASSWORD)
    assert samba.read(dn_of("locked"), "badPwdCount") == "3"
    locked = Reject(Reason.ACCOUNT_LOCKED)
    assert await login(backend, "locked", "fake right") == await certified(backend, "locked") == locked
    # A lock is over by the domain's rule, although the time when it began stays with the account.
    samba.change(SUFFIX, lockOutObservationWindow=-1 * TICKS, lockoutDuration=-1 * TICKS)
    try:
        poll(lambda: samba.read(dn_of("locked"), COMPUTED) == "0", "the lock is over")
        assert samba.read(dn_of("locked"), "lockoutTime") not in ("", "0")
        assert is_yes(await certified(backend, "locked"), "locked")
    finally:
        samba.change(SUFFIX, lockOutObservationWindow=-1800 * TICKS, lockoutDuration=-1800 * TICKS)


def test_keys_that_were_learned_do_not_outlive_the_account(config: Config, samba: Samba, tmp: Path) -> None:
    samba.add_user("leaver", "fake right")
    text = head(tmp, sasl=True) + LEARNING.format(config=config)
    with Daemon(tmp, text) as daemon:

        def reason(mechanism: str, password: str = "fake right") -> str:
            arguments = (
                "login",
                "leaver@example.com",
                "--json",
                "--mechanism",
                mechanism,
                "--password-stdin",
                "-c",
                daemon.config,
            )
            return str(json.loads(extauth(*arguments, stdin=password).stdout)["reason"])

        assert reason("PLAIN") == "ok"
        poll(lambda: reason("SCRAM-SHA-512") == "ok", "the keys are learned")
        assert reason("SCRAM-SHA-512", "fake wrong") == "bad-password"
        for attributes, why in (
            ({"accountExpires": LONG_AGO}, "account-expired"),
            ({"accountExpires": 0, "userAccountControl": DISABLED}, "account-disabled"),
            ({"userAccountControl": 512}, "ok"),
        ):
            samba.change(dn_of("leaver"), **attributes)
            assert reason("SCRAM-SHA-512") == why
            assert reason("SCRAM-SHA-512", "fake wrong") == "bad-password"


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
