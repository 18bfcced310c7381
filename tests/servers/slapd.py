"""Debian's slapd: users and groups of example.com, with memberOf and a password policy, by ldaps and StartTLS."""

import base64
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.certificates import Certificates
from tests.servers.process import Server, free_port, listens

SUFFIX = "dc=example,dc=com"
PEOPLE = f"ou=people,{SUFFIX}"
GROUPS = f"ou=groups,{SUFFIX}"
POLICY = f"cn=policy,{SUFFIX}"
ADMIN = f"cn=admin,{SUFFIX}"
ADMIN_PASSWORD = "fake-admin-password"
_MODULES = ("back_mdb", "memberof", "ppolicy")
_LDIF = f"""\
dn: {SUFFIX}
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: {PEOPLE}
objectClass: organizationalUnit
ou: people

dn: {GROUPS}
objectClass: organizationalUnit
ou: groups

dn: {POLICY}
objectClass: device
objectClass: pwdPolicy
cn: policy
pwdAttribute: userPassword
pwdLockout: TRUE
pwdMaxFailure: 1000
pwdMinLength: 5
pwdCheckQuality: 2
"""


class Slapd(Server):
    """A slapd that serves `folder`, an empty one; `start` fills it.

    Parameters:
        users: passwords by name, of entries below PEOPLE.
        certificate: PEM file of the server's certificate and key; default: that of `certificates`.
        demanding: takes TLS only from who shows a certificate of the same authority.
    """

    def __init__(
        self,
        folder: Path,
        certificates: Certificates,
        users: Mapping[str, str],
        *,
        certificate: Path | None = None,
        demanding: bool = False,
    ) -> None:
        super().__init__(folder)
        self.port, self.tls_port = free_port(), free_port()
        self.url, self.tls_url = f"ldap://127.0.0.1:{self.port}", f"ldaps://127.0.0.1:{self.tls_port}"
        configuration = folder / "slapd.conf"
        (folder / "db").mkdir()
        pem = certificate or certificates.server
        schemas = "".join(f"include /etc/ldap/schema/{name}.schema\n" for name in ("core", "cosine", "inetorgperson"))
        modules = "".join(f"moduleload {name}\n" for name in _MODULES)
        configuration.write_text(f"""\
{schemas}
modulepath /usr/lib/ldap
{modules}
pidfile {folder}/slapd.pid
TLSCACertificateFile {certificates.ca}
TLSCertificateFile {pem}
TLSCertificateKeyFile {pem}
TLSVerifyClient {"demand" if demanding else "never"}
database mdb
suffix "{SUFFIX}"
rootdn "{ADMIN}"
rootpw {ADMIN_PASSWORD}
directory {folder}/db
maxsize 10485760
index objectClass,uid,member eq
overlay memberof
overlay ppolicy
ppolicy_default "{POLICY}"
ppolicy_use_lockout
access to attrs=userPassword by dn.exact="cn=manager,{PEOPLE}" write by anonymous auth
access to * by dn.exact="cn=manager,{PEOPLE}" write by users read
""")
        entries = "\n".join(_person(name, password) for name, password in users.items())
        (folder / "people.ldif").write_text(f"{_LDIF}\n{entries}")
        self._fill = ["/usr/sbin/slapadd", "-q", "-f", str(configuration), "-l", str(folder / "people.ldif")]
        self.command = ["/usr/sbin/slapd", "-d", "0", "-f", str(configuration), "-h", f"{self.url} {self.tls_url}"]

    def prepare(self) -> None:
        """Fill the directory if it is empty."""
        if self._fill:
            subprocess.run(self._fill, check=True, capture_output=True, timeout=30)
            self._fill = []

    def ready(self) -> bool:
        """Tell whether both ports take connections."""
        return listens(self.port) and listens(self.tls_port)

    def modify(self, ldif: str, *, relaxed: bool = False) -> None:
        """Apply changes in LDIF as the administrator; `relaxed`: also of attributes that slapd keeps itself."""
        command = ["ldapmodify", "-x", "-H", self.url, "-D", ADMIN, "-w", ADMIN_PASSWORD]
        command += ["-e", "relax"] if relaxed else []
        subprocess.run(command, input=ldif, text=True, check=True, capture_output=True, timeout=30)


def dn_of(name: str) -> str:
    """Return the name of a user's entry."""
    return f"cn={name.encode().hex()},{PEOPLE}"


def _person(name: str, password: str) -> str:
    lines = [f"dn: {dn_of(name)}", "objectClass: inetOrgPerson", f"cn: {name.encode().hex()}", "sn: x", "o: example.com"]
    return "\n".join([*lines, _line("uid", name), _line("userPassword", password)]) + "\n"


def _line(attribute: str, value: str) -> str:
    return f"{attribute}:: {base64.b64encode(value.encode()).decode()}"


def asking(folder: Path, certificates: Certificates, *servers: Slapd) -> str:
    """Return the table of a backend `ldap`, less its heading, that asks these by ldaps. Its password is kept in `folder`."""
    secret = folder / "secret"
    secret.write_text(ADMIN_PASSWORD)
    secret.chmod(0o600)
    return f"""\
type = "ldap"
servers = [{", ".join(f'"{server.tls_url}"' for server in servers)}]
ca_file = "{certificates.ca}"
bind_dn = "{ADMIN}"
bind_password_file = "{secret}"
base = "{PEOPLE}"
"""
