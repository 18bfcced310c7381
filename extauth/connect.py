#!/usr/bin/python3 -SIE
"""The connector: what an XMPP server starts in place of an authentication program.

It relays requests from stdin to the daemon's socket and replies to stdout, one at a time and in order. The
daemon may restart meanwhile: the connector waits a little, repeats what may be repeated, and otherwise
answers "outage" in the server's own protocol. Self-contained and standard library only, because servers start
many of these at once, and again after every oversized request; so it also avoids imports that cost more than
the relay.
"""

import _socket  # not `socket`: that imports enum and selectors, which doubles the time to the first reply
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal  # the same functions without enum

USAGE = """\
usage: extauth-connect ejabberd|prosody [ADDRESS]
       extauth-ejabberd [ADDRESS]
       extauth-prosody [ADDRESS]

Relays requests of an XMPP server (stdin, stdout) to the extauth daemon.
ADDRESS is unix:/path, /path or tcp:127.0.0.1:port. Without it: the environment
variable EXTAUTH_EJABBERD or EXTAUTH_PROSODY, else unix:/run/extauth/ejabberd.sock
or unix:/run/extauth/prosody.sock.
"""

EX_USAGE = 64
STDERR = 2
MAX_PORT = 65535
HEADER = 2  # bytes of the length before ejabberd's frames
REASON_LIMIT = 128  # bytes of a reply line of the daemon
LINE_LIMIT = 8192  # bytes of a Prosody request, newline included; the module itself sends at most 1001
REPORT_INTERVAL = 60.0  # s
RETRY_INTERVAL = 0.05  # s between attempts to connect
MAX_SENDS = 3  # a request that makes the daemon hang up must not be sent for ever


class ServerGoneError(Exception):
    """The server no longer reads what we write."""


def readable(fd: int, timeout: float = 0.0) -> bool:
    """Whether `fd` has data or an end of file within `timeout` seconds.

    On a terminal this sees all that was written to the other side before the call: the kernel's poll flushes
    its queue (n_tty_poll).
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout) * 1000))


def parse_address(address: str) -> tuple[int, str | tuple[str, int]]:
    """Socket family and address of `unix:/path`, `/path` or `tcp:host:port`; ValueError otherwise."""
    kind, _, rest = address.partition(":") if not address.startswith("/") else ("unix", "", address)
    host, _, port = rest.rpartition(":")
    if kind == "unix" and rest.startswith("/"):
        return _socket.AF_UNIX, rest
    if kind == "tcp" and host and port.isascii() and port.isdigit() and 0 < int(port) <= MAX_PORT:
        host = host.strip("[]")
        return (_socket.AF_INET6 if ":" in host else _socket.AF_INET), (host, int(port))
    raise ValueError(f"{address!r} is no address: expected unix:/path, /path or tcp:host:port")


def leave(*_: object) -> None:
    """End with status 0: Prosody's module never restarts a program that ended otherwise, or by a signal."""
    os._exit(0)


class Ejabberd:
    """ejabberd's extauth framing: u16 length and payload, both ways (src/extauth.erl, `{packet, 2}`)."""

    name = "ejabberd"
    patience = 3.0  # s to wait for the daemon to come back
    limit = 28.0  # s to a reply; ejabberd gives up after 30 and closes our stdin
    outage = b"\0\1\0"  # not the two bytes ejabberd expects: refused, logged, not cached

    def __init__(self, sink: int) -> None:
        self.received = 0.0
        self._sink = sink
        self._buffer = b""

    def read(self) -> bytes | None:
        """Return the next request as a whole frame; None at end of file."""
        while (size := HEADER + int.from_bytes(self._buffer[:HEADER])) > len(self._buffer) or len(self._buffer) < HEADER:
            chunk = os.read(0, 65537)
            if not chunk:
                return None
            self._buffer += chunk
        request, self._buffer = self._buffer[:size], self._buffer[size:]
        self.received = time.monotonic()
        return request

    def may_repeat(self, request: bytes) -> bool:
        """Whether asking twice does no harm."""
        return request[HEADER:].startswith((b"auth:", b"isuser:"))

    def reply(self, data: bytes) -> bytes | None:
        """Return the reply that `data` is; None if it is incomplete; ValueError if it is none."""
        valid = (b"\0\2\0\0", b"\0\2\0\1", self.outage)
        if data in valid:
            return data
        if any(reply.startswith(data) for reply in valid):
            return None
        raise ValueError

    def answer(self, reply: bytes) -> bool:
        """Write the reply; False if the connector has to end."""
        write(self._sink, reply)
        return True

    def report(self, message: str) -> None:
        """To stderr, which ejabberd leaves alone."""
        try:
            os.write(STDERR, f"extauth-connect: {message}\n".encode(errors="replace"))
        except OSError:  # nobody listens: no reason to end
            return


class Prosody:
    """The "generic" lines of Prosody's mod_auth_external, on pipes or on the terminal that lpty makes.

    On the terminal, four things that would let one user have another's answer are kept out:

    * lpty's child switches echo off after the fork, while the module already sends the first query. If the
      module is faster (usual on several cores), it reads its own query back as the answer, milliseconds
      before this program runs, and an answer of ours would be taken for the next query's. Whether that
      happened cannot be seen from here, so the first query on a terminal that is not raw yet is refused
      without asking. A restarted connector finds the terminal raw, as its predecessor left it.
    * The module stops reading early when any signal reaches Prosody. So a reply that is not read soon is taken
      back, through the copy of the terminal's master side that lpty leaks to us; if another query has
      come meanwhile, it may have got the reply, and is refused in turn until the two sides are in step.
    * The module has one query in flight, written at once. More than one line waiting therefore is a query
      with a line break in it, or one whose reader has left: it gets one refusal.
    * Past `silence` seconds nothing is written: the module reads for 5 s. A query that is never answered shifts
      nothing, so on a terminal we go on with the next; elsewhere replies can only be counted, and we end.
    """

    name = "prosody"
    patience = 1.0
    limit = 3.8
    silence = 4.0  # s after which the module may have stopped reading
    pickup = 0.5  # s in which a reply must be read; the module waits for it in select()
    outage = b"error: extauth cannot answer now\n"  # the module logs what begins with "error:"
    slow = 0.1  # s; a module that waits reads within a millisecond
    not_raw = b"error: extauth refuses the first query on a terminal that is not raw\n"

    def __init__(self, sink: int) -> None:
        self.received = 0.0
        self._sink = sink
        self._buffer = b""
        self._terminal = os.isatty(0)
        self._settled = True
        self._master: int | None = None
        self._watched = [0]  # whatever ends the wait for a query
        if self._terminal:
            self._make_raw()
        for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
            _signal.signal(number, leave)
        # A signal that comes between Python's check and a blocking call would wait for the next query.
        wakeup, writer = os.pipe()
        self._watched.append(wakeup)
        os.set_blocking(writer, False)
        _signal.set_wakeup_fd(writer)

    def _make_raw(self) -> None:
        import termios

        _signal.signal(_signal.SIGTTOU, _signal.SIG_IGN)
        mode = termios.tcgetattr(0)
        self._settled = not mode[3] & termios.ISIG
        mode[0] &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP)
        mode[0] &= ~(termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON)
        mode[1] &= ~termios.OPOST
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(0, termios.TCSANOW, mode)
        # Masters of other terminals that leaked would hide the end of Prosody from other connectors. Ours would
        # from us, so that has to be watched for.
        index = f"tty-index:\t{os.path.basename(os.ttyname(0))}\n"
        for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
            try:
                if not os.readlink(f"/proc/self/fd/{fd}").endswith("/ptmx"):
                    continue
                with open(f"/proc/self/fdinfo/{fd}") as info:
                    mine = index in info.read()
            except OSError:
                continue
            if mine:
                self._master = fd
                self._watched.append(os.pidfd_open(os.getppid()))
            else:
                os.close(fd)

    def read(self) -> bytes | None:
        """Return the next line; None at end of file; empty if it has to be refused unasked."""
        return self._read_terminal() if self._terminal else self._read_line()

    def _receive(self) -> bytes:
        poll = select.poll()
        for fd in self._watched:
            poll.register(fd, select.POLLIN)
        ready = dict(poll.poll())
        return os.read(0, LINE_LIMIT) if 0 in ready else b""

    def _read_terminal(self) -> bytes | None:
        data = chunk = b""
        while not chunk.endswith(b"\n") or readable(0):
            chunk = self._receive()
            if not chunk:
                return None
            if not data:
                self.received = time.monotonic()
            data = (data + chunk)[: LINE_LIMIT + 1]
        return data if self._settled and len(data) <= LINE_LIMIT and data.count(b"\n") == 1 else b""

    def _read_line(self) -> bytes | None:
        too_long = False
        while b"\n" not in self._buffer:
            if len(self._buffer) >= LINE_LIMIT:
                self._buffer, too_long = b"", True
            chunk = self._receive()
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        self.received = time.monotonic()
        return b"" if too_long or len(line) >= LINE_LIMIT else line + b"\n"

    def may_repeat(self, request: bytes) -> bool:
        """Whether asking twice does no harm."""
        return request.startswith((b"auth:", b"isuser:"))

    def reply(self, data: bytes) -> bytes | None:
        """Return the reply that `data` is; None if it is incomplete; ValueError if it is none."""
        line, newline, rest = data.partition(b"\n")
        if rest or len(line) > REASON_LIMIT or not (line.isascii() and line.decode().isprintable()):
            raise ValueError
        if not newline:
            return None
        return data if line in (b"0", b"1") or line.startswith(b"error:") else self.outage

    def answer(self, reply: bytes) -> bool:
        """Write the reply, unless it is too late for it; False if the connector has to end."""
        late = time.monotonic() - self.received >= self.silence
        if not self._terminal:
            if not late:
                write(self._sink, reply)
            return not late
        if not late and not readable(0):  # if the next query is there, the reader of this one has left
            self._put(reply if self._settled else self.not_raw)
        if not self._settled:
            self._settled = not readable(0)
        return True

    def _put(self, reply: bytes) -> None:
        """Write a reply on the terminal; take it back and set `_settled` to false if nobody reads it."""
        if self._master is None:  # without it nothing can be taken back
            if self._settled:
                write(self._sink, reply)
            return
        write(self._sink, reply)
        written = time.monotonic()
        while readable(self._master):
            if time.monotonic() - written >= self.pickup or (readable(0) and readable(self._master)):
                import termios

                termios.tcflush(self._master, termios.TCIFLUSH)
                self._settled = False  # a query that comes at this moment may yet have got the reply
                return
            time.sleep(0 if time.monotonic() - written < self.slow / 10 else 0.001)
        if time.monotonic() - written >= self.slow and readable(0):
            self._settled = False  # more likely read by that query than by a reader that slept so long

    def report(self, message: str) -> None:
        """To syslog: on the terminal, stderr would be read as a reply."""
        import syslog

        syslog.openlog("extauth-prosody", syslog.LOG_PID, syslog.LOG_AUTH)
        syslog.syslog(syslog.LOG_ERR, message)


class Daemon:
    """The connection to the daemon; `ask` opens it, repeats and gives up as the protocol allows."""

    def __init__(self, protocol: Ejabberd | Prosody, address: str, sink: int) -> None:
        self._protocol = protocol
        self._address = address
        self._sink = sink
        self._socket: _socket.socket | None = None
        self._away = False  # patience was exhausted once and no connect has succeeded since
        self._why = ""
        self._reported = -REPORT_INTERVAL

    def ask(self, request: bytes, deadline: float) -> bytes | None:
        """Get the daemon's reply, or None (and a report) if there is none by `deadline` (monotonic clock).

        A lost connection may be a restart or the daemon's own deadline ("close, never answer late"), which
        look alike. So the request is repeated only if as much time is left as it has just taken: after a
        restart there nearly always is, after the daemon's deadline (25 s of our 28) there is not.
        """
        give_up = 0.0 if self._away else time.monotonic() + self._protocol.patience
        sends = 0
        while True:
            connection = self._connection()
            if connection is not None:
                self._away = False
                sends += 1
                begun = time.monotonic()
                reply, again = self._exchange(connection, request, deadline)
                if reply is not None:
                    return reply
                self.close()
                now = time.monotonic()
                if not again or sends == MAX_SENDS or deadline - now < now - begun:
                    break
                give_up = now + self._protocol.patience
            if time.monotonic() >= min(give_up, deadline):
                self._away = True
                break
            self._wait(RETRY_INTERVAL)
        self._report()
        return None

    def _connection(self) -> _socket.socket | None:
        """Return the connection, a new one if it ended or holds bytes nobody asked for; None if it fails."""
        if self._socket is not None and not readable(self._socket.fileno()):
            return self._socket
        self.close()
        try:
            family, address = parse_address(self._address)
            connection = _socket.socket(family, _socket.SOCK_STREAM)
            self._socket = connection
            connection.settimeout(self._protocol.patience)
            connection.connect(address)
        except (OSError, ValueError, OverflowError) as error:
            self.close()
            self._why = explain(error, self._address)
            return None
        return connection

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self, connection: _socket.socket, request: bytes, deadline: float) -> tuple[bytes | None, bool]:
        """Return the reply, or None and whether the request may be sent again."""
        sent, data = 0, b""
        repeat = self._protocol.may_repeat(request)
        try:
            while sent < len(request):
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                sent += connection.send(request[sent:])
            while self._wait(deadline - time.monotonic(), connection):
                chunk = connection.recv(4096)
                if not chunk:
                    self._why = f"{self._address} closed the connection without an answer; {whoami()}"
                    return None, repeat
                data += chunk
                reply = self._protocol.reply(data)
                if reply is not None:
                    return reply, False
        except ValueError:
            self._why = f"what {self._address} sent is no reply of the {self._protocol.name} protocol"
            return None, False
        except TimeoutError:
            pass
        except OSError as error:
            self._why = f"{self._address}: {error.strerror}"
            return None, repeat or not sent
        self._why = f"no answer from {self._address} within {self._protocol.limit:g} s"
        return None, False

    def _wait(self, timeout: float, connection: _socket.socket | None = None) -> bool:
        """Wait for the connection, or just wait; `ServerGoneError` as soon as nobody reads our replies any more."""
        poll = select.poll()
        poll.register(self._sink, 0)
        if connection is not None:
            poll.register(connection.fileno(), select.POLLIN)
        ready = dict(poll.poll(max(0.0, timeout) * 1000))
        if ready.pop(self._sink, 0):
            raise ServerGoneError
        return bool(ready)

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._reported >= REPORT_INTERVAL:
            self._reported = now
            self._protocol.report(self._why)


def write(fd: int, data: bytes) -> None:
    """Write all of it; `ServerGoneError` if there is no reader."""
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError as error:
        raise ServerGoneError from error


def whoami() -> str:
    """Our own identity, as the daemon and the file system see it."""
    groups = ",".join(map(str, sorted({os.getegid(), *os.getgroups()})))
    return f"this connector runs as uid {os.geteuid()}, gid {os.getegid()}, groups {groups}"


def explain(error: Exception, address: str) -> str:
    """Why connecting failed, with what has to be changed."""
    if isinstance(error, PermissionError):
        return f"permission denied on {address}: {whoami()}; {owner(address.removeprefix('unix:'))}"
    if isinstance(error, FileNotFoundError):
        return f"no socket at {address}: is the extauth daemon running, and does it listen there?"
    if isinstance(error, ConnectionRefusedError):
        return f"connection refused at {address}: the extauth daemon is not running"
    if isinstance(error, ValueError):
        return str(error)
    return f"cannot connect to {address}: {error}"


def owner(path: str) -> str:
    """Owner, group and mode of the socket, or of the first folder on the way to it that keeps us out."""
    culprit = path
    for end in [i for i, character in enumerate(path) if i and character == "/"]:
        if not os.access(path[:end], os.X_OK, effective_ids=True):
            culprit = path[:end]
            break
    try:
        status = os.stat(culprit)
    except OSError as error:
        return f"{culprit}: {error.strerror}"
    import grp
    import pwd

    try:
        names = f"{pwd.getpwuid(status.st_uid).pw_name}:{grp.getgrgid(status.st_gid).gr_name}, "
    except KeyError:
        names = ""
    mode = f"mode {status.st_mode & 0o7777:04o}"
    return f"{culprit} belongs to {names}uid {status.st_uid}, gid {status.st_gid}, {mode}"


def protect_stdout(*, silent: bool) -> int:
    """Return a private descriptor for replies; 1 becomes stderr, or with `silent` both become /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    while null <= STDERR:  # a descriptor we were started without
        null = os.open(os.devnull, os.O_RDWR)
    sink = os.dup(1)
    if silent:
        os.dup2(null, STDERR)
    os.dup2(STDERR, 1)
    os.close(null)
    return sink


def run(protocol: str, address: str | None = None) -> int:
    """Relay until end of file and return the exit status, 0. `protocol` is "ejabberd" or "prosody"."""
    kind = Prosody if protocol == "prosody" else Ejabberd
    address = address or os.environ.get(f"EXTAUTH_{protocol.upper()}") or f"unix:/run/extauth/{protocol}.sock"
    sink = protect_stdout(silent=kind is Prosody)
    try:
        server = kind(sink)
        daemon = Daemon(server, address, sink)
        while (request := server.read()) is not None:
            reply = daemon.ask(request, server.received + server.limit) if request else None
            if not server.answer(reply or server.outage):
                break
    except (ServerGoneError, OSError):  # the other side of stdin or stdout has gone
        pass
    return 0


def main() -> int:
    """Entry point of extauth-connect, extauth-ejabberd and extauth-prosody.

    The name may be the protocol because lpty starts a path without arguments.
    """
    name = os.path.basename(sys.argv[0])
    arguments = sys.argv[1:]
    if "-h" in arguments or "--help" in arguments:
        sys.stdout.write(USAGE)
        return 0
    if name in ("extauth-ejabberd", "extauth-prosody"):
        arguments.insert(0, name.removeprefix("extauth-"))
    try:
        if len(arguments) not in (1, 2) or arguments[0] not in ("ejabberd", "prosody"):
            raise ValueError
        for address in arguments[1:]:
            parse_address(address)
    except ValueError as error:
        sys.stderr.write(f"{error}\n{USAGE}" if error.args else USAGE)
        return EX_USAGE
    return run(*arguments)


if __name__ == "__main__":
    sys.exit(main())
