"""Backend `ldap`: OpenLDAP, 389 Directory Server, Active Directory and others that speak LDAP (RFC 4511)."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from extauth.backend import Backend, Context
from extauth.templates import Template
from extauth.threads import Threads
from extauth.verifier import Verifier
from extauth_ldap.config import Config, account, addresses
from extauth_ldap.directory import DirectBackend, Membership, Search, SearchBackend
from extauth_ldap.groups import Groups, normal
from extauth_ldap.passwords import by_extension, by_unicode_pwd
from extauth_ldap.servers import Server, Servers
from extauth_ldap.stored import StoredBackend
from extauth_ldap.templates import bind_name_template, dn_value, filter_value
from extauth_ldap.tree import Tree

__all__ = ["Config", "open"]

NICE = 5  # ldap3 computes in Python: what needs no directory is answered first


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001 - the name every backend has
    """Prepare the servers; none is connected to before it is needed."""
    searcher = account(config, context.name)
    here, elsewhere = addresses(config, context.name)
    servers = Servers([Server(address, searcher) for address in here], config.server_timeout)
    others = {address.host: Servers([Server(address, searcher)], config.server_timeout) for address in elsewhere}
    tree = Tree(servers, others)
    try:
        with Threads("LDAP", config.threads, config.queue_patience, NICE) as threads:
            if config.bind_dn_template is not None:
                yield DirectBackend(tree, threads, config.timeout, bind_name_template(config.bind_dn_template))
            else:
                search = Search(Template(config.base, dn_value), Template(config.filter, filter_value), config.name_attribute)
                common = (tree, threads, config.timeout, search, _membership(config, tree))
                if config.password_attribute is None:
                    yield SearchBackend(*common, by_unicode_pwd if config.active_directory else by_extension)
                else:
                    yield StoredBackend(
                        *common,
                        Verifier(context.name, context.hashing, frozenset(config.weak_schemes)),
                        context.hashing,
                        config.password_attribute,
                        config.password_form,
                        frozenset(config.scram),
                    )
    finally:
        for used in (servers, *others.values()):
            used.close()


def _membership(config: Config, tree: Tree) -> Membership | None:
    if config.required_group is None and not config.roles:
        return None
    groups = Groups(tree, config.groups_by, config.group_base, config.member_attribute, nested=config.nested)
    roles = {normal(group): role for role, _, group in (role.partition(":") for role in config.roles)}
    return Membership(groups, normal(config.required_group) if config.required_group else None, roles)
