"""Where a listener listens: `unix:/path`, `tcp:127.0.0.1:port` or `systemd:NAME`, opened safely and closed cleanly."""

import errno
import grp
import ipaddress
import os
import pwd
import re
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from extauth.errors import ConfigError
from extauth.jid import InvalidName, domain_part
from extauth.values import Checked

BACKLOG = 1024
NOT_VOUCHED = "it must be a unix socket, whose peer the kernel vouches for"
FIRST_PASSED = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)

_MODE = re.compile("(0o?)?[0-7]{1,3}").fullmatch


@dataclass(frozen=True)
class SocketConfig(Checked):
    """The keys that every listener on a socket has. Times are in seconds.

    `vouched`: the kernel has to vouch for the peer, so that it must be a unix socket.
    """

    vouched: ClassVar[bool] = False

    address: str = ""
    mode: str = "0660"  # of a unix socket
    group: str | None = None  # of a unix socket
    allow_users: tuple[str, ...] = ()  # names or uids that may connect to a unix socket; empty: whom `mode` lets in
    max_connections: int = 1024
    max_pending: int = 64  # requests in progress on one connection
    request_timeout: float = 10.0  # for a request that has begun to arrive
    deadline: float = 10.0  # after which a request is no longer answered

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        try:
            kind = parse_address(self.address)[0]
        except ValueError as error:
            yield str(error)
        else:
            if kind == "tcp" and (self.vouched or self.allow_users):
                yield f"address: {NOT_VOUCHED}" if self.vouched else f"allow_users, address: {NOT_VOUCHED}"
        if not _MODE(self.mode):
            yield 'mode: must be an octal string such as "0660"'
        yield from self.not_positive("max_connections", "max_pending", "request_timeout", "deadline")


def domain_problems(domain: str) -> Iterator[str]:
    """Yield what is wrong with a listener's key `domain`; it may be empty."""
    try:
        if domain:
            domain_part(domain)
    except InvalidName as error:
        yield f"domain: {domain!r}: {error}"


def parse_address(address: str) -> tuple[str, str, int]:
    """Return kind ("unix", "tcp", "systemd"), path, host or name, and port.

    Raises:
        ValueError: with the text to show.
    """
    kind, _, rest = address.partition(":")
    if kind == "unix" and rest.startswith("/"):
        return "unix", rest, 0
    if kind == "systemd" and rest:
        return "systemd", rest, 0
    if kind == "tcp":
        host, _, port = rest.rpartition(":")
        with suppress(ValueError):
            if ipaddress.ip_address(host.strip("[]")).is_loopback and 0 <= int(port) <= 65535:  # noqa: PLR2004
                return "tcp", host.strip("[]"), int(port)
        raise ValueError(f"address: {address!r}: must be a loopback address and a port, such as tcp:127.0.0.1:23662")
    raise ValueError(f"address: {address!r}: must begin with unix:/, tcp: or systemd:")


class Listening:
    """A listening socket and, for a unix socket that we made, the file to remove when it is closed."""

    def __init__(self, address: str, sock: socket.socket, made: tuple[str, int] | None = None) -> None:
        self.address = address
        self.sock = sock
        self._made = made

    def adjust(self, place: str, config: SocketConfig) -> None:
        """Give a socket file of ours the mode and group that changed keys say.

        Raises:
            ConfigError: that can't be done.
        """
        if self._made is not None:
            try:
                _admit(config, self._made[0])
            except (OSError, ValueError) as error:
                raise _problem(place, config, error) from error

    def close(self) -> None:
        """Close it and remove its file, if that is still the one we made: who comes then finds nobody and waits for another."""
        self.sock.close()
        if self._made is not None:
            path, inode = self._made
            with suppress(OSError):
                if os.lstat(path).st_ino == inode:
                    os.unlink(path)


def listen(place: str, config: SocketConfig) -> Listening:
    """Open the socket that a listener's keys describe. `place` is where those keys stand.

    Raises:
        ConfigError: it can't be opened, and why.
    """
    kind, where, port = parse_address(config.address)
    try:
        if kind == "unix":
            return _listen_unix(config, where)
        sock = _listen_tcp(where, port) if kind == "tcp" else _passed(where)
        if sock.family != socket.AF_UNIX and (config.vouched or config.allow_users):
            sock.close()
            raise ValueError(NOT_VOUCHED)
        return Listening(config.address, sock)
    except (OSError, ValueError) as error:
        raise _problem(place, config, error) from error


def _problem(place: str, config: SocketConfig, error: OSError | ValueError) -> ConfigError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else error
    return ConfigError([f"{place}.address: {config.address}: {why}"])


def _listen_unix(config: SocketConfig, path: str) -> Listening:
    try:
        folder = Path(path).parent.stat()
    except FileNotFoundError:
        raise ValueError("its folder does not exist") from None
    if folder.st_uid not in (0, os.geteuid()):
        raise ValueError(f"its folder belongs to {user_name(folder.st_uid)}")
    if folder.st_mode & 0o002 and not folder.st_mode & stat.S_ISVTX:
        raise ValueError("everybody may write to its folder")
    _remove_dead(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o777 & ~int(config.mode, 8))
        try:
            sock.bind(path)
        finally:
            os.umask(before)
    except BaseException:
        sock.close()
        raise
    listening = Listening(config.address, sock, (path, os.lstat(path).st_ino))
    try:
        sock.setblocking(False)
        _admit(config, path)
        sock.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def _admit(config: SocketConfig, path: str) -> None:
    """Give the socket file the mode and group that the keys say."""
    if config.group is not None:
        try:
            os.chown(path, -1, grp.getgrnam(config.group).gr_gid)
        except KeyError:
            raise ValueError(f"there is no group {config.group!r}") from None
        except PermissionError:
            raise ValueError(
                f"may not give it to group {config.group!r}: this process must be a member (SupplementaryGroups=)"
            ) from None
    os.chmod(path, int(config.mode, 8))


def _remove_dead(path: str) -> None:
    """Remove a socket file that nobody serves any more; refuse anything else that is in the way."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ValueError("a symbolic link is in its place" if stat.S_ISLNK(status.st_mode) else "another file is in its place")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its queue is full: very much alive
    raise OSError(errno.EADDRINUSE, "another process listens there")


def _listen_tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.setblocking(False)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _passed(name: str) -> socket.socket:
    """Return the socket that systemd passed under `name` (FileDescriptorName=)."""
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    count = int(os.environ.get("LISTEN_FDS", "0"))
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or name not in names[:count]:
        raise ValueError("systemd passed no socket of this name")
    # A duplicate: the passed one stays open, to be found again by a reload.
    sock = socket.socket(fileno=os.dup(FIRST_PASSED + names.index(name)))
    sock.setblocking(False)
    return sock


def user_ids(names: tuple[str, ...]) -> frozenset[int]:
    """Return the uids of users given by name or number.

    Raises:
        ValueError: with one argument for each user that does not exist.
    """
    found: set[int] = set()
    missing: list[str] = []
    for name in names:
        try:
            found.add(int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid)
        except KeyError:
            missing.append(f"allow_users: there is no user {name!r}")
    if missing:
        raise ValueError(*missing)
    return frozenset(found)


def user_name(uid: int) -> str:
    """Return a user's name, or the number of one that has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def peer_credentials(sock: socket.socket) -> tuple[int, int] | None:
    """Return pid and uid of the process at the other end of a unix socket, None for any other socket."""
    if sock.family != socket.AF_UNIX:
        return None
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid
