"""An Active Directory domain controller of example.com, by Debian's Samba: needs root and the ports 389, 636 and 3268."""

import subprocess
from pathlib import Path
from typing import Any, cast

import ldap3

from tests.certificates import Certificates
from tests.servers.process import Server, listens, poll

SUFFIX = "dc=example,dc=com"
USERS = f"CN=Users,{SUFFIX}"
ADMIN = f"CN=Administrator,{USERS}"
ADMIN_PASSWORD = "Fake-admin-1"
URL, TLS_URL = "ldap://127.0.0.1:389", "ldaps://127.0.0.1:636"
_PORTS = (389, 636, 3268)  # Samba has no option for them
_LDAP3 = cast("Any", ldap3)


class Samba(Server):
    """A domain controller in `folder`, an empty one; its first start makes the domain, in some seconds."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        super().__init__(folder)
        self._administrator: Any = None
        settings = folder / "domain/etc/smb.conf"
        key = folder / "key.pem"
        key.touch(0o600)  # Samba takes no other
        key.write_bytes(certificates.server_key.read_bytes())
        options = {
            "server services": "ldap",
            "log file": "",
            "pid directory": folder,
            "tls certfile": certificates.server_certificate,
            "tls keyfile": key,
            "tls cafile": certificates.ca,
        }
        self.command = ["/usr/sbin/samba", "-i", "-M", "single", "--debug-stdout", "-s", str(settings)]
        self.command += [f"--option={name}={value}" for name, value in options.items()]

    def prepare(self) -> None:
        """Make the domain if there is none, and wait until nobody else has the ports."""
        if not (self.folder / "domain").exists():
            self._provision()
        poll(lambda: not any(listens(port) for port in _PORTS), f"ports {_PORTS} are free", 90)

    def furnish(self) -> None:
        """Log in as the administrator, and take any password."""
        server = ldap3.Server(TLS_URL, get_info=ldap3.NONE)
        self._administrator = _LDAP3.Connection(server, ADMIN, ADMIN_PASSWORD, auto_bind=True, auto_referrals=False)
        self.change(SUFFIX, minPwdAge=0, pwdHistoryLength=0, minPwdLength=0, pwdProperties=0, lockoutThreshold=0)

    def stop(self, seconds: float = 15) -> None:
        """Hang up, and end it."""
        try:
            if self._administrator is not None:
                self._administrator.unbind()
        finally:
            super().stop(seconds)

    def _provision(self) -> None:
        command = ["samba-tool", "domain", "provision", "--realm=EXAMPLE.COM", "--domain=EXAMPLE", "--server-role=dc"]
        command += [f"--adminpass={ADMIN_PASSWORD}", "--dns-backend=NONE", "--host-ip=127.0.0.1", "--host-name=dc1"]
        command += [f"--targetdir={self.folder}/domain", "--option=interfaces=lo", "--option=bind interfaces only=yes"]
        command += ["--option=vfs objects=dfs_samba4 acl_xattr xattr_tdb"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr[-2000:]

    def ready(self) -> bool:
        """Tell whether the ports take connections."""
        return all(listens(port) for port in _PORTS)

    def add_user(self, name: str, password: str, **attributes: object) -> str:
        """Add an account whose userPrincipalName is NAME@example.com; return its DN."""
        dn = dn_of(name)
        about = {"userPrincipalName": f"{name}@example.com", "sAMAccountName": name, "userAccountControl": 512}
        self._do("add", dn, "user", {**about, "unicodePwd": _quoted(password), **attributes})
        return dn

    def add_group(self, name: str, *members: str) -> str:
        """Add a group of these DNs; return its own."""
        dn = dn_of(name)
        self._do("add", dn, "group", {"sAMAccountName": name, "member": list(members)})
        return dn

    def set_password(self, dn: str, password: str) -> None:
        """Set a password as the administrator."""
        self.change(dn, unicodePwd=_quoted(password))

    def change(self, dn: str, **attributes: object) -> None:
        """Replace attributes of an entry."""
        self._do("modify", dn, {name: [(ldap3.MODIFY_REPLACE, [value])] for name, value in attributes.items()})

    def read(self, dn: str, attribute: str) -> str:
        """Return the one value of an attribute, "" if there is none."""
        self._administrator.search(dn, "(objectClass=*)", ldap3.BASE, attributes=[attribute])
        return "".join(value.decode() for value in self._administrator.response[0]["raw_attributes"][attribute])

    def _do(self, verb: str, *arguments: object) -> None:
        assert getattr(self._administrator, verb)(*arguments), self._administrator.result


def dn_of(name: str) -> str:
    """Return the name of an entry."""
    return f"CN={name.encode().hex()},{USERS}"


def _quoted(password: str) -> bytes:
    return f'"{password}"'.encode("utf-16-le")
