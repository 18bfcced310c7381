"""Debian's saslauthd, asking a directory."""

import socket
from pathlib import Path

from tests.servers.process import Server
from tests.servers.slapd import ADMIN, ADMIN_PASSWORD, PEOPLE, Slapd


class Saslauthd(Server):
    """A saslauthd whose users are those of `directory`."""

    def __init__(self, folder: Path, directory: Slapd, processes: int = 5, filter_: str = "(&(uid=%u)(o=%r))") -> None:
        super().__init__(folder)
        self.path = folder / "mux"
        configuration = folder / "saslauthd.conf"
        configuration.write_text(f"""\
ldap_servers: {directory.url}
ldap_bind_dn: {ADMIN}
ldap_bind_pw: {ADMIN_PASSWORD}
ldap_search_base: {PEOPLE}
ldap_filter: {filter_}
ldap_timeout: 10
""")
        # Its end kills its process group, so it has one of its own.
        program = ["/usr/bin/setsid", "/usr/sbin/saslauthd", "-d"]
        self.command = [*program, "-a", "ldap", "-O", str(configuration), "-m", str(folder), "-n", str(processes)]

    def ready(self) -> bool:
        """Tell whether it takes connections."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.path)) == 0
