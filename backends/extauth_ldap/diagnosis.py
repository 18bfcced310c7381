"""Why a bind or a change was refused: Active Directory's sub-codes and OpenLDAP's password policy as reason codes."""

import re

from extauth.errors import BackendDown
from extauth.model import Reason
from extauth_ldap.wire import SUCCESS, Outcome

INVALID_CREDENTIALS, INAPPROPRIATE_AUTHENTICATION = 49, 48
CONSTRAINT_VIOLATION, UNWILLING_TO_PERFORM, INSUFFICIENT_ACCESS = 19, 53, 50

# "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data 52e, v3839"; [MS-ERREF] 2.2 in hexadecimal
_SUB_CODE = re.compile(r"\bdata ([0-9a-f]{3}),", re.IGNORECASE)
_SUB_CODES = {
    "525": Reason.NO_USER,
    "52e": Reason.BAD_PASSWORD,
    "530": Reason.LOGON_RESTRICTED,  # not at this time
    "531": Reason.LOGON_RESTRICTED,  # not from here
    "532": Reason.CREDENTIALS_EXPIRED,
    "533": Reason.DISABLED,
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


def of_bind(outcome: Outcome) -> Reason:
    """Return `Reason.OK`, or why the user may not log in.

    Raises:
        BackendDown: the answer is neither yes nor no.
    """
    if outcome.code == SUCCESS:
        # A bind that succeeds only so that the password can be changed is no login.
        return Reason.OK if outcome.policy is None else _POLICY_ERRORS.get(outcome.policy, Reason.BAD_PASSWORD)
    if outcome.code == INAPPROPRIATE_AUTHENTICATION:  # the entry has no password
        return Reason.BAD_PASSWORD
    if outcome.code != INVALID_CREDENTIALS:
        raise BackendDown(f"bind answered by {outcome.name}")
    if outcome.policy is not None:
        return _POLICY_ERRORS.get(outcome.policy, Reason.BAD_PASSWORD)
    sub_code = _SUB_CODE.search(outcome.message)
    return _SUB_CODES.get(sub_code[1].lower(), Reason.BAD_PASSWORD) if sub_code else Reason.BAD_PASSWORD


def of_change(outcome: Outcome) -> Reason:
    """Return `Reason.OK`, or why the password was not changed.

    Raises:
        BackendDown: the answer is neither yes nor no.
    """
    if outcome.code == SUCCESS:
        return Reason.OK
    if outcome.code == INSUFFICIENT_ACCESS:
        return Reason.NOT_SUPPORTED
    if outcome.policy == _SHORT:
        return Reason.PASSWORD_TOO_SHORT
    if outcome.code in (CONSTRAINT_VIOLATION, UNWILLING_TO_PERFORM) or outcome.policy in (_QUALITY, _REUSED):
        return Reason.PASSWORD_REFUSED
    raise BackendDown(f"change of password answered by {outcome.name}")
