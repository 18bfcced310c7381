"""Why a bind or a change was refused: what the directories of this world say beside "invalid credentials", as reason codes."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from extauth.errors import BackendDown
from extauth.model import Reason
from extauth_ldap.answers import SUCCESS, Entry, Outcome

_INVALID_CREDENTIALS, _INAPPROPRIATE_AUTHENTICATION = 49, 48
_CONSTRAINT_VIOLATION, _UNWILLING_TO_PERFORM, _INSUFFICIENT_ACCESS = 19, 53, 50

_SUB_CODES = {  # of Active Directory; [MS-ERREF] 2.2
    "525": Reason.NO_USER,
    "52e": Reason.BAD_PASSWORD,
    "52f": Reason.LOGON_RESTRICTED,  # by a restriction of the account
    "530": Reason.LOGON_RESTRICTED,  # not at this time
    "531": Reason.LOGON_RESTRICTED,  # not from here
    "532": Reason.CREDENTIALS_EXPIRED,
    "533": Reason.DISABLED,
    "569": Reason.LOGON_RESTRICTED,  # not in this way
    "701": Reason.ACCOUNT_EXPIRED,
    "773": Reason.MUST_CHANGE_PASSWORD,
    "775": Reason.ACCOUNT_LOCKED,
}
_POLICY_ERRORS = {  # draft-behera-ldap-password-policy section 6.2
    0: Reason.CREDENTIALS_EXPIRED,
    1: Reason.ACCOUNT_LOCKED,
    2: Reason.MUST_CHANGE_PASSWORD,
}
_SHORT, _QUALITY, _REUSED = 6, 5, 8

# Where the entry itself says what a bind would: OpenLDAP's password policy for good, a reset, 389's lock.
_LOCKED = "pwdAccountLockedTime"
_MARKS = (
    (_LOCKED, "000001010000Z", Reason.ACCOUNT_LOCKED),
    ("pwdReset", "TRUE", Reason.MUST_CHANGE_PASSWORD),
    ("nsAccountLock", "TRUE", Reason.DISABLED),
)
_STARTS, _ENDS = "pwdStartTime", "pwdEndTime"  # of an account, since OpenLDAP 2.5
_POLICY_OF = "pwdPolicySubentry"
_LOCKOUT = "pwdLockoutDuration"

# Active Directory's: [MS-ADTS] 2.2.16 and 3.1.1.4.5.17, [MS-ADA1] accountExpires.
_CONTROL, _COMPUTED = "userAccountControl", "msDS-User-Account-Control-Computed"
_EXPIRES, _LAST_SET = "accountExpires", "pwdLastSet"
_FLAG_DISABLED, _FLAG_LOCKED, _FLAG_EXPIRED = 0x2, 0x10, 0x800000
_NEVER = (0, 0x7FFFFFFFFFFFFFFF)
_EPOCH = 11_644_473_600  # seconds from 1601, where its times begin, to 1970
_TICKS = 10_000_000  # of its times in a second

_DIGITS = re.compile(r"[0-9]{1,20}", re.ASCII).fullmatch

STATE = (*(name for name, _, _ in _MARKS), _STARTS, _ENDS, _POLICY_OF, _CONTROL, _COMPUTED, _EXPIRES, _LAST_SET)
"""The attributes that `of_entry` and `lock` look at."""


def of_entry(entry: Entry, now: float) -> Reason | None:
    """Return why a user may not log in, if the entry tells; for logins that need no bind. `now` is Unix time in seconds."""
    for name, sign, reason in _MARKS:
        if sign in (value.upper() for value in _values(entry, name)):
            return reason
    starts, ends = _time(entry, _STARTS), _time(entry, _ENDS)
    if (starts is not None and now < starts) or (ends is not None and ends <= now):
        return Reason.ACCOUNT_LOCKED  # as a bind calls it
    control, computed = _number(entry, _CONTROL), _number(entry, _COMPUTED)
    if computed & _FLAG_LOCKED:
        return Reason.ACCOUNT_LOCKED
    if control & _FLAG_DISABLED:
        return Reason.DISABLED
    expires = _number(entry, _EXPIRES)
    if expires not in _NEVER and expires / _TICKS - _EPOCH <= now:
        return Reason.ACCOUNT_EXPIRED
    if computed & _FLAG_EXPIRED:
        return Reason.MUST_CHANGE_PASSWORD if _values(entry, _LAST_SET) == ("0",) else Reason.CREDENTIALS_EXPIRED
    return None


class Lock(NamedTuple):
    """A lock of OpenLDAP's password policy: since when (Unix seconds), and the name of the entry's own policy, "" for none."""

    since: float
    policy: str


def lock(entry: Entry) -> Lock | None:
    """Return the lock for some time that an entry has or had: it stays there until the next good bind."""
    since = _time(entry, _LOCKED)
    return None if since is None else Lock(since, next(iter(_values(entry, _POLICY_OF)), ""))


LOCK_RULES = (_LOCKOUT,)
"""The attributes that `locks` looks at."""


def locks(policy: Entry, lock: Lock, now: float) -> bool:
    """Tell whether a policy still keeps a lock. Without a duration it is kept until somebody undoes it."""
    duration = _number(policy, _LOCKOUT)
    return not duration or now < lock.since + duration


def _values(entry: Entry, name: str) -> tuple[str, ...]:
    return entry.attributes.get(name.lower(), ())


def _time(entry: Entry, name: str) -> float | None:
    """Return a GeneralizedTime (RFC 4517 section 3.3.13) as directories write it, in Unix seconds."""
    for value in _values(entry, name):
        with suppress(ValueError):
            return datetime.strptime(value[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
    return None


def _number(entry: Entry, name: str) -> int:
    return next((int(value) for value in _values(entry, name) if _DIGITS(value)), 0)


def of_bind(outcome: Outcome) -> Reason:
    """Return `Reason.OK`, or why the user may not log in.

    Raises:
        BackendDown: the answer is neither yes nor no.
    """
    if outcome.code == SUCCESS:
        return _of_success(outcome)
    if outcome.code == _INAPPROPRIATE_AUTHENTICATION:  # the entry has no password
        return Reason.BAD_PASSWORD
    if outcome.code == _INVALID_CREDENTIALS:
        return _of_refusal(outcome)
    reason = _of_389(outcome)
    if reason is None:
        raise BackendDown(f"bind answered by {outcome.name}")
    return reason


def _of_success(outcome: Outcome) -> Reason:
    # A bind that succeeds only so that the password can be changed is no login.
    if outcome.policy is not None:
        return _POLICY_ERRORS.get(outcome.policy, Reason.BAD_PASSWORD)
    return Reason.MUST_CHANGE_PASSWORD if outcome.expired else Reason.OK


def _of_refusal(outcome: Outcome) -> Reason:
    if outcome.policy is not None:
        return _POLICY_ERRORS.get(outcome.policy, Reason.BAD_PASSWORD)
    if outcome.expired:
        return Reason.CREDENTIALS_EXPIRED
    if outcome.sub_code is None:
        return Reason.BAD_PASSWORD
    if outcome.sub_code not in _SUB_CODES:  # among them 51f: no domain controller that it would have to ask
        raise BackendDown(f"bind refused by Active Directory's code {outcome.sub_code}")
    return _SUB_CODES[outcome.sub_code]


def _of_389(outcome: Outcome) -> Reason | None:
    """Return what 389 Directory Server and FreeIPA mean, which have words instead of codes; None if it isn't theirs."""
    if outcome.code == _CONSTRAINT_VIOLATION and "retry limit" in outcome.message:
        return Reason.ACCOUNT_LOCKED
    if outcome.code == _UNWILLING_TO_PERFORM and "inactivated" in outcome.message:
        return Reason.DISABLED
    if outcome.code == _UNWILLING_TO_PERFORM and "expired" in outcome.message:
        return Reason.ACCOUNT_EXPIRED
    return None


def of_change(outcome: Outcome) -> Reason:
    """Return `Reason.OK`, or why the password was not changed.

    Raises:
        BackendDown: the answer is neither yes nor no.
    """
    if outcome.code == SUCCESS:
        return Reason.OK
    if outcome.code == _INSUFFICIENT_ACCESS:
        return Reason.NOT_SUPPORTED
    if outcome.policy == _SHORT:
        return Reason.PASSWORD_TOO_SHORT
    if outcome.code in (_CONSTRAINT_VIOLATION, _UNWILLING_TO_PERFORM) or outcome.policy in (_QUALITY, _REUSED):
        return Reason.PASSWORD_REFUSED
    raise BackendDown(f"change of password answered by {outcome.name}")
