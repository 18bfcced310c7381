"""The API of JSXC: what the apps of Nextcloud and ownCloud, and other applications with JSXC, answer (xcauth, doc/Protocol.md).

A form is posted, signed by a header with a shared secret; the response is JSON.
"""

import hmac
from urllib.parse import urlencode

from extauth.model import Accept, Answer, CheckPassword, Reason, Reject, Request, Secret, UserExists
from extauth_http.api import Call, as_json, member, named, nonsense


class Jsxc:
    """Asks `operation=auth` and `operation=isuser`."""

    handles: frozenset[type[Request]] = frozenset({CheckPassword, UserExists})

    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def call(self, request: Request) -> Call:
        """Return the signed form."""
        user, domain = request.identity.user, request.identity.domain
        form = {"operation": "isuser", "username": user, "domain": domain}
        if isinstance(request, CheckPassword):
            form = {**form, "operation": "auth", "password": request.password.reveal()}
        body = urlencode(form).encode()
        signature = hmac.new(self._secret.reveal().encode(), body, "sha1").hexdigest()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "X-JSXC-SIGNATURE": f"sha1={signature}"}
        return Call("POST", "", headers, body)

    def judge(self, request: Request, status: int, body: bytes) -> Answer | None:
        """Read `result`, and the names in `data`."""
        if status != 200:  # noqa: PLR2004 - OK
            raise nonsense(status)
        found = as_json(status, body)
        result = found.get("result")
        if isinstance(request, UserExists):
            known = member(found, "data.isUser")
            if result != "success" or not isinstance(known, bool):
                raise nonsense(status)
            return Accept(request.identity) if known else None
        if result == "success":
            return named(request, member(found, "data.uid"))
        if result == "noauth":
            return Reject(Reason.BAD_PASSWORD)
        raise nonsense(status)
