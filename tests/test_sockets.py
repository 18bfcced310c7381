"""Where listeners listen: safely opened, cleanly closed."""

import grp
import os
import pwd
import socket
import stat
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from extauth import sockets
from extauth.errors import ConfigError
from extauth.listeners import admin
from extauth.sockets import Listening, SocketConfig, listen, parse_address, peer_credentials, user_ids
from tests import needs
from tests.daemons import ENVIRONMENT, EXTAUTH, YES, Daemon, Wire, configuration, is_up
from tests.servers.process import free_port

root = pytest.mark.needs(None if os.geteuid() == 0 else "only root can give files away")


@contextmanager
def listening(folder: Path, name: str = "it.sock", mode: str = "0660", group: str | None = None) -> Generator[Listening]:
    """Listen on a unix socket in `folder`."""
    opened = listen("listener.it", SocketConfig(f"unix:{folder}/{name}", mode=mode, group=group))
    try:
        yield opened
    finally:
        opened.close()


def refusal(config: SocketConfig) -> str:
    """Return why a socket can't be opened."""
    with pytest.raises(ConfigError) as caught:
        listen("listener.it", config)
    (problem,) = caught.value.problems
    assert problem.startswith("listener.it.address: "), problem
    return problem.rpartition(f"{config.address}: ")[2]


# Addresses --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("unix:/run/x.sock", ("unix", "/run/x.sock", 0)),
        ("tcp:127.0.0.1:80", ("tcp", "127.0.0.1", 80)),
        ("tcp:127.8.9.1:0", ("tcp", "127.8.9.1", 0)),
        ("tcp:[::1]:23662", ("tcp", "::1", 23662)),
        ("systemd:ejabberd", ("systemd", "ejabberd", 0)),
    ],
)
def test_addresses(address: str, parsed: tuple[str, str, int]) -> None:
    assert parse_address(address) == parsed


@pytest.mark.parametrize(
    "address",
    [
        "", "/run/x.sock", "unix:", "unix:x.sock", "systemd:", "udp:127.0.0.1:1", "tcp:", "tcp:127.0.0.1", "tcp:127.0.0.1:",
        "tcp:127.0.0.1:x", "tcp:127.0.0.1:65536", "tcp:127.0.0.1:-1", "tcp:0.0.0.0:80", "tcp:192.0.2.1:80", "tcp:[::]:80",
        "tcp:[2001:db8::1]:80", "tcp:localhost:80", "tcp:example.com:80", "tcp::80",
    ],
)  # fmt: skip
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="address: "):
        SocketConfig(address)


@pytest.mark.parametrize("mode", ["", "rw", "999", "1777", "-1", "0o1777"])
def test_modes_must_be_permissions(mode: str) -> None:
    with pytest.raises(ValueError, match="mode: "):
        SocketConfig("unix:/x", mode=mode)


def test_users_are_names_or_numbers() -> None:
    me = pwd.getpwuid(os.getuid())
    assert user_ids((me.pw_name, "64999")) == {me.pw_uid, 64999}
    with pytest.raises(ValueError, match="no user 'nobody-of-this-name'"):
        user_ids(("nobody-of-this-name",))
    with pytest.raises(ValueError, match="no user") as caught:
        user_ids(("no-1", me.pw_name, "no-2"))
    assert caught.value.args == ("allow_users: there is no user 'no-1'", "allow_users: there is no user 'no-2'")


# Unix sockets -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["0600", "0660", "0666", "0"])
@pytest.mark.parametrize("umask", [0, 0o777])
def test_the_file_has_its_mode_whatever_the_umask(tmp: Path, mode: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        with listening(tmp, mode=mode):
            assert stat.S_IMODE((tmp / "it.sock").lstat().st_mode) == int(mode, 8)
            assert os.umask(umask) == umask
    finally:
        os.umask(before)


@root
def test_the_file_has_its_group(tmp: Path) -> None:
    group = next(entry for entry in grp.getgrall() if entry.gr_gid not in (0, os.getgid()))
    with listening(tmp, group=group.gr_name):
        assert (tmp / "it.sock").lstat().st_gid == group.gr_gid


def test_a_group_that_is_not_there_is_told_and_nothing_is_left(tmp: Path) -> None:
    config = SocketConfig(f"unix:{tmp}/it.sock", group="no-group-of-this-name")
    assert refusal(config) == "there is no group 'no-group-of-this-name'"
    assert list(tmp.iterdir()) == []


def test_a_dead_socket_makes_way(tmp: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp}/it.sock")
    with listening(tmp):
        assert is_up(tmp / "it.sock")


def test_a_live_socket_stays(tmp: Path) -> None:
    with listening(tmp) as first:
        assert refusal(SocketConfig(first.address)) == "another process listens there"
        assert is_up(tmp / "it.sock")


def test_a_live_socket_whose_queue_is_full_stays(tmp: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(f"{tmp}/it.sock")
        busy.listen(0)
        waiting.connect(f"{tmp}/it.sock")
        assert refusal(SocketConfig(f"unix:{tmp}/it.sock")) == "another process listens there"


def test_a_symbolic_link_is_not_followed(tmp: Path) -> None:
    (tmp / "it.sock").symlink_to(tmp / "elsewhere.sock")
    assert refusal(SocketConfig(f"unix:{tmp}/it.sock")) == "a symbolic link is in its place"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp}/elsewhere.sock")
    assert refusal(SocketConfig(f"unix:{tmp}/it.sock")) == "a symbolic link is in its place"
    assert (tmp / "elsewhere.sock").exists()


def test_a_file_is_not_removed(tmp: Path) -> None:
    (tmp / "it.sock").write_text("precious")
    assert refusal(SocketConfig(f"unix:{tmp}/it.sock")) == "another file is in its place"
    assert (tmp / "it.sock").read_text() == "precious"


def test_the_folder_must_be_there(tmp: Path) -> None:
    assert refusal(SocketConfig(f"unix:{tmp}/no/it.sock")) == "its folder does not exist"


def test_the_folder_must_not_be_everybodys(tmp: Path) -> None:
    tmp.chmod(0o777)
    assert refusal(SocketConfig(f"unix:{tmp}/it.sock")) == "everybody may write to its folder"
    tmp.chmod(0o1777)
    with listening(tmp):
        assert is_up(tmp / "it.sock")


@root
def test_the_folder_must_not_be_somebody_elses(tmp: Path) -> None:
    os.chown(tmp, 64999, 0)
    assert refusal(SocketConfig(f"unix:{tmp}/it.sock")) == "its folder belongs to 64999"


def test_a_path_that_is_too_long_is_told(tmp: Path) -> None:
    assert "too long" in refusal(SocketConfig(f"unix:{tmp}/{'x' * 120}.sock"))


def test_closing_removes_our_own_file_only(tmp: Path) -> None:
    path = tmp / "it.sock"
    with listening(tmp):
        assert path.exists()
    assert not path.exists()
    with listening(tmp):
        path.rename(tmp / "away.sock")
        path.write_text("a successor's")
    assert path.read_text() == "a successor's"


def test_peers_are_known_by_the_kernel(tmp: Path) -> None:
    with listening(tmp) as it, socket.socket(socket.AF_UNIX) as peer:
        peer.connect(f"{tmp}/it.sock")
        it.sock.setblocking(True)
        with it.sock.accept()[0] as accepted:
            assert peer_credentials(accepted) == (os.getpid(), os.getuid())


# TCP --------------------------------------------------------------------------------------------------------------------------


def test_tcp_that_is_taken_is_told() -> None:
    port = free_port()
    first = listen("listener.it", SocketConfig(f"tcp:127.0.0.1:{port}"))
    assert refusal(SocketConfig(f"tcp:127.0.0.1:{port}")) == "Address already in use"
    first.close()


def test_tcp_can_be_opened_again_at_once() -> None:
    port = free_port()
    for _ in range(2):
        it = listen("listener.it", SocketConfig(f"tcp:127.0.0.1:{port}"))
        it.sock.setblocking(True)
        with socket.create_connection(("127.0.0.1", port)) as peer:
            it.sock.accept()[0].close()
            assert peer.recv(1) == b""
            assert peer_credentials(peer) is None
        it.close()


# Sockets that systemd passes --------------------------------------------------------------------------------------------------


def test_a_socket_that_was_not_passed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "systemd passed no socket of this name"
    assert refusal(SocketConfig("systemd:ejabberd")) == missing
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_FDNAMES", "prosody")
    assert refusal(SocketConfig("systemd:ejabberd")) == missing
    monkeypatch.setenv("LISTEN_FDNAMES", "ejabberd")
    monkeypatch.setenv("LISTEN_PID", "1")  # meant for another process
    assert refusal(SocketConfig("systemd:ejabberd")) == missing


class Activated(Daemon):
    """A daemon that `systemd-socket-activate` starts at the first connection."""

    def __init__(self, folder: Path, text: str) -> None:
        super().__init__(folder, text)
        self.command = [
            "systemd-socket-activate", f"--listen={folder}/other.sock", f"--listen={folder}/passed.sock",
            "--fdname=other:ejabberd", *[f"-E{name}={value}" for name, value in ENVIRONMENT.items()],
            EXTAUTH, "serve", "-c", str(self.config),
        ]  # fmt: skip

    def ready(self) -> bool:
        """Tell whether it accepts connections; the first starts it."""
        return is_up(self.folder / "passed.sock")


@pytest.mark.parametrize("config", [admin.Config("systemd:it"), SocketConfig("systemd:it", allow_users=("0",))])
def test_a_passed_socket_whose_peer_nobody_vouches_for_is_refused(
    config: SocketConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        monkeypatch.setattr(sockets, "FIRST_PASSED", passed.fileno())
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_FDNAMES", "it")
        assert refusal(config) == "it must be a unix socket, whose peer the kernel vouches for"
        listen("listener.it", SocketConfig("systemd:it")).close()


def test_whom_to_allow_can_be_told_of_unix_sockets_only() -> None:
    with pytest.raises(ValueError, match="allow_users, address: it must be a unix socket"):
        SocketConfig("tcp:127.0.0.1:0", allow_users=("root",))


@needs.program("systemd-socket-activate")
def test_a_passed_socket_is_served_and_left_in_place(tmp: Path) -> None:
    text = configuration(tmp).replace(f"unix:{tmp}/ejabberd.sock", "systemd:ejabberd")
    with Activated(tmp, text) as daemon, Wire(tmp / "passed.sock") as wire:
        assert wire.ask("auth:alice:xmpp.test:fake right") == YES
        # A reload finds it again, also when the listener's keys have changed.
        daemon.configure(text.replace('"systemd:ejabberd"', '"systemd:ejabberd"\nmax_pending = 3'))
        subprocess.run(["kill", "-HUP", str(daemon.pid)], check=True)
        daemon.wait_for_log("configuration reloaded")
        with Wire(tmp / "passed.sock") as another:
            assert another.ask("isuser:alice:xmpp.test") == YES
    assert (tmp / "passed.sock").exists()


@needs.program("systemd-socket-activate")
def test_a_passed_socket_that_nobody_serves_any_more_keeps_nobody_busy(tmp: Path) -> None:
    text = configuration(tmp, memory="delay = 2.0").replace(f"unix:{tmp}/ejabberd.sock", "systemd:ejabberd")
    with Activated(tmp, text) as daemon, Wire(tmp / "passed.sock") as wire:
        assert wire.ask("isuser:alice:xmpp.test") == YES
        wire.send("auth:slow:xmpp.test:fake slow")
        daemon.configure(text.replace('protocol = "ejabberd"', 'protocol = "prosody"').replace("systemd:ej", f"unix:{tmp}/ej"))
        subprocess.run(["kill", "-HUP", str(daemon.pid)], check=True)
        daemon.wait_for_log("configuration reloaded")
        used = daemon.seconds_of_processor()
        with Wire(tmp / "passed.sock"):  # systemd still listens, and lets it wait for whoever comes next
            assert wire.receive() == YES
        assert daemon.seconds_of_processor() - used < 0.5
