"""Debian's PostgreSQL, as an unprivileged user."""

import os
import pwd
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.certificates import Certificates
from tests.servers.process import Server, free_port, poll

ACCOUNT = "postgres"  # of the Debian package: PostgreSQL does not run as root
USER, PASSWORD = "extauth", "fake database password"
ADMIN = "postgres"
CAUTIOUS = "cautious"  # who has the rights of USER, and must show a certificate


class Postgres(Server):
    """A PostgreSQL with an empty database `site`, owned by USER, who needs PASSWORD over TCP.

    Args:
        folder: an empty folder for its data and its socket.
        certificates: what it shows on TLS.
    """

    def __init__(self, folder: Path, certificates: Certificates | None = None) -> None:
        super().__init__(folder)
        self.port = free_port()
        self._data = folder / "data"
        self.url = f"postgresql://{USER}@/site?host={self._data}&port={self.port}"  # its Unix socket admits everybody
        self._programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
        self.command = [
            *self._as_account(str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port)),
            *("-k", str(self._data), "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=60", "-c", "fsync=off"),
        ]
        if certificates is not None:
            key = folder / "key.pem"
            shutil.copy(certificates.server_key, key)
            key.chmod(0o600)
            self._own(key)
            self.command += [
                "-c",
                "ssl=on",
                "-c",
                f"ssl_cert_file={certificates.server_certificate}",
                "-c",
                f"ssl_key_file={key}",
                "-c",
                f"ssl_ca_file={certificates.ca}",
            ]
        self._tls = certificates is not None
        self._fresh = True

    def prepare(self) -> None:
        """Make the cluster, the first time."""
        if self._fresh:
            self._data.mkdir()
            self._own(self._data)
            initdb = [
                str(self._programs / "initdb"),
                "-D",
                str(self._data),
                "-U",
                ADMIN,
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
            ]
            subprocess.run(self._as_account(*initdb), check=True, capture_output=True, timeout=120, cwd="/")
            cautious = f"hostssl all {CAUTIOUS} 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n" if self._tls else ""
            rules = f"local all all trust\n{cautious}host all all 127.0.0.1/32 scram-sha-256\n"
            (self._data / "pg_hba.conf").write_text(rules)

    def furnish(self) -> None:
        """Make the database and its users, the first time."""
        if self._fresh:
            self._fresh = False
            self.run(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'", database=ADMIN)
            self.run(f"CREATE ROLE {CAUTIOUS} LOGIN PASSWORD '{PASSWORD}' IN ROLE {USER}", database=ADMIN)
            self.run(f"CREATE DATABASE site OWNER {USER}", database=ADMIN)

    def ready(self) -> bool:
        """Tell whether it answers."""
        return self._client("SELECT 1", ADMIN, ADMIN).returncode == 0

    def run(self, *statements: str, database: str = "site", user: str = ADMIN) -> str:
        """Run statements and return what they print."""
        done = self._client(";\n".join(statements), database, user)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def empty(self) -> None:
        """Drop all tables of the database `site`."""
        self.run("SET client_min_messages = error", "DROP SCHEMA public CASCADE", f"CREATE SCHEMA public AUTHORIZATION {USER}")

    @property
    def running(self) -> bool:
        """Whether it was started, and not stopped."""
        return self._process is not None

    def signal(self, number: int) -> None:
        """Send a signal to all of its processes."""
        for pid in [self.pid, *self._children()]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End all of its processes by SIGKILL, and wait until they are gone: while one lives no other server may start."""
        os.kill(self.pid, signal.SIGSTOP)  # it starts no more of them
        children = self._children()
        self.signal(signal.SIGKILL)
        super().kill()
        poll(lambda: not any(map(_lives, children)), "its processes are gone")

    def _children(self) -> list[int]:
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in listed.stdout.split()]

    def kill_connections(self) -> None:
        """End the connections of USER."""
        self.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{USER}'")  # noqa: S608

    def stop(self, seconds: float = 15) -> None:
        """End it by a fast shutdown, which waits for nobody."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        super().stop(seconds)

    def _client(self, statements: str, database: str, user: str) -> "subprocess.CompletedProcess[str]":
        command = [*("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"), *("-h", str(self._data), "-p", str(self.port))]
        command += ["-U", user, "-d", database]
        return subprocess.run(command, input=statements, capture_output=True, text=True, timeout=30, check=False)

    @staticmethod
    def _as_account(*command: str) -> list[str]:
        if os.geteuid() != 0:
            return list(command)
        return ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups", "--reset-env", *command]

    @staticmethod
    def _own(path: Path) -> None:
        if os.geteuid() == 0:
            account = pwd.getpwnam(ACCOUNT)
            os.chown(path, account.pw_uid, account.pw_gid)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
