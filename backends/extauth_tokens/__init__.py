"""Backend `tokens`: the access and refresh tokens that extauth itself issues, and whoever holds one."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from extauth.backend import Backend, Context
from extauth.credentials import Credentials
from extauth.errors import ConfigError
from extauth.fasttokens import FastTokens
from extauth.keyring import Keyring
from extauth.keystore import Keystore
from extauth.passwords.scram import ADVISED_ITERATIONS
from extauth.secretfile import read_key
from extauth.sessions import Sessions
from extauth.tokens.kinds import PROVISION, TOKEN_SECRET
from extauth_tokens.config import Config
from extauth_tokens.issued import IssuedCredentials
from extauth_tokens.keeper import TokenBackend
from extauth_tokens.relogin import ReloginKeys


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001 - the name every backend has
    """Open the tokens of the state store."""
    keys = Keystore(context.store, context.now, _read_keys(context.name, config))
    sessions = Sessions(context.store, context.now, grace=config.grace, cap=config.max_sessions)
    keyring = Keyring(context.store, context.hashing, context.now, ADVISED_ITERATIONS) if config.scram_credentials else None
    credentials = Credentials(context.store, keyring, context.now, config.max_app_passwords)
    fast = FastTokens(context.store, keys, context.now, config.fast_lifetime, config.max_sessions)
    issued = IssuedCredentials(context.name, credentials, fast, config.temporary_lifetime)
    relogin_keys = ReloginKeys(config, keys, sessions, context.now)
    yield TokenBackend(config, keys, sessions, issued, relogin_keys, context.now)


def _read_keys(name: str, config: Config) -> dict[str, bytes]:
    """Read the keys that are kept in files: byte for byte, as MongooseIM does."""
    files = {TOKEN_SECRET: config.token_secret_file, PROVISION.key: config.provision_pre_shared_file}
    keys: dict[str, bytes] = {}
    problems: list[str] = []
    for key, path in files.items():
        if path is not None:
            try:
                keys[key] = read_key(path, f"backend.{name}.{key}_file")
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(problems)
    return keys
