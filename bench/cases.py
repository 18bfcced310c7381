"""What is compared with what. A group opens its servers and yields its cases."""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from socket import AF_UNIX, SHUT_RDWR, socket
from statistics import median
from subprocess import check_output
from sys import executable
from threading import Thread
from typing import TypeAlias
from xml.etree.ElementTree import Element

from bench import connector as spawning
from bench import databases, reconnect, servers
from bench import tokens as issued
from bench.generator import Generator as LoadGenerator
from bench.generator import Load, Measured
from bench.plain_backend import passwords
from bench.postgres_floor import CALLERS
from tests.certificates import make_certificates
from tests.rawxmpp import Stream
from tests.servers.dovecot import Dovecot
from tests.servers.postgres import Postgres
from tests.servers.process import Server
from tests.servers.prosody import Prosody
from tests.servers.slapd import ADMIN, ADMIN_PASSWORD, PEOPLE, Slapd

OURS = "extauth"
PRIMITIVE = "cryptography's PBKDF2, all processors"
REQUESTS = {1: 10000, 8: 40000, 64: 40000}  # by connections


@dataclass(frozen=True)
class Case:
    """One piece of work, done by each contender; `goals` are the ratios of ours to theirs that we want to reach."""

    name: str
    contenders: Mapping[str, Callable[[], Measured]]
    goals: Mapping[str, float]


Group: TypeAlias = Callable[[LoadGenerator, Path], AbstractContextManager[list[Case]]]


@contextmanager
def ejabberd(generator: LoadGenerator, folder: Path) -> Generator[list[Case]]:
    """Answers that need no hashing, over the ejabberd listener."""
    with servers.extauth(folder) as ours, servers.streams(folder) as streams, servers.bare(folder) as bare:
        contenders = {OURS: ours, "plain trio streams": streams, "bare epoll": bare}
        work = (("isuser, SQLite", "isuser", servers.LOCAL[4096]), ("auth, in memory", "auth", servers.PLAIN))
        yield [
            Case(
                f"{name}, {connections} connections",
                {
                    contender: _asking(
                        generator, server, server.socket, Load("ejabberd", connections, count, host, operation=what)
                    )
                    for contender, server in contenders.items()
                },
                {"plain trio streams": 2.0, "bare epoll": 0.4} if connections > 1 else {},
            )
            for name, what, host in work
            for connections, count in REQUESTS.items()
        ]


@contextmanager
def tokens(generator: LoadGenerator, folder: Path) -> Generator[list[Case]]:
    """Tokens in a password's place, over the ejabberd listener."""
    configuration, files = issued.prepare(folder)
    with ExitStack() as stack:
        ours = stack.enter_context(servers.extauth(folder, configuration))
        bare = {name: stack.enter_context(issued.floor(folder, name)) for name in files}
        peer = issued.peer(folder)
        # xcauth asks its web application about what is no valid token, so beside it nothing is refused.
        work = [("token", name, "bare epoll", bare[name], 0.45, 10) for name in files]
        if peer is not None:
            work.append(("token, all good", "xcauth", "xcauth", stack.enter_context(peer), 5.0, 0))
        yield [
            Case(
                f"{name} {what}, {connections} connections",
                {
                    contender: _asking(
                        generator,
                        server,
                        server.socket,
                        Load(
                            "ejabberd",
                            connections,
                            REQUESTS[connections],
                            issued.HOSTS[name],
                            wrong=wrong,
                            accounts=files[name],
                        ),
                    )
                    for contender, server in {OURS: ours, against: theirs}.items()
                },
                {against: goal},
            )
            for what, name, against, theirs, goal, wrong in work
            for connections in (8, 64)
        ]


@contextmanager
def reconnection(_generator: LoadGenerator, folder: Path) -> Generator[list[Case]]:
    """What one client waits for when it comes back through Prosody: by a token beside by password."""
    with servers.extauth(folder, reconnect.configuration(folder)) as daemon, reconnect.prosody(folder) as prosody:
        ours = reconnect.by_token(reconnect.access_token(daemon))
        others = {name: reconnect.by_scram(name) for name in ("SCRAM-SHA-1", "SCRAM-SHA-512")}
        contenders = {name: _waiting(prosody, login) for name, login in {OURS: ours, **others}.items()}
        yield [Case(f"X-OAUTH through Prosody, one client, keys of {reconnect.ITERATIONS} iterations", contenders, {})]


@contextmanager
def hashing(generator: LoadGenerator, folder: Path) -> Generator[list[Case]]:
    """Password checks against stored SCRAM-SHA-256 keys, 64 connections, beside the bare primitive."""
    with servers.extauth(folder) as ours:
        yield [
            Case(
                f"password check, {iterations} iterations",
                {
                    OURS: _asking(
                        generator, ours, ours.socket, Load("ejabberd", 64, 16_000_000 // iterations, host, users=100)
                    ),
                    PRIMITIVE: _printing("bench.primitive", str(iterations), "2"),
                },
                {PRIMITIVE: 0.9},
            )
            for iterations, host in servers.LOCAL.items()
        ]


LISTENERS = """
    [listener.sasl-plain]
    protocol = "dovecot"
    address = "unix:{folder}/sasl-plain.sock"
    domain = "{plain}"
    [listener.sasl-local]
    protocol = "dovecot"
    address = "unix:{folder}/sasl-local.sock"
    domain = "{local}"
"""


@contextmanager
def dovecot(generator: LoadGenerator, folder: Path) -> Generator[list[Case]]:
    """SASL over the dovecot listener, beside Debian's Dovecot. No wrong passwords: Dovecot holds those replies back."""
    theirs = "Dovecot"
    plain, local = folder / "sasl-plain.sock", folder / "sasl-local.sock"
    listeners = LISTENERS.format(folder=folder, plain=servers.PLAIN, local=servers.LOCAL[4096])
    with (
        servers.extauth(folder, listeners) as daemon,
        servers.dovecot(folder / "plain", stored_keys=False) as of_texts,
        servers.dovecot(folder / "keys", stored_keys=True) as of_keys,
    ):

        def case(name: str, ours: Path, other: Dovecot, load: Load, goal: float | None) -> Case:
            flight = f", {load.in_flight} in flight each" if load.in_flight > 1 else ""
            return Case(
                f"{name}, {load.connections} connections{flight}",
                {OURS: _asking(generator, daemon, ours, load), theirs: _asking(generator, other, other.socket, load)},
                {theirs: goal} if goal else {},
            )

        stored = case("PLAIN, stored SCRAM keys", local, of_keys, Load("dovecot", 64, 1000, "-", wrong=0), 6.0)
        shapes = [*((connections, 1, count) for connections, count in REQUESTS.items()), (8, 16, 40000)]
        yield [
            *(
                case("PLAIN, in memory", plain, of_texts, Load("dovecot", c, n, "-", d, wrong=0), 0.6 if c == 64 else None)
                for c, d, n in shapes
            ),
            *(
                case(
                    "SCRAM-SHA-256",
                    local,
                    of_keys,
                    Load("scram", c, n // 2, "-", d, users=20, wrong=0),
                    0.6 if c == 64 else None,
                )
                for c, d, n in shapes
            ),
            # What the primitive gives beside Dovecot is the most that anything can reach with it on this machine.
            replace(stored, contenders={**stored.contenders, PRIMITIVE: _printing("bench.primitive", "4096", "2")}),
        ]


@contextmanager
def connector(_generator: LoadGenerator, folder: Path) -> Generator[list[Case]]:
    """From spawning the connector to its first reply."""
    with ExitStack() as stack:
        cases: list[Case] = []
        for protocol, request in spawning.REQUESTS.items():
            reply = spawning.REPLIES[protocol]
            listening = stack.enter_context(socket(AF_UNIX))
            path = folder / f"{protocol}.sock"
            listening.bind(str(path))
            listening.listen(16)
            Thread(target=spawning.serve, args=(listening, reply), daemon=True).start()
            stack.callback(listening.shutdown, SHUT_RDWR)
            bare = folder / f"{protocol}.py"
            bare.write_text(spawning.BARE[protocol].format(module="socket"))
            commands = {
                OURS: [*spawning.PYTHON, str(spawning.CONNECT), protocol, str(path)],
                "bare python3 -S -I -E": [*spawning.PYTHON, str(bare), str(path)],
            }
            contenders = {name: _spawning(command, request, reply) for name, command in commands.items()}
            cases.append(Case(f"connector {protocol}, spawn to first reply", contenders, {"bare python3 -S -I -E": 1 / 1.3}))
        yield cases


DIRECTORY = """
    [listener.sasl-local]
    protocol = "dovecot"
    address = "unix:{folder}/sasl-local.sock"
    domain = "{local}"
    [backend.directory]
    type = "ldap"
    servers = ["{url}"]
    ca_file = "{ca}"
    bind_dn = "{admin}"
    bind_password_file = "{secret}"
    base = "{people}"
    threads = {threads}
    [domain."{domain}"]
    backends = ["directory"]
"""
THREADS = 16  # the default


@contextmanager
def ldap(generator: LoadGenerator, folder: Path) -> Generator[list[Case]]:
    """Password checks by search and bind, beside ldap3 alone; SCRAM while all threads are busy, beside SCRAM while none is."""
    secret = folder / "secret"
    secret.write_text(ADMIN_PASSWORD)
    secret.chmod(0o600)
    (folder / "slapd").mkdir()
    certificates = make_certificates(folder, ["localhost"])
    with ExitStack() as stack:
        slapd = stack.enter_context(Slapd(folder / "slapd", certificates, passwords(1000)))
        table = DIRECTORY.format(
            folder=folder, local=servers.LOCAL[4096], url=slapd.tls_url, ca=certificates.ca, admin=ADMIN, secret=secret,
            people=PEOPLE, threads=THREADS, domain=servers.DIRECTORY,
        )  # fmt: skip
        daemon = stack.enter_context(servers.extauth(folder, table))
        floor = [slapd.tls_url, str(certificates.ca), PEOPLE, ADMIN, str(THREADS), "3"]
        ldap3_alone = _printing("bench.ldap_floor", *floor, stdin=ADMIN_PASSWORD)
        binding = Load("ejabberd", 64, 3000, servers.DIRECTORY, wrong=0)
        hashing_ = Load("ejabberd", 64, 1, servers.LOCAL[10000], users=100)
        scram = Load("scram", 1, 2000, "-", users=20, wrong=0)

        def quiet() -> Measured:
            return generator.run(scram, daemon, folder / "sasl-local.sock")

        def saturated() -> Measured:
            with generator.background(binding, daemon.socket), generator.background(hashing_, daemon.socket):
                return quiet()

        yield [
            Case(
                f"password check by LDAP, {THREADS} threads",
                {OURS: _asking(generator, daemon, daemon.socket, binding), "ldap3 alone, as many threads": ldap3_alone},
                {},
            ),
            Case("SCRAM-SHA-256 while all threads are busy, 1 connection", {OURS: saturated, "while none is": quiet}, {}),
        ]


@contextmanager
def sql(generator: LoadGenerator, folder: Path) -> Generator[list[Case]]:
    """Logins and look-ups through databases, beside their drivers used directly."""
    with (
        databases.running(folder) as running,
        servers.extauth(folder, databases.configuration(folder, running)) as ours,
    ):
        yield [
            Case(
                f"{name}, {kind}, {databases.CALLERS} connections",
                {
                    OURS: _asking(
                        generator,
                        ours,
                        ours.socket,
                        Load("ejabberd", databases.CALLERS, 10000, databases.DOMAINS[kind], operation=what),
                    ),
                    databases.DRIVERS[kind]: _printing("bench.databases", kind, str(server.port), "2"),
                },
                {databases.DRIVERS[kind]: 0.45} if what == "auth" else {},
            )
            for kind, server in running.items()
            for name, what in (("auth, plain passwords", "auth"), ("isuser", "isuser"))
        ]


@contextmanager
def postgres(generator: LoadGenerator, folder: Path) -> Generator[list[Case]]:
    """Look-ups and logins with the state on PostgreSQL, beside the same statements by asyncpg alone."""
    theirs = f"asyncpg on uvloop, {CALLERS} callers"
    (folder / "postgres").mkdir()
    with Postgres(folder / "postgres") as server:
        sasl = folder / "sasl-local.sock"
        listeners = LISTENERS.format(folder=folder, plain=servers.PLAIN, local=servers.LOCAL[4096])
        with servers.extauth(folder, listeners, server.url) as daemon:
            isuser = Load("ejabberd", CALLERS, 20000, servers.LOCAL[4096], wrong=0, operation="isuser")
            login = Load("scram", CALLERS, 10000, "-", users=20, wrong=0)
            yield [
                Case(
                    f"{name}, state on PostgreSQL, {CALLERS} connections",
                    {
                        OURS: _asking(generator, daemon, path, load),
                        theirs: _printing("bench.postgres_floor", server.url, servers.LOCAL[4096], work, "2"),
                    },
                    {theirs: 0.45},
                )
                for name, work, path, load in (
                    ("isuser", "isuser", daemon.socket, isuser),
                    ("SCRAM-SHA-256", "scram", sasl, login),
                )
            ]


GROUPS: Mapping[str, Group] = {
    "ejabberd": ejabberd,
    "hashing": hashing,
    "tokens": tokens,
    "reconnect": reconnection,
    "ldap": ldap,
    "postgres": postgres,
    "connector": connector,
    "dovecot": dovecot,
    "sql": sql,
}


def _asking(generator: LoadGenerator, server: Server, path: Path, load: Load) -> Callable[[], Measured]:
    return lambda: generator.run(load, server, path)


def _waiting(server: Prosody, login: Callable[[Stream], Element]) -> Callable[[], Measured]:
    return lambda: reconnect.measure(server, login)


def _spawning(command: list[str], request: bytes, reply: bytes) -> Callable[[], Measured]:
    def run() -> Measured:
        taken = sorted(spawning.first_reply(command, request, reply) for _ in range(20))
        return Measured(1000 / median(taken), median(taken) * 1000, taken[-1] * 1000)

    return run


def _printing(*module: str, stdin: str = "") -> Callable[[], Measured]:
    """Return a contender that prints its rate, and the processor time of one answer in seconds."""
    command = [executable, "-m", *module]

    def run() -> Measured:
        rate, cpu = map(float, check_output(command, cwd=servers.ROOT, input=stdin.encode()).split())
        return Measured(rate, cpu=cpu * 1e6)

    return run
