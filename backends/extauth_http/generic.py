"""An API of your own: one POST, JSON or a form; the status tells the answer, or a member of the JSON response does."""

import json
from urllib.parse import urlencode

from msgspec import Struct

from extauth.model import Accept, Answer, CheckPassword, Reason, Reject, Request, Secret
from extauth_http.api import Call, as_json, member, named, nonsense

OK, NO_CONTENT, UNAUTHORIZED, FORBIDDEN, NOT_FOUND = 200, 204, 401, 403, 404


class Rules(Struct, frozen=True):
    """The configured names. `accept_member` is a path into the JSON response ("data.ok"); "" goes by the status alone."""

    body: str
    user: str
    domain: str
    password: str
    accept_member: str
    accept_value: str
    name_member: str
    role_member: str


class Generic:
    """Posts user, domain and password. 401 and 403 refuse; 404 is an unknown user; 200 and 204 accept, unless the body must."""

    handles: frozenset[type[Request]] = frozenset({CheckPassword})

    def __init__(self, rules: Rules, authorization: Secret | None) -> None:
        self._rules = rules
        self._headers = {"Authorization": authorization.reveal()} if authorization else {}

    def call(self, request: Request) -> Call:
        """Return the POST."""
        assert isinstance(request, CheckPassword)
        rules = self._rules
        fields = {
            rules.user: request.identity.user,
            rules.domain: request.identity.domain,
            rules.password: request.password.reveal(),
        }
        if rules.body == "json":
            return Call("POST", "", {**self._headers, "Content-Type": "application/json"}, json.dumps(fields).encode())
        headers = {**self._headers, "Content-Type": "application/x-www-form-urlencoded"}
        return Call("POST", "", headers, urlencode(fields).encode())

    def judge(self, request: Request, status: int, body: bytes) -> Answer | None:
        """Go by the status, then by the configured members of the response."""
        if status == NOT_FOUND:
            return None
        if status in (UNAUTHORIZED, FORBIDDEN):
            return Reject(Reason.BAD_PASSWORD)
        if status not in (OK, NO_CONTENT):
            raise nonsense(status)
        rules = self._rules
        if not (rules.accept_member or rules.name_member or rules.role_member):
            return Accept(request.identity)
        found = as_json(status, body)
        if rules.accept_member and _word(member(found, rules.accept_member)) != rules.accept_value:
            return Reject(Reason.BAD_PASSWORD)
        accept = named(request, member(found, rules.name_member) if rules.name_member else None)
        role = member(found, rules.role_member) if rules.role_member else None
        return Accept(accept.identity, {"role": role}) if accept and isinstance(role, str) and role else accept


def _word(value: object) -> str:
    """Return a JSON value as the configuration writes it: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
