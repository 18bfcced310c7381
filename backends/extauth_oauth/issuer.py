"""Asking an issuer about a token."""

import base64
import json
from typing import Any, cast
from urllib.parse import quote_plus, urlencode

from extauth.errors import BackendDown
from extauth.fetch import Fetcher
from extauth.model import Secret
from extauth.tokens.jose import Claims
from extauth_oauth.config import Config

_OK, _BAD_REQUEST = 200, 400
_NO_TOKEN = (_BAD_REQUEST, 401, 403)  # what userinfo says of a token that is none (RFC 6750 section 3.1)


class Issuer:
    """One issuer."""

    def __init__(self, config: Config, secret: Secret, fetcher: Fetcher) -> None:
        self._config = config
        self._secret = secret
        self._fetcher = fetcher

    async def ask(self, token: str) -> Claims | None:
        """Return what the issuer says of a token that is good; None: it is not.

        Raises:
            BackendDown: there is no answer, or none that can be understood.
        """
        return await (self._introspect(token) if self._config.introspection_url else self._ask_userinfo(token))

    async def _introspect(self, token: str) -> Claims | None:
        form = {"token": token, "token_type_hint": "access_token"}
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        client, secret = self._config.client_id, self._secret.reveal()
        if self._config.client_auth == "basic":  # RFC 6749 section 2.3.1: both are form-encoded first
            pair = f"{quote_plus(client)}:{quote_plus(secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": client, "client_secret": secret}
        response = await self._fetcher.fetch("POST", self._config.introspection_url, headers, urlencode(form).encode())
        if response.status == _BAD_REQUEST and _object(_OK, response.body).get("error") == "unsupported_token_type":
            return None  # a JSON Web Token, which some issuers leave to whoever can verify it
        found = _object(response.status, response.body)
        active = found.get("active")
        if not isinstance(active, bool):
            raise BackendDown("introspection does not say whether the token is active")
        return found if active else None

    async def _ask_userinfo(self, token: str) -> Claims | None:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        response = await self._fetcher.fetch("GET", self._config.userinfo_url, headers)
        if response.status in _NO_TOKEN:
            return None
        found = _object(response.status, response.body)
        if not isinstance(found.get("sub"), str):
            raise BackendDown("userinfo names nobody")
        return found


def _object(status: int, body: bytes) -> dict[str, Any]:
    if status != _OK:
        raise BackendDown(f"status {status}")
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError):
        raise BackendDown("not JSON") from None
    if not isinstance(found, dict):
        raise BackendDown("no JSON object")
    return cast("dict[str, Any]", found)
