"""Answers questions about users from the directory. Runs in the LDAP process."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from extauth.errors import BackendDown
from extauth.jid import is_name
from extauth.model import NOTHING, Identity, Reason, Secret
from extauth.templates import Template
from extauth.tls import client_context
from extauth_ldap import diagnosis
from extauth_ldap.answers import Entry
from extauth_ldap.config import Config, split_url
from extauth_ldap.groups import Groups, normal
from extauth_ldap.messages import Admit, Bind, Change, Check, Question, Read, Setup, Told
from extauth_ldap.servers import Server, Servers
from extauth_ldap.templates import dn_value, filter_value
from extauth_ldap.tree import Act, Found, Tree
from extauth_ldap.wire import Address


@dataclass(frozen=True)
class Membership:
    """Which group a user must be in, and which role each group gives; names as `groups.normal` makes them."""

    groups: Groups
    required: str | None
    roles: Mapping[str, str]

    def judge(self, user: Found, deadline: float) -> Told:
        """Tell whether the user may log in, and with which attributes."""
        groups = self.groups.of(user, deadline)
        if self.required is not None and self.required not in groups:
            return Told(Reason.NOT_IN_GROUP)
        roles = sorted({role for group, role in self.roles.items() if group in groups})
        return Told(Reason.OK, {"role": ",".join(roles)} if roles else NOTHING)


class Desk:
    """Knows the servers, and how users are found there. None is connected to before it is needed.

    Raises:
        ConfigError: a file of certificates or keys can't be used.
    """

    def __init__(self, setup: Setup) -> None:
        config = setup.config
        searcher = None if config.bind_dn is None or setup.password is None else (config.bind_dn, setup.password)
        here, elsewhere = _addresses(config, setup.name)
        servers = Servers([Server(address, searcher) for address in here], config.server_timeout)
        others = {address.host: Servers([Server(address, searcher)], config.server_timeout) for address in elsewhere}
        self._servers = (servers, *others.values())
        self._tree = Tree(servers, others)
        self._base, self._filter = Template(config.base, dn_value), Template(config.filter, filter_value)
        self._name_attribute = config.name_attribute
        self._password_attribute = config.password_attribute or ""
        self._membership = _membership(config, self._tree)
        self._policy = config.password_policy
        self._setter = _setter(config)

    def answer(self, question: Question, deadline: float) -> Told:
        """Answer a question. Blocks, until `deadline` at most (of `time.monotonic()`).

        Raises:
            BackendDown: it can't be told.
        """
        if isinstance(question, Bind):
            return Told(diagnosis.of_bind(self._tree.bind(question.name, question.password, deadline)))
        wanted = [self._password_attribute] if isinstance(question, Read) else []
        wanted += diagnosis.STATE if isinstance(question, Read | Admit) else ()
        user = self._find(question.identity, wanted, deadline)
        if not isinstance(user, Found):
            return Told(user)
        if isinstance(question, Admit) and (refusal := self._refusal(user, deadline)):
            return Told(refusal)
        if isinstance(question, Change):
            return Told(diagnosis.of_change(self._tree.change(user, self._setter(question.value), deadline)))
        if isinstance(question, Check):
            bound = diagnosis.of_bind(self._tree.bind(user.entry.dn, question.password, deadline, home=user.home))
            if bound is not Reason.OK:
                return Told(bound)
        told = self._membership.judge(user, deadline) if self._membership else Told(Reason.OK)
        if isinstance(question, Read):
            reason = self._refusal(user, deadline) if told.reason is Reason.OK else told.reason
            return Told(reason or Reason.OK, told.attributes, user.entry.attributes.get(self._password_attribute.lower(), ()))
        return told

    def close(self) -> None:
        """Close idle connections."""
        for servers in self._servers:
            servers.close()

    def _find(self, identity: Identity, attributes: list[str], deadline: float) -> Found | Reason | None:
        """Return the user's one entry, with these attributes; None if there is none of exactly that name."""
        base, filter_ = self._base.fill(identity), self._filter.fill(identity)
        found = self._tree.search(base, filter_, [self._name_attribute, *attributes], deadline)
        if len(found) > 1:
            return Reason.AMBIGUOUS
        if not found or not self._names(found[0].entry, identity):
            return None
        return found[0]

    def _refusal(self, user: Found, deadline: float) -> Reason | None:
        """Return why a bind would be refused whatever the password, if the directory shows that."""
        now = time.time()
        refusal = diagnosis.of_entry(user.entry, now)
        lock = None if refusal else diagnosis.lock(user.entry)
        name = (lock.policy or self._policy) if lock else None
        if lock is None or name is None:
            return refusal
        policy = self._tree.search(name, "(objectClass=*)", diagnosis.LOCK_RULES, deadline, one=True, home=user.home)
        if not policy:
            raise BackendDown(f"the password policy {name} can't be read")
        return Reason.ACCOUNT_LOCKED if diagnosis.locks(policy[0].entry, lock, now) else None

    def _names(self, entry: Entry, identity: Identity) -> bool:
        """Tell whether the directory means the same name: its own comparison may ignore accents, blanks and more."""
        return any(is_name(value, identity) for value in entry.attributes.get(self._name_attribute.lower(), ()))


def _addresses(config: Config, name: str) -> tuple[list[Address], list[Address]]:
    """Return where the servers are, and those that referrals may lead to.

    Raises:
        ConfigError: a file of certificates or keys can't be used.
    """
    context = client_context(f"backend.{name}", config.ca_file, config.client_certificate, config.client_key)

    def address(url: str) -> Address:
        scheme, host, port = split_url(url)
        encrypted = scheme == "ldaps" or config.start_tls
        return Address(url, host, port, context if encrypted else None, scheme == "ldap" and config.start_tls)

    return [address(url) for url in config.servers], [address(url) for url in config.referrals]


def _membership(config: Config, tree: Tree) -> Membership | None:
    if config.required_group is None and not config.roles:
        return None
    groups = Groups(tree, config.groups_by, config.group_base, config.member_attribute, nested=config.nested)
    roles = {normal(group): role for role, _, group in (role.partition(":") for role in config.roles)}
    return Membership(groups, normal(config.required_group) if config.required_group else None, roles)


def _setter(config: Config) -> Callable[[Secret], Act]:
    """Return the way to set a password."""
    attribute = config.password_attribute
    if attribute is not None and config.password_form is not None:
        return lambda value: _by_value(attribute, value.reveal().encode())
    if config.active_directory:  # [MS-ADTS] 3.1.1.3.1.5
        return lambda password: _by_value("unicodePwd", f'"{password.reveal()}"'.encode("utf-16-le"))
    return _by_extension


def _by_value(attribute: str, value: bytes) -> Act:
    """Return how a value is put in the place of those that an attribute has."""
    return lambda connection, dn, until: connection.replace(dn, attribute, value, until)


def _by_extension(password: Secret) -> Act:
    """Return how a new password is set by RFC 3062."""
    return lambda connection, dn, until: connection.set_password(dn, password, until)
