"""The keys of an `oauth` backend."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from extauth.fetch import FetchConfig
from extauth.tokens.jose import Naming, Rules

LONGEST_MEMORY = 300


@dataclass(frozen=True, kw_only=True)
class Config(FetchConfig):
    """[backend.NAME] of `type = "oauth"`: one issuer. Times are in seconds."""

    introspection_url: str = ""
    userinfo_url: str = ""  # instead, of an issuer that has no introspection
    any_client: bool = False  # userinfo_url: it does not tell for whom a token was made
    client_id: str = ""  # introspection: who asks
    client_secret_file: str | None = None
    client_auth: Literal["basic", "post"] = "basic"
    issuer: str = ""  # `iss`, if the answer has one; names it in the store
    audience: tuple[str, ...] = ()  # one of which must be in `aud`
    clients: tuple[str, ...] = ()  # to one of which the token must have been given (`client_id`)
    untyped: bool = False  # whether a token is taken whose `token_type` the issuer does not tell
    require: tuple[str, ...] = ()  # members that must say something: "scope=xmpp"
    user: str = "{sub}"  # names the account: members in braces
    escape: bool = False  # whether `user` gives any text, to be escaped by XEP-0106
    prefix: str = ""  # what a password begins with that is a token
    remember: float = 30.0  # how long a yes is remembered
    remember_size: int = 10_000

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        yield from super().problems()
        if bool(self.introspection_url) == bool(self.userinfo_url):
            yield "introspection_url, userinfo_url: one of them"
        elif self.introspection_url:
            yield from self.check_url("introspection_url", self.introspection_url)
            if not self.client_id or self.client_secret_file is None:
                yield "client_id, client_secret_file: introspection is for those who say who they are"
            if not self.audience and not self.clients:
                yield "audience, clients: without them, tokens made for any other application would log in"
        else:
            yield from self.check_url("userinfo_url", self.userinfo_url)
            if not self.any_client:
                yield (
                    "any_client: userinfo does not tell for whom a token was made, so that whoever got one of a user can "
                    "log in as that user; set it to true if all clients of the issuer are yours"
                )
        if not self.issuer:
            yield "issuer: missing"
        yield from self.rules.problems()
        if why := self.naming.problem():
            yield f"user: {why}"
        if not 0 <= self.remember <= LONGEST_MEMORY:
            yield f"remember: must be 0 to {LONGEST_MEMORY}"
        yield from self.not_positive("remember_size")
        if self.userinfo_url and self.client_secret_file:
            yield "client_secret_file: userinfo needs none"

    @property
    def naming(self) -> Naming:
        """How an answer names an account."""
        return Naming(self.user, self.escape)

    @property
    def rules(self) -> Rules:
        """What an answer must say; the issuer itself has looked at most of it."""
        return Rules(audience=self.audience, require=self.require, expires=False)
