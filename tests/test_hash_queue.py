"""A hundred passwords that take long to compare, and everybody else's logins beside them."""

from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from extauth.passwords.stored import make
from tests.daemons import ERROR, NO, YES, Daemon, Wire, extauth, frame

SLOW = 100
RIGHT = "fake right"
CONFIGURATION = """\
[daemon]
state = "sqlite://{folder}/state/state.db"
hash_threads = 1
hash_patience = {patience}
[listener.admin]
protocol = "admin"
address = "unix:{folder}/admin.sock"
[listener.ejabberd]
protocol = "ejabberd"
address = "unix:{folder}/ejabberd.sock"
[listener.sasl]
protocol = "dovecot"
address = "unix:{folder}/sasl.sock"
[backend.slow]
type = "file"
path = "{folder}/users"
[backend.local]
iterations = 4096
[domain."slow.xmpp.test"]
backends = ["slow"]
[domain."xmpp.test"]
backends = ["local"]
"""


@contextmanager
def serve(folder: Path, patience: float) -> Generator[tuple[Daemon, list[Wire]]]:
    """Give a daemon that has been asked for as many slow passwords at once, and the connections they are asked on."""
    (folder / "users").write_text(f"alice:{make('sha512-crypt', RIGHT, (1_000_000,))}\n")
    text = CONFIGURATION.format(folder=folder, patience=patience)
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon(folder, text))
        added = extauth("user", "add", "alice@xmpp.test", "--password-stdin", "-c", daemon.config, stdin=RIGHT)
        assert added.returncode == 0, added.stderr
        wires = [stack.enter_context(daemon.connect()) for _ in range(SLOW)]
        for wire in wires:
            wire.send(f"auth:alice:slow.xmpp.test:{RIGHT}")
        yield daemon, wires


def test_logins_that_need_no_hashing_do_not_wait_for_a_hundred_slow_hashes(tmp: Path) -> None:
    with serve(tmp, patience=25) as (daemon, wires):
        with daemon.connect() as wire:
            assert wire.ask("isuser:alice:slow.xmpp.test") == YES
            assert wire.ask("isuser:nobody:xmpp.test") == NO
        login = ("login", "alice@xmpp.test", "--mechanism", "SCRAM-SHA-256", "--password-stdin", "-c", daemon.config)
        ended = extauth(*login, stdin=RIGHT)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        wires[-1].sock.setblocking(False)
        try:
            early = wires[-1].sock.recv(100)
        except BlockingIOError:
            early = b""
        assert early in (b"", frame(ERROR)), "the slow ones were over before"


def test_what_waits_too_long_for_a_hash_is_an_outage_and_no_wrong_password(tmp: Path) -> None:
    with serve(tmp, patience=1.0) as (daemon, wires):
        replies = Counter(wire.receive() for wire in wires)
        assert replies[YES] > 0
        assert replies[ERROR] > 0
        assert replies.keys() == {YES, ERROR}
        with daemon.connect() as wire:
            assert wire.ask(f"auth:alice:slow.xmpp.test:{RIGHT}") == YES
