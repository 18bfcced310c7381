"""Debian's MariaDB, as an unprivileged user."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from tests.certificates import Certificates
from tests.servers.process import Server, free_port

ACCOUNT = "mysql"  # of the Debian package: MariaDB does not run as root
USER, PASSWORD = "extauth", "fake database password"
CAUTIOUS = "cautious"  # who has the rights of USER, and must show a certificate
ADMIN = "root"
CREATE = "CREATE DATABASE site CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"


class MariaDb(Server):
    """A MariaDB with an empty database `site`, and the user USER, who may do anything in it.

    Args:
        folder: an empty folder for its data and its socket.
        certificates: what it shows on TLS.
    """

    def __init__(self, folder: Path, certificates: Certificates | None = None) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.socket = folder / "run" / "mariadb.sock"
        self._data = folder / "data"
        self.command = [
            *("/usr/sbin/mariadbd", "--no-defaults", f"--datadir={self._data}", f"--socket={self.socket}"),
            *("--bind-address=127.0.0.1", f"--port={self.port}", f"--pid-file={folder}/run/pid", "--skip-name-resolve"),
            *("--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--innodb-flush-method=nosync"),
            *("--sync-frm=OFF", "--performance-schema=OFF", "--max-connections=60"),
        ]
        if os.geteuid() == 0:
            self.command.append(f"--user={ACCOUNT}")
        if certificates is not None:
            key = folder / "key.pem"
            shutil.copy(certificates.server_key, key)
            self._own(key)
            self.command += [f"--ssl-cert={certificates.server_certificate}", f"--ssl-key={key}"]
            self.command.append(f"--ssl-ca={certificates.ca}")
        self._fresh = True

    def prepare(self) -> None:
        """Make the system tables, the first time."""
        if self._fresh:
            for folder in (self._data, self.socket.parent):
                folder.mkdir()
                self._own(folder)
            command = [
                *("mariadb-install-db", "--no-defaults", f"--datadir={self._data}", "--skip-test-db"),
                *("--auth-root-authentication-method=normal", "--skip-name-resolve", "--innodb-log-file-size=8M"),
            ]
            user = [f"--user={ACCOUNT}"] if os.geteuid() == 0 else []
            subprocess.run([*command, *user], check=True, capture_output=True, timeout=120)

    def furnish(self) -> None:
        """Make the database and its users, the first time."""
        if self._fresh:
            self._fresh = False
            self.run(
                CREATE,
                f"CREATE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}'",
                f"GRANT ALL ON site.* TO {USER}@'%'",
                f"CREATE USER {CAUTIOUS}@'%' IDENTIFIED BY '{PASSWORD}' REQUIRE X509",
                f"GRANT ALL ON site.* TO {CAUTIOUS}@'%'",
                database="mysql",
            )

    def ready(self) -> bool:
        """Tell whether it answers."""
        return self.socket.exists() and self._client("SELECT 1", "mysql").returncode == 0

    def run(self, *statements: str, database: str = "site") -> str:
        """Run statements as the administrator and return what they print."""
        done = self._client(";\n".join(statements), database)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def empty(self) -> None:
        """Drop all tables of the database `site`."""
        self.run(
            "DROP DATABASE IF EXISTS site",
            "CREATE DATABASE site CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
            database="mysql",
        )

    def kill_connections(self) -> None:
        """End the connections of USER."""
        own = f"SELECT id FROM information_schema.processlist WHERE user = '{USER}'"  # noqa: S608
        for number in self.run(own).split():
            self._client(f"KILL {number}", "site")  # it may be gone

    def _client(self, statements: str, database: str) -> "subprocess.CompletedProcess[str]":
        command = ["mariadb", "--no-defaults", f"--socket={self.socket}", "-u", ADMIN, "-N", "-B", database]
        command.append("--default-character-set=utf8mb4")
        return subprocess.run(command, input=statements, capture_output=True, text=True, timeout=30, check=False)

    @staticmethod
    def _own(path: Path) -> None:
        if os.geteuid() == 0:
            account = pwd.getpwnam(ACCOUNT)
            os.chown(path, account.pw_uid, account.pw_gid)
