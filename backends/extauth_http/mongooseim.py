"""The API of MongooseIM's `auth.http` and of ejabberd-contrib's `ejabberd_auth_http`, asked as they ask it.

Endpoints `check_password`, `user_exists`, `register`, `set_password` and `remove_user` with the parameters `user`, `server` and
`pass` (MongooseIM doc/authentication-methods/http.md). Its GET requests carry the password in the URL.
"""

from urllib.parse import urlencode

from extauth.model import (
    Accept,
    Answer,
    CheckPassword,
    CreateUser,
    Reason,
    Reject,
    RemoveUser,
    Request,
    Secret,
    SetPassword,
    UserExists,
)
from extauth_http.api import Call, nonsense

_GET: dict[type[Request], str] = {CheckPassword: "check_password", UserExists: "user_exists"}
_POST: dict[type[Request], str] = {CreateUser: "register", SetPassword: "set_password", RemoveUser: "remove_user"}
_DONE: dict[type[Request], tuple[int, ...]] = {CreateUser: (201,), SetPassword: (200, 201, 204), RemoveUser: (200, 204)}
_CONFLICT = 409
_UNKNOWN = 404
_REFUSED = (400, 401, 403)


class MongooseIM:
    """Asks the endpoints below the URL."""

    def __init__(self, authorization: Secret | None, *, allow_changes: bool) -> None:
        self._headers = {"Authorization": authorization.reveal()} if authorization else {}
        self.handles: frozenset[type[Request]] = frozenset({*_GET, *(_POST if allow_changes else ())})

    def call(self, request: Request) -> Call:
        """Return the GET or POST."""
        secret = getattr(request, "password", None)
        parameters = {
            "user": request.identity.user,
            "server": request.identity.domain,
            "pass": secret.reveal() if secret else "",
        }
        text = urlencode(parameters)
        if endpoint := _GET.get(type(request)):
            return Call("GET", f"{endpoint}?{text}", self._headers)
        headers = {**self._headers, "Content-Type": "application/x-www-form-urlencoded"}
        return Call("POST", _POST[type(request)], headers, text.encode())

    def judge(self, request: Request, status: int, body: bytes) -> Answer | None:
        """Read the status, and for the questions the body, which is `true` or `false`."""
        if status == _UNKNOWN:
            return None
        kind = type(request)
        if kind in _GET:
            word = body.strip()
            if status != 200 or word not in (b"true", b"false"):  # noqa: PLR2004 - OK
                raise nonsense(status)
            if word == b"true":
                return Accept(request.identity)
            return Reject(Reason.BAD_PASSWORD) if isinstance(request, CheckPassword) else None
        if status in _DONE[kind]:
            return Accept(request.identity)
        if status == _CONFLICT:
            return Reject(Reason.USER_EXISTS)
        if status in _REFUSED:
            return Reject(Reason.NOT_ALLOWED if isinstance(request, RemoveUser) else Reason.PASSWORD_REFUSED)
        raise nonsense(status)
