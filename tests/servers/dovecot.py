"""Debian's Dovecot, its authentication service alone: no mail."""

import getpass
import grp
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

from tests.servers.process import Server


class Dovecot(Server):
    """A Dovecot that serves its auth protocol on the Unix socket `socket`.

    Parameters:
        folder: an empty folder for its configuration, log, users and sockets.
        users: passwords by local part.
        extra: further lines of configuration.
    """

    def __init__(self, folder: Path, users: Mapping[str, str], *, extra: str = "") -> None:
        super().__init__(folder)
        self.log_file = folder / "dovecot.log"
        self.socket = folder / "run" / "auth-xmpp"
        self.configuration = folder / "dovecot.conf"
        self.command = ["/usr/sbin/dovecot", "-F", "-c", str(self.configuration)]
        lines = [f"{user}:{{PLAIN}}{password}::::::\n" for user, password in users.items()]
        (folder / "users").write_text("".join(lines))
        self.configuration.write_text(
            dedent(f"""\
                base_dir = {folder}/run
                state_dir = {folder}/state
                protocols =
                listen = 127.0.0.1
                ssl = no
                disable_plaintext_auth = no
                log_path = {self.log_file}
                auth_failure_delay = 0
                auth_mechanisms = plain login scram-sha-1 scram-sha-256
                auth_username_chars =
                passdb {{
                  driver = passwd-file
                  args = username_format=%n {folder}/users
                }}
                userdb {{
                  driver = static
                  args = uid=nobody gid=nogroup home=/nonexistent
                }}
                service auth {{
                  unix_listener auth-xmpp {{
                    mode = 0666
                  }}
                }}
                # Without this, a client waits 4 s after a failure.
                service anvil {{
                  unix_listener anvil-auth-penalty {{
                    mode = 0
                  }}
                }}
                """)
            + self._rootless()
            + dedent(extra)
        )

    @staticmethod
    def _rootless() -> str:
        """Return the settings that let Dovecot run as an ordinary user."""
        if os.geteuid() == 0:
            return ""
        user = getpass.getuser()
        group = grp.getgrgid(os.getegid()).gr_name
        services = "".join(f"service {name} {{\n  chroot =\n}}\n" for name in ("anvil", "stats"))
        names = f"default_internal_user = {user}\ndefault_login_user = {user}\ndefault_internal_group = {group}\n"
        return names + services

    def ready(self) -> bool:
        """Tell whether the socket takes connections."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0
