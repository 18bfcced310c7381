"""Backend `oauth`: access tokens that only their issuer can read: it is asked (RFC 7662, or OpenID Connect's userinfo)."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from extauth.backend import Backend, Context
from extauth.fetch import Fetcher
from extauth.model import Secret
from extauth.secretfile import read_secret
from extauth_oauth.config import Config
from extauth_oauth.issuer import Issuer
from extauth_oauth.judge import OauthBackend

__all__ = ["Config", "open"]


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001 - the name every backend has
    """Prepare to ask; the issuer is looked for when it is needed.

    Raises:
        ConfigError: a file of the configuration can't be used.
    """
    secret = Secret("")
    if config.client_secret_file is not None:
        secret = read_secret(config.client_secret_file, f"backend.{context.name}.client_secret_file")
    async with Fetcher.open(config, context.name) as fetcher:
        yield OauthBackend(config, Issuer(config, secret, fetcher), context)
