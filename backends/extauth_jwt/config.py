"""The keys of a `jwt` backend, and what its presets put in their places."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from extauth.fetch import FetchConfig
from extauth.tokens.jose import LARGEST_SKEW, Naming, Rules
from extauth_jwt.keys import ALGORITHMS

DAY = 86_400

# What is true of a preset where the configuration says nothing.
_PRESETS: dict[str, dict[str, Any]] = {
    "none": {"user": "{sub}", "escape": False, "max_age": DAY, "require": ()},
    "oidc": {"user": "{preferred_username}", "escape": False, "max_age": DAY, "require": ()},
    # ejabberd itself looks at the signature, `jid` and `exp` alone (ejabberd_auth_jwt.erl).
    "ejabberd": {"user": "{jid}", "escape": False, "max_age": 0, "require": ()},
    # Its ids are any text, often numbers.
    "talkjs": {"user": "{sub}", "escape": True, "max_age": 0, "require": ("tokenType=user",)},
}


@dataclass(frozen=True, kw_only=True)
class Config(FetchConfig):
    """[backend.NAME] of `type = "jwt"`: one issuer. Times are in seconds."""

    preset: Literal["none", "oidc", "ejabberd", "talkjs"] = "none"
    issuer: str = ""  # `iss`, exactly; talkjs: the appId
    audience: tuple[str, ...] = ()  # one of which must be in `aud`
    secret_files: tuple[str, ...] = ()  # shared secrets, as text
    key_files: tuple[str, ...] = ()  # public keys and certificates (PEM), JWKs and JWK Sets (JSON)
    jwks_url: str = ""  # where the issuer publishes its keys
    algorithms: tuple[str, ...] = ()  # if not all that suit a key
    user: str = ""  # names the account: claims in braces
    escape: bool | None = None  # whether `user` gives any text, to be escaped by XEP-0106
    typ: tuple[str, ...] = ("", "JWT", "at+jwt")  # of the header; "" for a token without
    require: tuple[str, ...] | None = None  # claims that must say something: "scope=xmpp"
    skew: int = LARGEST_SKEW  # that clocks may differ by
    max_age: int | None = None  # since `iat`, whatever `exp` says; 0: no limit
    jwks_fresh: int = 3600  # after which keys are fetched again
    jwks_stale: int = DAY  # after which they are used no more, if that failed

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        yield from super().problems()
        yield from self._check_keys()
        yield from self._check_claims()

    def _check_keys(self) -> list[str]:
        problems = [
            f"algorithms: {name!r} is none of {', '.join(ALGORITHMS)}" for name in self.algorithms if name not in ALGORITHMS
        ]
        if self.jwks_url:
            problems += self.check_url("jwks_url", self.jwks_url)
        held = bool(self.secret_files or self.key_files)
        if held == self.asks:
            problems.append(
                'secret_files, key_files, jwks_url: keys come from files, or from the issuer (jwks_url, preset = "oidc")'
            )
        if self.discovers and self.issuer:
            problems += self.check_url("issuer", self.issuer)
        if not 0 < self.jwks_fresh <= self.jwks_stale <= 7 * DAY:
            problems.append("jwks_fresh, jwks_stale: must be in order, and no more than a week")
        return problems

    def _check_claims(self) -> list[str]:
        problems: list[str] = []
        open_preset = self.preset in ("ejabberd", "talkjs")
        if not self.issuer and self.preset != "ejabberd":
            problems.append('issuer: missing, unless preset = "ejabberd"')
        if not self.audience and not open_preset:
            problems.append(
                f'audience: missing (preset = "{self.preset}" needs it); without, tokens for any other application would log in'
            )
        problems += self.rules.problems()
        if why := self.naming.problem():
            problems.append(f"user: {why}")
        return problems

    @property
    def discovers(self) -> bool:
        """Whether the issuer is asked where its keys are."""
        return self.preset == "oidc" and not self.jwks_url and not (self.secret_files or self.key_files)

    @property
    def asks(self) -> bool:
        """Whether keys come from the issuer."""
        return bool(self.jwks_url) or self.discovers

    def _said(self, key: str) -> Any:  # noqa: ANN401 - of whatever type the key is
        value = getattr(self, key)
        return _PRESETS[self.preset][key] if value in (None, "") else value

    @property
    def naming(self) -> Naming:
        """How claims name an account."""
        return Naming(self._said("user"), bool(self._said("escape")))

    @property
    def rules(self) -> Rules:
        """What claims must say."""
        return Rules(
            self.issuer,
            self.audience,
            self._said("require"),
            self.skew,
            self._said("max_age"),
            evident=self.preset == "oidc",
        )
