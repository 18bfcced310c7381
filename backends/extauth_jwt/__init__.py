"""Backend `jwt`: JSON Web Tokens of a web application or an OpenID provider (RFC 7519, RFC 9068)."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from extauth.backend import Backend, Context
from extauth.errors import ConfigError
from extauth.fetch import Fetcher
from extauth.secretfile import read_key, read_secret
from extauth_jwt.config import Config
from extauth_jwt.judge import JwtBackend
from extauth_jwt.keys import BadKey, Key, Keyset, make, of_secret, read_file
from extauth_jwt.published import Held, Published, Source

__all__ = ["Config", "open"]


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001 - the name every backend has
    """Read the keys in files; those that an issuer publishes are fetched when they are needed.

    Raises:
        ConfigError: a file of the configuration can't be used.
    """
    if not config.asks:
        yield JwtBackend(config, Held(_read(config, f"backend.{context.name}")), context)
        return
    async with Fetcher.open(config, context.name) as fetcher:
        source: Source = Published(
            config,
            fetcher,
            url=config.jwks_url,
            issuer=config.issuer,
            algorithms=config.algorithms,
            fresh=config.jwks_fresh,
            stale=config.jwks_stale,
        )
        yield JwtBackend(config, source, context)


def _read(config: Config, place: str) -> Keyset:
    keys: list[Key] = []
    problems: list[str] = []
    for path in config.secret_files:
        key = f"{place}.secret_files"
        try:
            keys.append(_secret_key(path, key, config.algorithms or ("HS256",)))
        except ConfigError as error:
            problems += error.problems
        except BadKey as error:
            problems.append(f"{key}: {path}: {error}")
    for path in config.key_files:
        key = f"{place}.key_files"
        try:
            keys += _keys_of_file(path, key, config.algorithms)
        except ConfigError as error:
            problems += error.problems
        except OSError as error:
            problems.append(f"{key}: {path}: {error.strerror}")
        except BadKey as error:
            problems.append(f"{key}: {path}: {error}")
    if problems:
        raise ConfigError(problems)
    return Keyset(tuple(keys))


def _secret_key(path: str, key: str, algorithms: tuple[str, ...]) -> Key:
    secret = read_secret(path, key).reveal()
    if "-----BEGIN" in secret:
        raise BadKey("a PEM is no secret; a public one belongs to key_files")
    return make(of_secret(secret.encode()), algorithms)


def _keys_of_file(path: str, key: str, algorithms: tuple[str, ...]) -> list[Key]:
    jwks = read_file(Path(path).read_bytes())
    if any(jwk.get("kty") == "oct" for jwk in jwks):
        read_key(path, key)  # a secret in JSON is one as well
    if not jwks:
        raise BadKey("no key")
    return [make(jwk, algorithms) for jwk in jwks]
