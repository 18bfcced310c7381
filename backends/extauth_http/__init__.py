"""Backend `http`: the web application decides, by an API that it has or one of your own."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from extauth.backend import Backend, Context
from extauth.fetch import FetchConfig, Fetcher
from extauth.model import Answer, CheckPassword, Reason, Reject, Request, Secret, UserExists
from extauth.secretfile import read_secret
from extauth_http.api import Api
from extauth_http.generic import Generic, Rules
from extauth_http.jsxc import Jsxc
from extauth_http.mongooseim import MongooseIM


@dataclass(frozen=True, kw_only=True)
class Config(FetchConfig):
    """[backend.NAME] of `type = "http"`."""

    url: str
    api: Literal["generic", "jsxc", "mongooseim"] = "generic"
    secret_file: str | None = None  # jsxc: what requests are signed with
    authorization_file: str | None = None  # generic, mongooseim: the value of the header Authorization
    password_in_url: bool = False  # mongooseim: its API asks by GET
    allow_changes: bool = False  # mongooseim: set passwords, register and remove accounts
    body: Literal["json", "form"] = "json"  # generic: how the fields are sent
    user_field: str = "username"
    domain_field: str = "domain"
    password_field: str = "password"  # noqa: S105 - a name
    accept_member: str = ""  # generic: the member of a JSON response that must be `accept_value`, such as "data.ok"
    accept_value: str = "true"
    name_member: str = ""  # generic: the member that holds the user's canonical name
    role_member: str = ""  # generic: the member that holds the user's role

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        yield from super().problems()
        yield from self.check_url("url", self.url)
        if self.api == "jsxc" and self.secret_file is None:
            yield 'secret_file: api = "jsxc" signs its requests'
        if self.api == "mongooseim" and not self.password_in_url:
            yield (
                'password_in_url: api = "mongooseim" asks by GET and so shows passwords to logs on the way; '
                "set it to true to have it so, or take another api"
            )


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001 - the name every backend has
    """Prepare to ask; the application is looked for when it is needed.

    Raises:
        ConfigError: a file of the configuration can't be used.
    """
    api = _api(config, f"backend.{context.name}")
    async with Fetcher.open(config, context.name) as fetcher:
        yield HttpBackend(config.url, api, fetcher)


def _api(config: Config, place: str) -> Api:
    authorization: Secret | None = None
    if config.authorization_file is not None:
        authorization = read_secret(config.authorization_file, f"{place}.authorization_file")
    if config.api == "jsxc":
        assert config.secret_file is not None
        return Jsxc(read_secret(config.secret_file, f"{place}.secret_file"))
    if config.api == "mongooseim":
        return MongooseIM(authorization, allow_changes=config.allow_changes)
    rules = Rules(
        config.body,
        config.user_field,
        config.domain_field,
        config.password_field,
        config.accept_member,
        config.accept_value,
        config.name_member,
        config.role_member,
    )
    return Generic(rules, authorization)


class HttpBackend:
    """Asks one application."""

    def __init__(self, url: str, api: Api, fetcher: Fetcher) -> None:
        self._url = url
        self._api = api
        self._fetcher = fetcher
        self.handles = api.handles

    async def answer(self, request: Request) -> Answer | None:
        """Ask, in the API's words.

        Raises:
            BackendDown: there is no response, or none of this API.
        """
        answer = await self._ask(request)
        if isinstance(request, CheckPassword) and answer == Reject(Reason.BAD_PASSWORD) and UserExists in self.handles:
            # Most APIs refuse both alike, but the next backend must be asked about a user whom nobody knows here.
            known = await self._ask(UserExists(request.identity, request.origin))
            return answer if known else None
        return answer

    async def _ask(self, request: Request) -> Answer | None:
        call = self._api.call(request)
        url = f"{self._url.rstrip('/')}/{call.path}" if call.path else self._url
        changes = type(request) not in (CheckPassword, UserExists)
        response = await self._fetcher.fetch(call.method, url, call.headers, call.body, changes=changes)
        return self._api.judge(request, response.status, response.body)
