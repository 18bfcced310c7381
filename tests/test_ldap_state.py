"""Backend `ldap` where nobody binds: what entries show of accounts that may not log in, on a real slapd and as plain values."""

import time

import extauth_ldap
import pytest
from extauth_ldap import diagnosis
from extauth_ldap.answers import Entry
from hypothesis import given
from hypothesis import strategies as st

from extauth.backend import Backend
from extauth.errors import BackendDown
from extauth.model import Accept, Answer, CheckCertificate, Reason, Reject
from tests import needs
from tests.contract import ACCOUNTS, ALICE, ORIGIN, ask, login
from tests.servers.slapd import POLICY, Slapd, dn_of
from tests.test_ldap import Site, context
from tests.test_ldap import site as site  # noqa: PLC0414 - a fixture
from tests.test_ldap import slapd as slapd  # noqa: PLC0414 - a fixture

HOUR = 3600
LOCKED = Reject(Reason.ACCOUNT_LOCKED)


def modify(slapd: Slapd, dn: str, **attributes: str) -> None:
    """Replace attributes of an entry, also those that slapd keeps itself."""
    for name, value in attributes.items():
        slapd.modify(f"dn: {dn}\nchangetype: modify\nreplace: {name}\n{name}: {value}\n", relaxed=True)


def ago(seconds: float) -> str:
    """Return a time of the past as slapd writes it."""
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() - seconds))


async def both(backend: Backend) -> tuple[Answer | None, Answer | None]:
    """Log alice in by her certificate, then by her password, which ends a lock that is over."""
    return await ask(backend, CheckCertificate(ALICE, ORIGIN)), await login(backend, "alice", ACCOUNTS["alice"])


@needs.debian("slapd")
async def test_a_lock_for_some_time_counts_as_long_as_for_a_bind(site: Site, slapd: Slapd) -> None:
    async with extauth_ldap.open(site.config(slapd.tls_url, password_policy=POLICY), context()) as backend:
        modify(slapd, dn_of("alice"), pwdAccountLockedTime=ago(HOUR))
        assert await both(backend) == (LOCKED, LOCKED)  # the policy has no end of locks
        modify(slapd, POLICY, pwdLockoutDuration=str(2 * HOUR))
        assert await both(backend) == (LOCKED, LOCKED)
        modify(slapd, POLICY, pwdLockoutDuration="600")
        assert await both(backend) == (Accept(ALICE), Accept(ALICE))


@needs.debian("slapd")
async def test_a_policy_of_the_entry_s_own_goes_before(site: Site, slapd: Slapd) -> None:
    own = f"cn=own,{POLICY.partition(',')[2]}"
    slapd.modify(
        f"dn: {own}\nchangetype: add\nobjectClass: device\nobjectClass: pwdPolicy\ncn: own\npwdAttribute: userPassword\n"
        f"pwdLockout: TRUE\npwdLockoutDuration: {2 * HOUR}\n"
    )
    modify(slapd, POLICY, pwdLockoutDuration="600")
    modify(slapd, dn_of("alice"), pwdAccountLockedTime=ago(HOUR), pwdPolicySubentry=own)
    for keys in ({"password_policy": POLICY}, {}):
        async with extauth_ldap.open(site.config(slapd.tls_url, **keys), context()) as backend:
            assert await both(backend) == (LOCKED, LOCKED)


@needs.debian("slapd")
async def test_without_a_policy_only_a_lock_for_good_counts(site: Site, slapd: Slapd) -> None:
    async with extauth_ldap.open(site.config(slapd.tls_url), context()) as backend:
        modify(slapd, dn_of("alice"), pwdAccountLockedTime=ago(10))
        assert await both(backend) == (Accept(ALICE), LOCKED)
        modify(slapd, dn_of("alice"), pwdAccountLockedTime="000001010000Z")
        assert await both(backend) == (LOCKED, LOCKED)


@needs.debian("slapd")
async def test_an_account_has_a_beginning_and_an_end(site: Site, slapd: Slapd) -> None:
    async with extauth_ldap.open(site.config(slapd.tls_url), context()) as backend:
        for times, good in (
            ({"pwdStartTime": ago(-HOUR)}, False),
            ({"pwdStartTime": ago(HOUR)}, True),
            ({"pwdEndTime": ago(-HOUR)}, True),
            ({"pwdEndTime": ago(HOUR)}, False),
        ):
            modify(slapd, dn_of("alice"), **times)
            expected = Accept(ALICE) if good else LOCKED
            assert await both(backend) == (expected, expected), times


@needs.debian("slapd")
async def test_a_policy_that_can_not_be_read_is_an_outage(site: Site, slapd: Slapd) -> None:
    name = f"cn=nowhere,{POLICY}"
    async with extauth_ldap.open(site.config(slapd.tls_url, password_policy=name), context()) as backend:
        assert await ask(backend, CheckCertificate(ALICE, ORIGIN)) == Accept(ALICE)
        modify(slapd, dn_of("alice"), pwdAccountLockedTime=ago(10))
        with pytest.raises(BackendDown, match=f"the password policy {name} can't be read"):
            await ask(backend, CheckCertificate(ALICE, ORIGIN))


def test_a_policy_needs_a_search(site: Site) -> None:
    with pytest.raises(ValueError, match="password_policy: needs a search"):
        site.direct("ldaps://a", "uid={user},dc=x", password_policy="cn=policy")


# As plain values --------------------------------------------------------------------------------------------------------------

NOW = 1_750_000_000.0  # 2025-06-15
TODAY = (int(NOW) + 11_644_473_600) * 10_000_000  # as Active Directory counts


def entry(**attributes: object) -> Entry:
    """Return an entry, with names as the directory would be asked for them."""
    return Entry("cn=x", {name.lower().replace("_", "-"): (str(value),) for name, value in attributes.items()})


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({}, None),
        ({"userAccountControl": 512, "msDS_User_Account_Control_Computed": 0, "accountExpires": 0, "pwdLastSet": 0}, None),
        ({"accountExpires": 0x7FFFFFFFFFFFFFFF}, None),
        ({"accountExpires": TODAY + 10_000_000}, None),
        ({"accountExpires": TODAY}, Reason.ACCOUNT_EXPIRED),
        ({"accountExpires": 1}, Reason.ACCOUNT_EXPIRED),
        ({"userAccountControl": 514}, Reason.DISABLED),
        ({"msDS_User_Account_Control_Computed": 0x10}, Reason.ACCOUNT_LOCKED),
        ({"msDS_User_Account_Control_Computed": 0x800010, "userAccountControl": 514}, Reason.ACCOUNT_LOCKED),
        ({"msDS_User_Account_Control_Computed": 0x800000}, Reason.CREDENTIALS_EXPIRED),
        ({"msDS_User_Account_Control_Computed": 0x800000, "pwdLastSet": TODAY}, Reason.CREDENTIALS_EXPIRED),
        ({"msDS_User_Account_Control_Computed": 0x800000, "pwdLastSet": 0}, Reason.MUST_CHANGE_PASSWORD),
        ({"msDS_User_Account_Control_Computed": 0x800000, "accountExpires": TODAY}, Reason.ACCOUNT_EXPIRED),
        ({"nsAccountLock": "true"}, Reason.DISABLED),
    ],
)
def test_what_an_entry_says(attributes: dict[str, object], reason: Reason | None) -> None:
    assert diagnosis.of_entry(entry(**attributes), NOW) is reason


@given(
    values=st.lists(st.text(max_size=20) | st.integers().map(str), min_size=len(diagnosis.STATE), max_size=len(diagnosis.STATE))
)
def test_garbage_says_something_or_nothing(values: list[str]) -> None:
    found = Entry("cn=x", {name.lower(): (value,) for name, value in zip(diagnosis.STATE, values, strict=False)})
    assert diagnosis.of_entry(found, NOW) in (None, *Reason)
    lock = diagnosis.lock(found)
    assert lock is None or diagnosis.locks(Entry("cn=y", {"pwdlockoutduration": (values[0],)}), lock, NOW) in (True, False)
