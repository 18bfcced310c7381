"""Backend `ldap`: OpenLDAP, 389 Directory Server, Active Directory and others that speak LDAP (RFC 4511)."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from extauth.backend import Backend, Context
from extauth.background import background
from extauth.errors import ConfigError
from extauth.model import Secret
from extauth.templates import Template
from extauth.verifier import Verifier
from extauth_ldap.config import Config, account_password
from extauth_ldap.directory import DirectBackend, SearchBackend
from extauth_ldap.messages import Setup
from extauth_ldap.process import LdapProcess
from extauth_ldap.stored import StoredBackend
from extauth_ldap.templates import bind_name_template, dn_value

__all__ = ["Config", "open"]


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001 - the name every backend has
    """Start the LDAP process. No server is connected to before it is needed.

    Raises:
        ConfigError: files can't be used.
        BackendDown: the process can't be started.
    """
    problems: list[str] = []
    password: Secret | None = None
    try:
        password = account_password(config, context.name)
    except ConfigError as error:
        problems += error.problems
    process = LdapProcess(Setup(context.name, config, password))
    async with background() as nursery:
        found: tuple[str, ...] = await nursery.start(process.run)
        problems += found
        if problems:
            raise ConfigError(problems)
        yield _backend(config, context, process)


def _backend(config: Config, context: Context, process: LdapProcess) -> Backend:
    if config.bind_dn_template is not None:
        return DirectBackend(process, config.timeout, bind_name_template(config.bind_dn_template))
    base = Template(config.base, dn_value)
    if config.password_attribute is None:
        return SearchBackend(process, config.timeout, base)
    verifier = Verifier(context.name, context.hashing, frozenset(config.weak_schemes))
    hashes = frozenset(config.scram)
    return StoredBackend(process, config.timeout, base, verifier, context.hashing, config.password_form, hashes)
