"""Tables that real applications have made, read by the presets; and the daemon on real databases, with ejabberd before it."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import quantiles

import pytest
import trio

from extauth.backend import Backend
from extauth.model import Accept, CheckPassword, FindKeys, Identity, Keys, Reason, Reject, Secret, UserExists
from extauth.passwords import scram
from extauth.passwords.scram import Hash
from extauth.passwords.stored import make
from tests import needs
from tests.certificates import Certificates
from tests.connector import CONNECT
from tests.contract import ORIGIN, ask
from tests.crowd import Crowd
from tests.daemons import ERROR, NO, YES, Daemon, frame, head
from tests.servers.ejabberd import Ejabberd
from tests.servers.postgres import PASSWORD, USER
from tests.servers.process import poll, temporary_folder
from tests.servers.prosody import Prosody
from tests.sql import HOSTILE, KINDS, SERVERS, Database, make_database
from tests.xmppclient import Job, XmppClient

RIGHT = "fake r\u00efght 'password'"

# How each application declares its table of users, shortened by columns that don't matter. VARCHAR for those whose type has
# another name in each database.
DJANGO = (
    "id INTEGER PRIMARY KEY, password VARCHAR(128) NOT NULL, is_superuser {bool} NOT NULL, "
    "username VARCHAR(150) NOT NULL UNIQUE, is_staff {bool} NOT NULL, is_active {bool} NOT NULL"
)
NEXTCLOUD = "uid VARCHAR(64) NOT NULL PRIMARY KEY, displayname VARCHAR(64), password VARCHAR(255), uid_lower VARCHAR(64)"
PREFERENCES = (
    "userid VARCHAR(64) NOT NULL, appid VARCHAR(32) NOT NULL, configkey VARCHAR(64) NOT NULL, configvalue TEXT, "
    "PRIMARY KEY (userid, appid, configkey)"
)
WORDPRESS = (
    "{key}, user_login VARCHAR(60) NOT NULL DEFAULT '', user_pass VARCHAR(255) NOT NULL DEFAULT '', "
    "user_status INTEGER NOT NULL DEFAULT 0"
)


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp: Path) -> Database:
    """Give a database."""
    made = make_database(request.param, tmp, request)
    if made.server is not None:
        made.server.empty()
    return made


async def judge(backend: Backend, user: str, password: str, domain: str = "xmpp.test") -> object:
    return await ask(backend, CheckPassword(Identity(user, domain), ORIGIN, Secret(password)))


async def check_preset(backend: Backend, known: str, domain: str = "xmpp.test") -> None:
    """Check what holds of every preset: the right password alone is good, and nothing can be injected."""
    assert await judge(backend, known, RIGHT, domain) == Accept(Identity(known, domain))
    assert await judge(backend, known, "wrong", domain) == Reject(Reason.BAD_PASSWORD)
    for name in HOSTILE:
        assert await judge(backend, name, RIGHT, domain) is None, name
        assert await ask(backend, UserExists(Identity(name, domain), ORIGIN)) is None, name
    assert await judge(backend, known, RIGHT, domain) == Accept(Identity(known, domain))


async def test_django(database: Database) -> None:
    bool_, yes, no = ("BOOLEAN", "true", "false") if database.kind == "postgres" else ("INTEGER", "1", "0")
    database.table("auth_user", DJANGO.format(bool=bool_))
    stored = database.text(make("django-pbkdf2-sha256", RIGHT, (1000,)))
    for number, (name, flags) in enumerate({
        "alice": (no, no, yes), "root": (yes, yes, yes), "sue": (no, yes, yes), "gone": (no, no, no),
    }.items()):  # fmt: skip
        superuser, staff, active = flags
        database.run(f"INSERT INTO auth_user VALUES ({number}, {stored}, {superuser}, '{name}', {staff}, {active})")  # noqa: S608
    async with database.open(preset="django", attributes=("role",)) as backend:
        await check_preset(backend, "alice")
        for name, role in (("root", "admin"), ("sue", "staff")):
            assert await judge(backend, name, RIGHT) == Accept(Identity(name, "xmpp.test"), {"role": role})
        assert await judge(backend, "gone", RIGHT) == Reject(Reason.DISABLED)
        assert await judge(backend, "gone", "wrong") == Reject(Reason.BAD_PASSWORD)


async def test_nextcloud(database: Database) -> None:
    stored = make("nextcloud", RIGHT, (1024, 1, 1))
    users = ({"uid": name, "password": stored, "uid_lower": name.lower()} for name in ("Alice", "gone", "back"))
    database.table("oc_users", NEXTCLOUD, *users)
    enabled = {"gone": "false", "back": "true"}
    rows = ({"userid": u, "appid": "core", "configkey": "enabled", "configvalue": v} for u, v in enabled.items())
    database.table("oc_preferences", PREFERENCES, *rows)
    async with database.open(preset="nextcloud") as backend:
        await check_preset(backend, "alice")
        await check_preset(backend, "back")
        assert await judge(backend, "gone", RIGHT) == Reject(Reason.DISABLED)


async def test_wordpress(database: Database) -> None:
    key = {
        "sqlite": "id INTEGER PRIMARY KEY",
        "postgres": "id SERIAL PRIMARY KEY",
        "mysql": "ID bigint(20) unsigned NOT NULL auto_increment PRIMARY KEY",
    }[database.kind]
    stored = make("wordpress", RIGHT, (4,))
    users = ({"user_login": name, "user_pass": stored, "user_status": int(name == "gone")} for name in ("alice", "gone"))
    database.table("blog_users", WORDPRESS.format(key=key), *users)
    async with database.open(preset="wordpress", table_prefix="blog_") as backend:
        await check_preset(backend, "alice")
        assert await judge(backend, "gone", RIGHT) == Reject(Reason.DISABLED)


# Made by real servers ---------------------------------------------------------------------------------------------------------

EJABBERD_HOSTS = ("plain", "sha", "sha256", "sha512")  # by the format of their passwords
FAMILIES = {"sha": Hash.SHA_1, "sha256": Hash.SHA_256, "sha512": Hash.SHA_512}


@needs.debian("ejabberd")
@needs.debian("ejabberd-sql")
@pytest.mark.parametrize("schema", ["", ".new"])
async def test_accounts_made_by_ejabberd(database: Database, certificates: Certificates, tmp: Path, schema: str) -> None:
    names = {"sqlite": "lite", "postgres": "pg", "mysql": "mysql"}
    database.run(Path(f"/usr/share/ejabberd/sql/{names[database.kind]}{schema}.sql").read_text())  # noqa: ASYNC240
    if database.server is None:
        where = f'sql_type: sqlite\nsql_database: "{database.file}"\n'
    else:
        where = f"""\
sql_type: {"pgsql" if database.kind == "postgres" else "mysql"}
sql_server: "127.0.0.1"
sql_port: {database.server.port}
sql_database: site
sql_username: {USER}
sql_password: "{PASSWORD}"
"""
    hosts = "".join(
        f"  {name}.test:\n    auth_method: [sql]\n    auth_password_format: {'plain' if name == 'plain' else 'scram'}\n"
        + (f"    auth_scram_hash: {name}\n" if name != "plain" else "")
        for name in EJABBERD_HOSTS
    )
    extra = f"{where}new_sql_schema: {'true' if schema else 'false'}\nhost_config:\n{hosts}"
    (tmp / "ejabberd").mkdir()
    hosts_of = [f"{name}.test" for name in EJABBERD_HOSTS]

    def register() -> None:
        with Ejabberd(tmp / "ejabberd", certificates, "/bin/false", hosts=hosts_of, extra=extra) as server:
            for name in EJABBERD_HOSTS:
                told = server.api("register", user=f"user-{name}", host=f"{name}.test", password=RIGHT)
                assert "successfully" in str(told), server.log()[-3000:]

    await trio.to_thread.run_sync(register)
    preset = "ejabberd-hosts" if schema else "ejabberd"
    async with database.open(preset=preset, scram=("SHA-1", "SHA-256", "SHA-512")) as backend:
        for name in EJABBERD_HOSTS:
            await check_preset(backend, f"user-{name}", f"{name}.test")
        await check_keys(backend, {f"user-{name}@{name}.test": family for name, family in FAMILIES.items()})
        if schema:
            assert await judge(backend, "user-plain", RIGHT, "sha.test") is None


async def check_keys(backend: Backend, accounts: dict[str, Hash]) -> None:
    for jid, family in accounts.items():
        identity = Identity(*jid.split("@"))
        keys = await ask(backend, FindKeys(identity, ORIGIN, family.value))
        assert isinstance(keys, Keys)
        (candidate,) = keys.candidates
        made = scram.make(family, RIGHT, keys.salt, keys.iterations)
        assert (made.stored_key, made.server_key) == (candidate.stored_key, candidate.server_key)


async def test_the_newer_column_type_of_ejabberd(database: Database) -> None:
    """The `users` table since ejabberd 24.10, with a row for each hash (sql/pg.new.sql there)."""
    database.table(
        "users",
        "username VARCHAR(191) NOT NULL, type SMALLINT NOT NULL, password TEXT NOT NULL, serverkey VARCHAR(128) NOT NULL, "
        "salt VARCHAR(128) NOT NULL, iterationcount INTEGER NOT NULL, PRIMARY KEY (username, type)",
    )
    for number, family in ((2, Hash.SHA_1), (3, Hash.SHA_256)):
        parts = make(f"scram-{family.value.lower()}", RIGHT, (4096,)).replace("$", ":").split(":")[1:]
        columns = dict(zip(("salt", "password", "serverkey"), parts[1:], strict=True))
        database.insert("users", username="alice", type=number, iterationcount=int(parts[0]), **columns)
    database.insert("users", username="bob", type=1, password=RIGHT, serverkey="", salt="", iterationcount=0)
    async with database.open(preset="ejabberd", scram=("SHA-1", "SHA-256")) as backend:
        await check_preset(backend, "alice")
        await check_preset(backend, "bob")
        await check_keys(backend, {"alice@xmpp.test": Hash.SHA_1})
        await check_keys(backend, {"alice@xmpp.test": Hash.SHA_256})


PROSODY_HOSTS = """\
VirtualHost "hashed.xmpp.test"
    authentication = "internal_hashed"
VirtualHost "sha256.xmpp.test"
    authentication = "internal_hashed"
    password_hash = "SHA-256"
VirtualHost "plain.xmpp.test"
    authentication = "internal_plain"
"""


@needs.debian("prosody")
@needs.debian("prosody-sql")
async def test_accounts_made_by_prosody(database: Database, certificates: Certificates, xmpp: XmppClient, tmp: Path) -> None:
    if database.server is None:
        where = f'driver = "SQLite3"; database = "{database.file}"'
    else:
        driver = "PostgreSQL" if database.kind == "postgres" else "MySQL"
        where = f'driver = "{driver}"; database = "site"; host = "127.0.0.1"; port = {database.server.port}; '
        where += f'username = "{USER}"; password = "{PASSWORD}"'
    extra = f'storage = "sql"\nsql = {{ {where} }}\nallow_registration = true'
    (tmp / "prosody").mkdir()
    accounts = {"hashed": "SHA-1", "sha256": "SHA-256", "plain": ""}

    def register() -> None:
        hashed = 'authentication = "internal_hashed"'
        with Prosody(tmp / "prosody", certificates, hashed, virtual_hosts=PROSODY_HOSTS, extra=extra) as server:
            for name in accounts:
                job = Job(port=server.port, jid=f"alice@{name}.xmpp.test", password=RIGHT, action="register")
                assert xmpp.run(job).ok, server.log()[-3000:]

    await trio.to_thread.run_sync(register)
    async with database.open(preset="prosody", scram=("SHA-1", "SHA-256")) as backend:
        for name in accounts:
            await check_preset(backend, "alice", f"{name}.xmpp.test")
        await check_keys(backend, {f"alice@{name}.xmpp.test": Hash(hash_) for name, hash_ in accounts.items() if hash_})
        assert await judge(backend, "alice", RIGHT, "xmpp.test") is None


# The daemon -------------------------------------------------------------------------------------------------------------------

CONFIGURATION = (
    head("{folder}", ejabberd="allow_changes = true\ndeadline = {deadline}")
    + """\
[backend.people]
{backend}
[domain."xmpp.test"]
backends = ["people"]
"""
)
QUERY = "SELECT login AS name, secret AS password FROM people WHERE login = $user"
CHANGE = "UPDATE people SET secret = $password WHERE login = $user"


@pytest.fixture(params=SERVERS)
def remote(request: pytest.FixtureRequest, tmp: Path) -> Database:
    """Give a database on a server with alice's account."""
    made = make_database(request.param, tmp, request)
    row = {"login": "alice", "secret": make("scram-sha-256", RIGHT, (4096,))}
    made.table("people", "login VARCHAR(100) PRIMARY KEY, secret VARCHAR(500)", row)
    return made


@pytest.fixture
def deadline() -> float:
    """Give the seconds within which the daemon answers."""
    return 5.0


@pytest.fixture
def daemon(remote: Database, deadline: float) -> Iterator[Daemon]:
    """Give a daemon on that database."""
    with temporary_folder() as folder:
        backend = remote.toml(query=QUERY, set_password=CHANGE, scheme="scram-sha-256", timeout=deadline * 0.6)
        with Daemon(folder, CONFIGURATION.format(folder=folder, backend=backend, deadline=deadline)) as server:
            yield server


@needs.debian("ejabberd")
def test_ejabberd_before_it(daemon: Daemon, certificates: Certificates, xmpp: XmppClient, tmp: Path) -> None:
    program = f"/usr/bin/python3 -SIE {CONNECT} ejabberd unix:{daemon.folder}/ejabberd.sock"
    (tmp / "ejabberd").mkdir()
    with Ejabberd(tmp / "ejabberd", certificates, program, register=True) as ejabberd:
        port, jid = ejabberd.port, "alice@xmpp.test"
        assert xmpp.login(port, jid, RIGHT).ok
        assert xmpp.login(port, jid, "wrong").condition == "not-authorized"
        assert xmpp.login(port, "nobody@xmpp.test", RIGHT).condition == "not-authorized"
        job = Job(port=port, jid=jid, password=RIGHT, action="change-password", new_password="fake new one")
        assert xmpp.run(job).ok
        assert xmpp.login(port, jid, "fake new one").ok
        assert xmpp.login(port, jid, RIGHT).condition == "not-authorized"


@pytest.mark.parametrize(  # that a busy machine is slow is no outage
    ("how", "deadline"),
    [("killed connections", 25.0), ("restart", 5.0), ("pause", 5.0)],
    ids=["killed connections", "restart", "pause"],
)
@pytest.mark.parametrize("seconds", [1, pytest.param(20, marks=pytest.mark.proof)])
async def test_a_database_that_goes_away_is_no_wrong_password(
    remote: Database, daemon: Daemon, how: str, seconds: int, tell: Callable[[str], None]
) -> None:
    server = remote.server
    assert server is not None
    crowd, probe = (Crowd(daemon.folder / "ejabberd.sock", RIGHT, "wrong") for _ in range(2))
    with trio.fail_after(seconds * 4 + 180):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crowd.run)
            await trio.sleep(seconds)
            if how == "killed connections":
                for _ in range(3):
                    await trio.to_thread.run_sync(server.kill_connections)
                    await trio.sleep(seconds / 3)
            elif how == "restart":
                await trio.to_thread.run_sync(server.stop)
                await trio.sleep(seconds - 1)
                await trio.to_thread.run_sync(server.start)
            else:
                remote.pause(signal.SIGSTOP)
                await trio.sleep(seconds + 3)
                remote.pause(signal.SIGCONT)
            back = trio.current_time()
            while await probe.log_in("alice", RIGHT) != frame(YES):
                await trio.sleep(0.1)
            back = trio.current_time() - back
            await trio.sleep(seconds)
            crowd.over = True
    replies = {f"{password} {reply[2:].hex() or 'none'}": count for (password, reply), count in crowd.replies.items()}
    cuts = quantiles(crowd.seconds, n=100)
    tell(
        f"{remote.kind}, {how}: {len(crowd.seconds)} logins {replies}, p50 {cuts[49] * 1000:.0f} ms, "
        f"p99 {cuts[98] * 1000:.0f} ms, slowest {max(crowd.seconds):.2f} s; found {back:.1f} s after its return"
    )
    assert not {("right", frame(NO)), ("wrong", frame(YES)), ("right", b""), ("wrong", b"")} & set(crowd.replies), replies
    assert crowd.replies["right", frame(YES)] > 0
    if how == "killed connections" and cuts[49] < 1:  # else the machine has too much to do for such a crowd
        assert ("right", frame(ERROR)) not in crowd.replies, replies
    poll(lambda: "database_lost" in daemon.log(), "the loss is in the log")
