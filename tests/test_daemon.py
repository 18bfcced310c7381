"""The daemon as a process: signals, reloads, drains, what it tells systemd, and what it must never tell."""

import contextlib
import fcntl
import os
import resource
import signal
import socket
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.daemons import (
    ENVIRONMENT,
    ERROR,
    EXTAUTH,
    NO,
    YES,
    Daemon,
    Wire,
    configuration,
    extauth,
    is_up,
    with_local_accounts,
)
from tests.servers.process import free_port, poll, temporary_folder

LOGIN = "auth:alice:xmpp.test:fake right"


def reload(daemon: Daemon, text: str, said: str = "configuration reloaded") -> None:
    """Have another configuration read, and wait until the daemon has said so."""
    before = daemon.log().count(said)
    daemon.configure(text)
    daemon.signal(signal.SIGHUP)
    poll(lambda: daemon.log().count(said) > before, f"{said!r} in the log: {daemon.log()}")


# Reloads ----------------------------------------------------------------------------------------------------------------------

BAD = {
    "not TOML": ("[daemon", "not TOML: "),
    "unknown key": ("[listener.ejabberd]\nmode = '0660'\nmoode = '0660'", "listener.ejabberd.moode: unknown key (did you mean"),
    "unusable backend": ('unusable = "no such directory"', "backend.people: no such directory"),
    "backend away": ('away = "out to lunch"', "out to lunch"),
    "broken backend": ("broken = true", "a bug in a backend's open"),
    "other state": ("drain = 3.0", "daemon: changes of this table take effect only when the daemon is started anew"),
    "no user": ('allow_users = ["no-user-of-this-name"]', "listener.ejabberd.allow_users: there is no user"),
}


def bad(folder: Path, kind: str) -> str:
    """Return a configuration that is wrong in one way."""
    line = BAD[kind][0]
    match kind:
        case "not TOML":
            return line
        case "unknown key":
            return configuration(folder, ejabberd="moode = '0660'")
        case "no user":
            return configuration(folder, ejabberd=line)
        case "other state":
            return configuration(folder, daemon=line)
        case _:
            return configuration(folder, memory=line)


@pytest.fixture(scope="module")
def lasting() -> Iterator[Daemon]:
    """Give one daemon for all failing reloads: it must not care."""
    with temporary_folder() as folder, Daemon(folder, configuration(folder)) as daemon:
        yield daemon


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_configuration_changes_nothing_and_is_explained(lasting: Daemon, kind: str) -> None:
    said = lasting.log()
    with lasting.connect() as wire:
        assert wire.ask(LOGIN) == YES
        reload(lasting, bad(lasting.folder, kind), " before stays in force")
        assert BAD[kind][1] in lasting.log().removeprefix(said).replace("\\", "")
        assert wire.ask(LOGIN) == YES  # the connection lives on
    assert lasting.login() == YES


def test_a_file_that_is_gone_changes_nothing(tmp: Path) -> None:
    with Daemon(tmp, configuration(tmp)) as daemon:
        daemon.config.unlink()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("No such file or directory")
        assert daemon.login() == YES
        reload(daemon, configuration(tmp))
        assert "1 reloads (1 failed)" in extauth("status", "-c", daemon.config).stdout


def test_a_socket_that_can_not_be_opened_changes_nothing(tmp: Path) -> None:
    with Daemon(tmp, configuration(tmp)) as daemon, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        mode = (tmp / "ejabberd.sock").lstat().st_mode
        text = configuration(tmp, ejabberd='mode = "0666"').replace(
            "[backend.people]",
            f'[listener.new]\nprotocol = "prosody"\naddress = "unix:{tmp}/new.sock"\n'
            f'[listener.taken]\nprotocol = "prosody"\naddress = "tcp:127.0.0.1:{port}"\n[backend.people]',
        )
        text = text.replace('"alice:fake right", ', "")
        reload(daemon, text, f"listener.taken.address: tcp:127.0.0.1:{port}: Address already in use")
        assert daemon.login() == YES
        assert not (tmp / "new.sock").exists()
        assert (tmp / "ejabberd.sock").lstat().st_mode == mode


def test_a_reload_puts_backends_and_listeners_in_force(tmp: Path) -> None:
    with Daemon(tmp, configuration(tmp)) as daemon, daemon.connect() as wire:
        assert wire.ask("auth:carol:xmpp.test:fake new") == NO
        text = configuration(tmp, prosody='mode = "0666"').replace('"alice:fake right"', '"carol:fake new"')
        text += f'[listener.more]\nprotocol = "ejabberd"\naddress = "unix:{tmp}/more.sock"\n'
        reload(daemon, text)
        assert wire.ask("auth:carol:xmpp.test:fake new") == YES  # also on a connection that was there before
        assert wire.ask("isuser:alice:xmpp.test") == NO
        with daemon.connect("more") as more:
            assert more.ask("auth:carol:xmpp.test:fake new") == YES
        assert stat.S_IMODE((tmp / "prosody.sock").lstat().st_mode) == 0o666


def test_a_listener_that_goes_away_finishes_what_is_in_progress(tmp: Path) -> None:
    text = configuration(tmp, memory="delay = 1.5")
    extra = f'[listener.extra]\nprotocol = "ejabberd"\naddress = "unix:{tmp}/extra.sock"\n'
    with Daemon(tmp, text + extra) as daemon:
        with daemon.connect("extra") as busy, daemon.connect("extra") as idle:
            assert idle.ask(LOGIN) == YES
            busy.send("auth:slow:xmpp.test:fake slow")
            poll(lambda: connections(daemon, "extra") == 2, "both are connected")
            reload(daemon, text)
            assert not (tmp / "extra.sock").exists()
            assert idle.receive() == b""
            assert busy.receive() == YES
            assert busy.receive() == b""
        assert daemon.login() == YES


def connections(daemon: Daemon, listener: str) -> int:
    """Return how many connections a listener has, as told by the kernel's list of unix sockets."""
    path = str(daemon.folder / f"{listener}.sock")
    rows = Path("/proc/net/unix").read_text().splitlines()
    return sum(row.endswith(path) and row.split()[5] == "03" for row in rows)  # 03: connected


def test_an_address_that_stays_never_refuses_a_connection(tmp: Path) -> None:
    texts = [configuration(tmp, ejabberd=f"max_pending = {number}") for number in (1, 2)]
    failures: list[object] = []
    done = threading.Event()
    count = 0

    def log_in() -> None:
        nonlocal count
        while not done.is_set():
            try:
                wire = daemon.connect()
            except OSError as error:
                failures.append(error)
                continue
            with wire:
                try:
                    reply = wire.ask(LOGIN)
                except (BrokenPipeError, ConnectionResetError):
                    reply = b""
            count += 1
            # A connection that was idle just then is closed: servers' connectors ask again.
            if reply not in (YES, b""):
                failures.append(reply)

    with Daemon(tmp, texts[0]) as daemon:
        inode = (tmp / "ejabberd.sock").lstat().st_ino
        clients = [threading.Thread(target=log_in) for _ in range(3)]
        for client in clients:
            client.start()
        try:
            for number in range(1, 11):
                reload(daemon, texts[number % 2])
        finally:
            done.set()
            for client in clients:
                client.join()
        assert (tmp / "ejabberd.sock").lstat().st_ino == inode
    assert failures == []
    assert count > 10


# The end ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_lets_the_busy_finish(tmp: Path, number: signal.Signals) -> None:
    daemon = Daemon(tmp, configuration(tmp, memory="delay = 1.0"))
    daemon.start()
    with daemon.connect() as busy, daemon.connect() as idle:
        assert idle.ask(LOGIN) == YES
        busy.send("auth:slow:xmpp.test:fake slow")
        poll(lambda: connections(daemon, "ejabberd") == 2, "both are connected")
        daemon.signal(number)
        assert idle.receive() == b""
        assert not is_up(tmp / "ejabberd.sock")
        assert busy.receive() == YES
        assert busy.receive() == b""
    assert daemon.wait() == 0
    assert list(tmp.glob("*.sock")) == []


def test_a_drain_has_an_end(tmp: Path) -> None:
    daemon = Daemon(tmp, configuration(tmp, memory="delay = 600.0", daemon="drain = 0.5"))
    daemon.start()
    with daemon.connect() as busy:
        busy.send("auth:slow:xmpp.test:fake slow")
        assert daemon.login() == YES
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
        assert busy.receive() == b""


def test_a_second_signal_ends_the_drain(tmp: Path) -> None:
    daemon = Daemon(tmp, configuration(tmp, memory="delay = 600.0", daemon="drain = 600.0"))
    daemon.start()
    with daemon.connect() as busy:
        busy.send("auth:slow:xmpp.test:fake slow")
        assert daemon.login() == YES
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_log("stopping")
        daemon.signal(signal.SIGHUP)  # this one does not
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.wait(0.3)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
        assert busy.receive() == b""


def test_a_start_that_fails_leaves_nothing(tmp: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        text = configuration(tmp) + f'[listener.x]\nprotocol = "prosody"\naddress = "tcp:127.0.0.1:{taken.getsockname()[1]}"\n'
        (tmp / "extauth.toml").write_text(text)
        ended = extauth("serve", "-c", tmp / "extauth.toml")
    assert ended.returncode == os.EX_CONFIG
    assert "listener.x.address: tcp:127.0.0.1:" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp.glob("*.sock")) == []


def test_two_daemons_do_not_share_a_socket(tmp: Path) -> None:
    with Daemon(tmp, configuration(tmp)) as daemon:
        second = extauth("serve", "-c", daemon.config)
        assert second.returncode == os.EX_CONFIG
        assert f"unix:{tmp}/ejabberd.sock: another process listens there" in second.stderr
        assert daemon.login() == YES


def test_after_a_crash_it_starts_again(tmp: Path) -> None:
    daemon = Daemon(tmp, configuration(tmp))
    daemon.start()
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    assert (tmp / "ejabberd.sock").exists()
    with daemon:
        assert daemon.login() == YES


# What systemd is told ---------------------------------------------------------------------------------------------------------


class Manager:
    """A service manager that listens to notifications."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + address[1:] if address.startswith("@") else address)
        self.sock.settimeout(15)

    def next(self) -> list[str]:
        """Wait for the next notification and return its lines."""
        return self.sock.recv(65536).decode().split("\n")

    def drop(self) -> int:
        """Forget what has come and return how much that was."""
        self.sock.setblocking(False)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while self.sock.recv(65536):
                count += 1
        self.sock.settimeout(15)
        return count


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_in_order(tmp: Path, *, abstract: bool) -> None:
    address = f"@{tmp.name}" if abstract else f"{tmp}/notify"
    manager = Manager(address)
    daemon = Daemon(tmp, configuration(tmp))
    daemon.environment = {**ENVIRONMENT, "NOTIFY_SOCKET": address}
    with manager.sock, daemon:
        status = "STATUS=3 listeners, 1 backends, 1 domains"
        assert manager.next() == ["READY=1", status]
        assert daemon.login() == YES
        for text in (configuration(tmp), "not usable"):
            before = time.monotonic_ns() // 1000
            daemon.configure(text)
            daemon.signal(signal.SIGHUP)
            reloading, stamp = manager.next()
            assert reloading == "RELOADING=1"
            assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
            assert manager.next() == ["READY=1", status]
        daemon.signal(signal.SIGTERM)
        assert manager.next() == ["STOPPING=1"]
        assert daemon.wait() == 0
        assert manager.drop() == 0


def test_the_watchdog_is_fed_only_while_the_store_can_be_written(tmp: Path) -> None:
    manager = Manager(f"{tmp}/notify")
    daemon = Daemon(tmp, configuration(tmp))
    daemon.environment = {**ENVIRONMENT, "NOTIFY_SOCKET": f"{tmp}/notify", "WATCHDOG_USEC": "400000"}
    with manager.sock, daemon:
        assert manager.next()[0] == "READY=1"
        for _ in range(3):
            assert manager.next()[0] == "WATCHDOG=1"
        with contextlib.closing(sqlite3.connect(tmp / "state/state.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            manager.drop()
            manager.sock.settimeout(1.0)
            with contextlib.suppress(TimeoutError):
                manager.next()  # one may have been on its way
            with pytest.raises(TimeoutError):
                manager.next()
            assert daemon.login() == YES
            other.execute("ROLLBACK")
        manager.sock.settimeout(15)
        assert manager.next()[0] == "WATCHDOG=1"


def test_a_watchdog_that_is_another_process_s_is_not_fed(tmp: Path) -> None:
    manager = Manager(f"{tmp}/notify")
    daemon = Daemon(tmp, configuration(tmp))
    daemon.environment = {
        **ENVIRONMENT, "NOTIFY_SOCKET": f"{tmp}/notify", "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1",
    }  # fmt: skip
    with manager.sock, daemon:
        assert manager.next()[0] == "READY=1"
        manager.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            manager.next()


# Limits of the machine --------------------------------------------------------------------------------------------------------


class Limited(Daemon):
    """A daemon under limits of the shell."""

    def __init__(self, folder: Path, text: str, limits: str) -> None:
        super().__init__(folder, text)
        self.command = ["/bin/sh", "-c", f'{limits}; exec "$@"', "sh", EXTAUTH, "serve", "-c", str(self.config)]


def files_allowed(daemon: Daemon) -> int:
    """Return the soft limit of open files."""
    return resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)[0]


def test_too_low_a_limit_of_files_is_told(tmp: Path) -> None:
    with Limited(tmp, configuration(tmp), "ulimit -n 500") as daemon:
        daemon.wait_for_log("the limit of open files is below what max_connections allows")
        assert f"limit=500 needed={3 * 1024 + 64}" in daemon.log()
        assert daemon.login() == YES


def test_a_soft_limit_of_files_is_raised(tmp: Path) -> None:
    with Limited(tmp, configuration(tmp), "ulimit -Hn 4000; ulimit -Sn 500") as daemon:
        poll(lambda: files_allowed(daemon) == 3 * 1024 + 64, "the limit is raised")
        assert "the limit of open files" not in daemon.log()


def test_with_all_files_in_use_logins_go_on_and_nobody_is_busy(tmp: Path) -> None:
    with Daemon(tmp, configuration(tmp)) as daemon, daemon.connect() as present, contextlib.ExitStack() as stack:
        assert present.ask(LOGIN) == YES
        poll(lambda: files_allowed(daemon) >= 3 * 1024 + 64, "the limit is raised")
        soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        in_use = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (in_use + 5, hard))
        wires = [stack.enter_context(daemon.connect()) for _ in range(20)]
        for wire in wires:
            wire.send(LOGIN)
        daemon.wait_for_log("can't accept connections for now")
        used = daemon.seconds_of_processor()
        for _ in range(10):
            assert present.ask(LOGIN) == YES
            time.sleep(0.15)
        assert daemon.seconds_of_processor() - used < 0.5
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert [wire.receive() for wire in wires] == [YES] * 20


class Unread(Daemon):
    """A daemon whose standard error goes into a pipe that nobody reads."""

    def _spawn(self, output: IO[bytes]) -> "subprocess.Popen[bytes]":  # noqa: ARG002 - the pipe takes its place
        """Start it with a pipe of one page."""
        self.pipe, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        with os.fdopen(writing, "wb") as unread:
            return super()._spawn(unread)

    def stop(self, seconds: float = 15) -> None:
        """End it and close the pipe."""
        super().stop(seconds)
        os.close(self.pipe)


def test_logins_go_on_when_nobody_reads_the_log(tmp: Path) -> None:
    with Unread(tmp, configuration(tmp)) as daemon:
        with daemon.connect() as wire:
            assert [wire.ask(LOGIN) for _ in range(200)] == [YES] * 200
        for _ in range(30):  # what is not an audit line must not wait, either
            with Wire(tmp / "prosody.sock") as poison:
                poison.sock.sendall(b"x" * 9000)
                assert poison.sock.recv(1) == b""
            with daemon.connect() as wire:
                assert wire.ask("auth:bug:xmpp.test:fake right") == ERROR
        daemon.signal(signal.SIGHUP)
        with daemon.connect() as wire:
            assert [wire.ask(LOGIN) for _ in range(10)] == [YES] * 10


# Secrets ----------------------------------------------------------------------------------------------------------------------

CANARY = "canary-Xq7"


def test_no_password_is_ever_said(tmp: Path) -> None:
    secrets = [f"{CANARY} {number}" for number in range(3)]
    with Daemon(tmp, with_local_accounts(tmp, ejabberd="allow_changes = true")) as daemon:
        with daemon.connect() as wire:
            for question, reply in [
                (f"tryregister:carol:xmpp.test:{secrets[0]}", YES),
                (f"auth:carol:xmpp.test:{secrets[0]}", YES),
                (f"auth:carol:xmpp.test:{secrets[1]}", NO),
                (f"auth:nobody:xmpp.test:{secrets[1]}", NO),
                (f"setpass:carol:xmpp.test:{secrets[2]}", YES),
                (f"setpass:nobody:xmpp.test:{secrets[2]}", ERROR),
                (f"auth:carol:other.test:{secrets[2]}", NO),
                (f"auth:a@b:xmpp.test:{secrets[2]}", NO),
                (f"certauth:carol:xmpp.test:{secrets[2]}", NO),
                (f"{secrets[2]}", NO),
                (f"auth:{secrets[2]}", NO),
                (f"{secrets[2]}:carol:xmpp.test:{secrets[2]}", NO),
                (f"removeuser3:carol:xmpp.test:{secrets[0]}", NO),
                (f"removeuser3:carol:xmpp.test:{secrets[2]}", YES),
            ]:
                assert wire.ask(question) == reply, question
            for raw in (
                b"auth:carol:xmpp.test:" + CANARY.encode() + b"\xff",
                b"auth:carol:xmpp.test:" + CANARY.encode() + b"\0",
            ):
                wire.sock.sendall(len(raw).to_bytes(2) + raw)
                assert wire.receive() == NO
        for broken in (b'{"verb":"user-add","jid":"dave@xmpp.test","password":"%s"', b'{"password":"%s"}', b'{"verb":["%s"]}'):
            with Wire(tmp / "admin.sock") as admin:
                admin.sock.sendall(broken % CANARY.encode() + b"\n")
                assert admin.sock.recv(1) == b""
        said = [
            extauth(*verb, "dave@xmpp.test", "--password-stdin", "-c", daemon.config, stdin=f"{secrets[0]}\n")
            for verb in (["user", "add"], ["user", "add"], ["user", "passwd"], ["login", "--json"])
        ]
        said += [extauth("audit", "tail", "-n", "1000", *json, "-c", daemon.config) for json in ([], ["--json"])]
        said.append(extauth("status", "--json", "-c", daemon.config))
        for ended in said:
            assert CANARY not in ended.stdout + ended.stderr
        assert "audit op=check-password user=carol@xmpp.test result=reject reason=bad-password" in daemon.log()
    assert "stopping" in daemon.log()
    assert CANARY not in daemon.log()


def test_a_bug_does_not_tell_the_password(tmp: Path) -> None:
    with Daemon(tmp, configuration(tmp)) as daemon:
        with daemon.connect() as wire:
            assert wire.ask(f"auth:bug:xmpp.test:{CANARY}") == ERROR
            assert wire.ask(f"auth:down:xmpp.test:{CANARY}") == ERROR
        daemon.wait_for_log("a bug in a backend")
        daemon.wait_for_log("reason=backend-down")
    assert CANARY not in daemon.log()


def test_tcp_logins(tmp: Path) -> None:
    port = free_port()
    text = configuration(tmp) + f'[listener.tcp]\nprotocol = "prosody"\naddress = "tcp:127.0.0.1:{port}"\n'
    with Daemon(tmp, text) as daemon:
        for _ in range(3):
            with Wire(("127.0.0.1", port)) as wire:
                wire.sock.sendall(LOGIN.encode() + b"\n")
                assert wire.sock.recv(64) == b"1\n"
        daemon.wait_for_log("listener=tcp peer=127.0.0.1:")
