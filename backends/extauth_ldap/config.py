"""The keys of the configuration."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from extauth.model import Secret
from extauth.passwords.stored import WEAK, WRITABLE
from extauth.secretfile import read_secret
from extauth.templates import Template
from extauth.values import Checked
from extauth_ldap.templates import bind_name_template, dn_value, filter_value

BRACED = ("dovecot-", "ldap-", "ssha")  # how the names of forms begin that are written as {SCHEME}
PORTS = {"ldap": 389, "ldaps": 636}


@dataclass(frozen=True)
class Config(Checked):
    """[backend.NAME] of `type = "ldap"`."""

    servers: tuple[str, ...]  # ldaps:// or ldap:// URLs in order of preference
    referrals: tuple[str, ...] = ()  # URLs of servers that referrals may lead to
    start_tls: bool = False  # encrypt ldap:// by StartTLS
    allow_plaintext: bool = False  # let passwords go unencrypted over ldap://
    ca_file: str | None = None  # whose certificates are trusted, instead of the system's
    client_certificate: str | None = None  # PEM files to show to the servers
    client_key: str | None = None
    bind_dn: str | None = None  # the account that searches and sets passwords; none: anonymous
    bind_password_file: str | None = None
    base: str = ""  # below which users are searched; {domain} has a place in it
    filter: str = "(uid={user})"
    name_attribute: str = "uid"  # must equal the user's name, or user@domain
    bind_dn_template: str | None = None  # bind directly, without a search
    active_directory: bool = False  # set passwords by unicodePwd
    password_attribute: str | None = None  # read stored passwords from it and compare, instead of a bind
    weak_schemes: tuple[str, ...] = ()  # of them that are good enough
    password_form: str | None = None  # in which new ones are written to it, instead of by RFC 3062
    scram: tuple[Literal["SHA-1", "SHA-256", "SHA-384", "SHA-512"], ...] = ()  # of which it holds keys of everybody
    password_policy: str | None = None  # DN of OpenLDAP's default policy (`ppolicy_default`)
    required_group: str | None = None  # DN
    roles: tuple[str, ...] = ()  # "role:DN of a group"
    groups_by: Literal["memberOf", "search", "in-chain"] = "memberOf"
    group_base: str = ""
    member_attribute: str = "member"
    nested: bool = False  # whether members of a group's member groups are its members
    threads: int = 16  # requests at a time
    queue_patience: float = 2.5  # seconds that a request may wait for one of them
    timeout: float = 4.0  # seconds that a request may take
    server_timeout: float = 1.5  # seconds of them that one server may take

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        yield from self._server_problems()
        yield from self._template_problems()
        yield from self._password_problems()
        yield from self._group_problems()
        if (self.bind_dn is None) != (self.bind_password_file is None):
            yield "bind_dn, bind_password_file: give both or none"
        if self.client_key is not None and self.client_certificate is None:
            yield "client_key: needs client_certificate"
        yield from self.not_positive("threads", "queue_patience", "timeout", "server_timeout")

    def _server_problems(self) -> list[str]:
        problems = [] if self.servers else ["servers: name at least one"]
        for key, url in [*(("servers", url) for url in self.servers), *(("referrals", url) for url in self.referrals)]:
            try:
                scheme = split_url(url)[0]
            except ValueError as error:
                problems.append(f"{key}: {url}: {error}")
                continue
            if scheme == "ldap" and not self.start_tls and not self.allow_plaintext:
                problems.append(f"{key}: {url}: needs start_tls = true, or allow_plaintext = true if passwords may be read")
        return problems

    def _template_problems(self) -> list[str]:
        problems = _problems("base", lambda: Template(self.base, dn_value))
        problems += _problems("filter", lambda: Template(self.filter, filter_value))
        if self.bind_dn_template is not None:
            template = self.bind_dn_template
            problems += _problems("bind_dn_template", lambda: bind_name_template(template))
            if "{user}" not in template:
                problems.append("bind_dn_template: must hold {user}")
            if self.bind_dn or self.base:
                problems.append("bind_dn_template: binds without a search; leave out base and bind_dn")
        else:
            if not self.base:
                problems.append("base: missing, unless bind_dn_template is given")
            if "{user}" not in self.filter:
                problems.append("filter: must hold {user}")
        return problems

    def _password_problems(self) -> list[str]:
        unknown = [scheme for scheme in self.weak_schemes if scheme not in WEAK]
        problems = [f"weak_schemes: {scheme!r} is none; there are {', '.join(sorted(WEAK))}" for scheme in unknown]
        if self.password_form is not None and self.password_form not in WRITABLE:
            problems.append(f"password_form: {self.password_form!r} is none; there are {', '.join(sorted(WRITABLE))}")
        in_clear = (self.password_attribute or "").lower() == "userpassword"  # what has no {SCHEME} is a plain password there
        if in_clear and self.password_form is not None and not self.password_form.startswith(BRACED):
            problems.append(f"password_form: {self.password_form!r} in userPassword would be taken for a plain password")
        if self.password_attribute is None:
            if self.weak_schemes or self.password_form is not None or self.scram:
                problems.append("weak_schemes, password_form, scram: need password_attribute")
        elif self.bind_dn_template is not None or self.active_directory:
            problems.append("password_attribute: needs a search, and a directory that shows stored passwords")
        return problems

    def _group_problems(self) -> list[str]:
        problems = [f"roles: {role!r}: must be role:DN" for role in self.roles if not all(role.partition(":"))]
        if (self.required_group or self.roles) and self.bind_dn_template is not None:
            problems.append("required_group, roles: need a search, so no bind_dn_template")
        if self.password_policy is not None and self.bind_dn_template is not None:
            problems.append("password_policy: needs a search, so no bind_dn_template")
        if self.groups_by != "memberOf" and not self.group_base:
            problems.append(f'group_base: missing, groups_by = "{self.groups_by}" needs it')
        if self.groups_by == "in-chain" and self.nested:
            problems.append('nested: groups_by = "in-chain" finds groups of groups by itself')
        return problems


def account_password(config: Config, name: str) -> Secret | None:
    """Return the password of the account that searches, None for anonymous.

    Raises:
        ConfigError: its file can't be read, is empty, or can be read by everybody.
    """
    file = config.bind_password_file
    return None if file is None else read_secret(file, f"backend.{name}.bind_password_file")


def split_url(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an LDAP URL that names a server and nothing else."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname or parts.username is not None:
        raise ValueError("must be ldaps://HOST, ldap://HOST, or with :PORT")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("must end after host and port")
    return parts.scheme, parts.hostname, parts.port or PORTS[parts.scheme]


def _problems(key: str, make: Callable[[], Template]) -> list[str]:
    try:
        make()
    except ValueError as error:
        return [f"{key}: {error}"]
    return []
