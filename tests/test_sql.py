"""The backends of SQL: the contract on each database, and what tables, names and statements may do to them."""
# ruff: noqa: S608 - statements of tests

import gc
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from extauth.backend import Backend
from extauth.daemon import open_without_listeners
from extauth.errors import BackendDown, ConfigError
from extauth.layers.names import Naming
from extauth.layers.rules import NameRules
from extauth.model import (
    Accept,
    Answer,
    CheckCertificate,
    CheckPassword,
    CreateUser,
    Decoy,
    FindAccount,
    FindKeys,
    Identity,
    Keys,
    Origin,
    Reason,
    Reject,
    RemoveUser,
    Secret,
    SetPassword,
    UserExists,
)
from extauth.passwords.stored import make
from extauth.soon import settle
from tests import needs
from tests.certificates import Certificates
from tests.contract import ACCOUNTS, ALICE, DOMAIN, ORIGIN, BackendContract, ask, is_yes, login
from tests.daemons import read
from tests.servers.mariadb import MariaDb
from tests.servers.postgres import CAUTIOUS, Postgres
from tests.servers.process import free_port
from tests.sql import HOSTILE, KINDS, SERVERS, Database, Kind, make_database

COLUMNS = "domain VARCHAR(100), login VARCHAR(100), secret VARCHAR(500), allowed INTEGER DEFAULT 1, role VARCHAR(20)"
UNIQUE = f"{COLUMNS}, PRIMARY KEY (domain, login)"
QUERY = (
    "SELECT login AS name, secret AS password, allowed AS enabled, role FROM people WHERE login = $user AND domain = $domain"
)
CHANGES = {
    "set_password": "UPDATE people SET secret = $password WHERE login = $user AND domain = $domain",
    "create_user": "INSERT INTO people (domain, login, secret) VALUES ($domain, $user, $password)",
    "remove_user": "DELETE FROM people WHERE login = $user AND domain = $domain",
}
STORED = {user: make("scram-sha-256", password, (4096,)) for user, password in ACCOUNTS.items()}
RIGHT = ACCOUNTS["alice"]


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp: Path) -> Database:
    """Give a database with the contract's accounts."""
    made = make_database(request.param, tmp, request)
    made.table("people", UNIQUE, *({"domain": DOMAIN, "login": user, "secret": stored} for user, stored in STORED.items()))
    return made


@pytest.fixture
async def backend(database: Database) -> AsyncIterator[Backend]:
    """Give a backend that may change accounts."""
    async with database.open(query=QUERY, **CHANGES, scheme="scram-sha-256", scram=("SHA-256",), weak=("plain",)) as opened:
        yield opened


class TestContract(BackendContract):
    """The contract."""

    handles = frozenset(
        {CheckPassword, CheckCertificate, UserExists, FindAccount, FindKeys, Decoy, SetPassword, CreateUser, RemoveUser}
    )


def rows(database: Database) -> list[str]:
    """Return the whole table, to see whether something has changed."""
    return database.lines("SELECT login, domain, secret, allowed, role FROM people ORDER BY login, domain")


# Names ------------------------------------------------------------------------------------------------------------------------


async def test_hostile_names_are_nobody_and_do_nothing(backend: Backend, database: Database) -> None:
    before = rows(database)
    for name in HOSTILE:
        for stranger in (Identity(name, DOMAIN), Identity("alice", name), Identity(name, name)):
            assert await ask(backend, CheckPassword(stranger, ORIGIN, Secret(RIGHT))) is None, stranger
            assert await ask(backend, FindKeys(stranger, ORIGIN, "SHA-256")) is None, stranger
            assert await ask(backend, SetPassword(stranger, ORIGIN, Secret("a good one"))) is None, stranger
            assert await ask(backend, RemoveUser(stranger, ORIGIN)) is None, stranger
    assert rows(database) == before
    assert is_yes(await login(backend, "alice", RIGHT), "alice")


async def test_hostile_names_can_be_had(backend: Backend, database: Database) -> None:
    before = rows(database)
    for name in HOSTILE:
        if len(name) > 100 or name.strip() != name or (database.kind == "mysql" and name in ("$user", "%s")):
            continue
        created = await ask(backend, CreateUser(Identity(name, DOMAIN), ORIGIN, Secret("a good one")))
        assert created in (Accept(Identity(name, DOMAIN)), Reject(Reason.USER_EXISTS)), name
    assert set(before) <= set(rows(database))
    assert is_yes(await login(backend, "alice", RIGHT), "alice")


async def test_hostile_passwords_are_passwords(backend: Backend, database: Database) -> None:
    others = [row for row in rows(database) if "alice" not in row]
    for password in HOSTILE:
        answer = await ask(backend, SetPassword(ALICE, ORIGIN, Secret(password)))
        if isinstance(answer, Reject):
            continue
        assert is_yes(answer, "alice")
        assert is_yes(await login(backend, "alice", password), "alice"), password
        assert await login(backend, "alice", RIGHT) == Reject(Reason.BAD_PASSWORD)
    assert [row for row in rows(database) if "alice" not in row] == others


async def test_a_table_may_write_names_in_its_own_way(database: Database) -> None:
    stored = ({"login": "Alice", "secret": STORED["alice"]}, {"login": "bob@example.com", "secret": STORED["bob"]})
    database.table("mixed", "login VARCHAR(100), secret VARCHAR(500)", *stored)
    query = "SELECT login AS name, secret AS password FROM mixed WHERE lower(login) IN ($user, $jid)"
    async with database.open(query=query) as backend:
        assert is_yes(await login(backend, "alice", RIGHT), "alice")
        assert is_yes(await login(backend, "bob", ACCOUNTS["bob"]), "bob")
        database.insert("mixed", login="ALICE", secret=STORED["alice"])
        assert await login(backend, "alice", RIGHT) == Reject(Reason.AMBIGUOUS)
        assert await ask(backend, UserExists(ALICE, ORIGIN)) == Reject(Reason.AMBIGUOUS)


async def test_a_table_may_have_mail_addresses_for_names(database: Database) -> None:
    stored = ({"login": "Alice@corp.example", "secret": STORED["alice"]}, {"login": "bob", "secret": STORED["bob"]})
    database.table("mail", "login VARCHAR(100), secret VARCHAR(500)", *stored)
    query = "SELECT login AS name, secret AS password FROM mail WHERE lower(login) = $user"
    async with database.open(query=query) as opened:
        backend = Naming(opened, NameRules(template="{user}@corp.example"))
        assert is_yes(await login(backend, "alice", RIGHT), "alice")
        assert await login(backend, "alice", "wrong") == Reject(Reason.BAD_PASSWORD)
        assert await login(backend, "bob", ACCOUNTS["bob"]) is None


@needs.debian("mariadb")
@pytest.mark.parametrize(
    "collation", ["utf8mb4_general_ci", "utf8mb4_unicode_ci", "utf8mb4_unicode_520_ci", "latin1_swedish_ci"]
)
@pytest.mark.parametrize("name", ["alic\u00e9", "alice ", "\u00c5lice", "alice\u00a0"], ids=ascii)
async def test_a_collation_that_takes_another_name_for_this_one(
    request: pytest.FixtureRequest, tmp: Path, collation: str, name: str
) -> None:
    database = make_database("mysql", tmp, request)
    charset = collation.partition("_")[0]
    row = {"domain": DOMAIN, "login": name, "secret": STORED["alice"]}
    database.table("people", COLUMNS, row, options=f"CHARACTER SET {charset} COLLATE {collation}")
    before = rows(database)
    async with database.open(query=QUERY, **CHANGES, scheme="scram-sha-256") as backend:
        for question in (
            CheckPassword(ALICE, ORIGIN, Secret(RIGHT)),
            UserExists(ALICE, ORIGIN),
            SetPassword(ALICE, ORIGIN, Secret("a good one")),
            RemoveUser(ALICE, ORIGIN),
        ):
            assert await ask(backend, question) is None, question.operation
        assert rows(database) == before
        database.insert("people", domain=DOMAIN, login="alice", secret=STORED["bob"])
        before = rows(database)
        assert is_yes(await login(backend, "alice", ACCOUNTS["bob"]), "alice")
        assert await login(backend, "alice", RIGHT) == Reject(Reason.BAD_PASSWORD)
        if len(database.lines("SELECT 1 FROM people WHERE login = 'alice'")) > 1:
            assert await ask(backend, SetPassword(ALICE, ORIGIN, Secret("a good one"))) == Reject(Reason.AMBIGUOUS)
            assert await ask(backend, RemoveUser(ALICE, ORIGIN)) == Reject(Reason.AMBIGUOUS)
            assert rows(database) == before


# Columns ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "answer"),
    [
        ("1 AS enabled", Accept(ALICE)),
        ("'true' AS enabled", Accept(ALICE)),
        ("'Yes' AS ENABLED", Accept(ALICE)),
        ("0 AS enabled", Reject(Reason.DISABLED)),
        ("NULL AS enabled", Reject(Reason.DISABLED)),
        ("'perhaps' AS enabled", Reject(Reason.DISABLED)),
        ("NULL AS disabled", Accept(ALICE)),
        ("'0' AS disabled", Accept(ALICE)),
        ("2 AS disabled", Reject(Reason.DISABLED)),
        ("'perhaps' AS disabled", Reject(Reason.DISABLED)),
        ("1 = 1 AS disabled", Reject(Reason.DISABLED)),
        ("role", Accept(ALICE, {"role": "admin"})),
        ("NULL AS role", Accept(ALICE)),
    ],
)
async def test_columns_say_whether_a_login_is_allowed(database: Database, columns: str, answer: Answer) -> None:
    database.run("UPDATE people SET role = 'admin'")
    query = f"SELECT login AS name, secret AS password, {columns} FROM people WHERE login = $user"
    async with database.open(query=query, attributes=("role",)) as backend:
        assert await login(backend, "alice", RIGHT) == answer
        assert await login(backend, "alice", "wrong") == Reject(Reason.BAD_PASSWORD)


async def test_columns_of_scram_keys(database: Database) -> None:
    iterations, salt, stored_key, server_key = STORED["alice"].removeprefix("SCRAM-SHA-256$").replace("$", ":").split(":")
    database.run(
        "CREATE TABLE scram (login VARCHAR(50), stored VARCHAR(99), server VARCHAR(99), salt VARCHAR(50), rounds INTEGER)"
    )
    database.insert("scram", login="alice", stored=stored_key, server=server_key, salt=salt, rounds=int(iterations))
    database.insert("scram", login="bob", stored="%", server=server_key, salt=salt, rounds=int(iterations))
    database.insert("scram", login="carol", stored=None, server=None, salt=None, rounds=None)
    columns = "login AS name, stored AS stored_key, server AS server_key, salt, rounds AS iterations"
    async with database.open(query=f"SELECT {columns} FROM scram WHERE login = $user", scram=("SHA-256",)) as backend:
        assert is_yes(await login(backend, "alice", RIGHT), "alice")
        assert isinstance(await ask(backend, FindKeys(ALICE, ORIGIN, "SHA-256")), Keys)
        assert await ask(backend, FindKeys(ALICE, ORIGIN, "SHA-1")) is None
        for broken in ("bob", "carol"):
            assert await login(backend, broken, RIGHT) == Reject(Reason.BAD_PASSWORD)


async def test_without_statements_nothing_can_be_changed(database: Database) -> None:
    async with database.open(query=QUERY) as backend:
        assert not backend.handles & {SetPassword, CreateUser, RemoveUser, FindKeys}
    before = rows(database)
    returning = "" if database.kind == "mysql" else " RETURNING login AS name"
    async with database.open(query="UPDATE people SET allowed = 0 WHERE login = $user" + returning) as backend:
        with pytest.raises(BackendDown, match=r"(?i)read.?only"):
            await login(backend, "alice", RIGHT)
    assert rows(database) == before


async def test_an_old_format_is_replaced_at_a_login(database: Database) -> None:
    database.run("UPDATE people SET secret = '{PLAIN}correct horse' WHERE login = 'alice'")
    rehash = "UPDATE people SET secret = $password WHERE login = $user AND domain = $domain AND secret = $stored"
    async with database.open(query=QUERY, rehash=rehash, scheme="scram-sha-256", weak=("plain",)) as backend:
        assert await login(backend, "alice", "wrong") == Reject(Reason.BAD_PASSWORD)
        assert any("{PLAIN}" in row for row in rows(database))
        assert is_yes(await login(backend, "alice", RIGHT), "alice")
        with trio.fail_after(20):
            while any("{PLAIN}" in row for row in rows(database)):
                await trio.sleep(0.05)
        assert is_yes(await login(backend, "alice", RIGHT), "alice")
        assert is_yes(await login(backend, "bob", ACCOUNTS["bob"]), "bob")


async def test_a_mistake_in_a_statement_is_an_outage_that_tells_no_value(database: Database) -> None:
    broken = {
        "query": QUERY,
        "set_password": "UPDATE people SET nothing = $password WHERE login = $user",
        "create_user": "X $user $password",
    }
    async with database.open(**broken, scheme="scram-sha-256") as backend:
        for request in (
            SetPassword(ALICE, ORIGIN, Secret("a good one")),
            CreateUser(Identity("carol", DOMAIN), ORIGIN, Secret("a good one")),
        ):
            with pytest.raises(BackendDown) as caught:
                await ask(backend, request)
            assert "SCRAM" not in str(caught.value)
            assert b"SCRAM".hex() not in str(caught.value)
        assert is_yes(await login(backend, "alice", RIGHT), "alice")
    async with database.open(query="SELECT nothing FROM people WHERE login = $user") as backend:
        with pytest.raises(BackendDown, match="nothing"):
            await login(backend, "alice", RIGHT)


async def test_passwords_have_their_rules(database: Database) -> None:
    async with database.open(query=QUERY, **CHANGES, scheme="bcrypt") as backend:
        for password, reason in (("short", Reason.PASSWORD_TOO_SHORT), ("x" * 73, Reason.PASSWORD_TOO_LONG)):
            assert await ask(backend, SetPassword(ALICE, ORIGIN, Secret(password))) == Reject(reason)


# Configuration ----------------------------------------------------------------------------------------------------------------


def configured(text: str) -> None:
    read(f'[backend.people]\n{text}\n[domain."example.com"]\nbackends = ["people"]')


SQLITE = 'type = "sqlite"\npath = "/x/y.db"'
POSTGRES = 'type = "postgres"\nhost = "db.example.com"\ndatabase = "app"\nuser = "x"\npreset = "django"'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SQLITE, "preset, query: give one of them"),
        (f'{SQLITE}\npreset = "django"\nquery = "SELECT $user"', "preset, query: give one of them"),
        (f'{SQLITE}\npreset = "jango"', "did you mean .django"),
        (f'{SQLITE}\nquery = "SELECT $usr"', r"query: \$usr: no such parameter"),
        (f'{SQLITE}\nquery = "SELECT 1"', r"query: holds neither \$user nor \$jid"),
        (f'{SQLITE}\nquery = "SELECT $user, $password"', r"\$password: no such parameter"),
        (
            f'{SQLITE}\npreset = "django"\nset_password = "UPDATE x SET y = 1 WHERE z = $user"',
            r"set_password: does not hold \$password",
        ),
        (
            f'{SQLITE}\npreset = "django"\nrehash = "UPDATE x SET y = $password WHERE z = $user"',
            r"rehash: does not hold \$stored",
        ),
        (f'{SQLITE}\npreset = "django"\ntable_prefix = "x; "', "table_prefix"),
        (f'{SQLITE}\nquery = "SELECT $user"\ntable_prefix = "x_"', "table_prefix: goes with a preset"),
        (f'{SQLITE}\npreset = "django"\nscheme = "md5"', "scheme: 'md5': there are"),
        (f'{SQLITE}\npreset = "django"\nweak = ["md5x"]', "weak: 'md5x': there are"),
        (f'{SQLITE}\npreset = "django"\nscram = ["MD5"]', "scram: item 1 must be"),
        (f'{SQLITE}\npreset = "django"\nconnections = 0', "connections: must be"),
        (f'{SQLITE}\npreset = "django"\ntimeout = 0', "timeout: must be more than 0"),
        (f'{SQLITE}\npreset = "django"\nmin_length = 0', "min_length: must be"),
        (f'{SQLITE}\npreset = "django"\nattributes = ["login"]', 'attributes: "login" tells how somebody logged in'),
        ('type = "sqlite"\npath = "y.db"\npreset = "django"', "path: must be absolute"),
        (f"{POSTGRES}\nport = 0", "port: must be"),
        (f'{POSTGRES}\ntls = "off"\nca_file = "/x"', 'ca_file, client_certificate: need tls = "verify"'),
        (f'{POSTGRES}\nclient_key = "/x"', "client_key: needs client_certificate"),
        ('type = "mysql"\nhost = ""\ndatabase = "app"\nuser = "x"\npreset = "django"', "host: is empty"),
        ('type = "mysql"', r"database: missing"),
        (f'{POSTGRES}\nlisten = ""', "listen: must be 1 to 63 bytes"),
    ],
)
def test_mistakes_are_told(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        configured(text)


@pytest.mark.parametrize(("host", "tls", "encrypted"), [
    ("db.example.com", "", True), ("127.0.0.1", "", False), ("/run/postgresql", "", False), ("localhost", "verify", True),
    ("db.example.com", "off", False), ("192.0.2.1", "", True), ("/run/postgresql", "verify", False),
])  # fmt: skip
def test_what_leaves_the_machine_is_encrypted(host: str, tls: str, *, encrypted: bool) -> None:
    line = f'tls = "{tls}"' if tls else ""
    settings = read(
        f'[backend.people]\ntype = "postgres"\nhost = "{host}"\ndatabase = "app"\nuser = "x"\npreset = "django"\n{line}\n'
        '[domain."example.com"]\nbackends = ["people"]'
    )
    assert settings.backends["people"].config.encrypted is encrypted


# Outages ----------------------------------------------------------------------------------------------------------------------

SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE $user <> '') SELECT max(i) FROM n",
    "postgres": "SELECT pg_sleep(5) WHERE $user <> ''",
    "mysql": "SELECT SLEEP(5) FROM (SELECT 1) AS one WHERE $user <> ''",
}


async def test_a_slow_database_is_an_outage_in_time(database: Database) -> None:
    async with database.open(query=SLOW[database.kind], timeout=0.5) as backend:
        with trio.fail_after(20), pytest.raises(BackendDown):
            await login(backend, "alice", RIGHT)
    async with database.open(query=SLOW[database.kind], timeout=60.0) as backend:
        with trio.fail_after(20), pytest.raises(BackendDown):  # the peer waits no longer
            await ask(backend, CheckPassword(ALICE, Origin("impatient", patience=0.5), Secret(RIGHT)))


async def test_more_logins_than_connections_wait_or_are_outages(database: Database) -> None:
    answers: list[object] = []
    async with database.open(query=SLOW[database.kind], timeout=1.0, connections=2, queue_patience=0.1) as backend:

        async def one() -> None:
            try:
                answers.append(await login(backend, "alice", RIGHT))
            except BackendDown as down:
                answers.append(str(down))

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(one)
    assert sum("busy" in str(answer) for answer in answers) >= 4, answers


async def test_a_file_that_is_replaced_is_read_anew(request: pytest.FixtureRequest, tmp: Path) -> None:
    database = make_database("sqlite", tmp, request)
    database.table("people", UNIQUE, {"domain": DOMAIN, "login": "alice", "secret": STORED["alice"]})
    async with database.open(query=QUERY) as backend:
        assert is_yes(await login(backend, "alice", RIGHT), "alice")
        fresh = make_database("sqlite", tmp / "fresh", request)
        fresh.table("people", UNIQUE, {"domain": DOMAIN, "login": "alice", "secret": STORED["bob"]})
        fresh.file.replace(database.file)
        assert is_yes(await login(backend, "alice", ACCOUNTS["bob"]), "alice")
        database.file.unlink()
        with pytest.raises(BackendDown, match="No such file"):
            await ask(backend, CheckPassword(ALICE, Origin("x", patience=1.0), Secret(RIGHT)))
    async with database.open(query=QUERY) as backend:
        with pytest.raises(BackendDown, match="No such file"):
            await ask(backend, CheckPassword(ALICE, Origin("x", patience=1.0), Secret(RIGHT)))
    assert not database.file.exists()


@pytest.fixture(params=SERVERS)
def remote(request: pytest.FixtureRequest, tmp: Path) -> Database:
    """Give a database on a server with alice's account."""
    made = make_database(request.param, tmp, request)
    made.table("people", UNIQUE, {"domain": DOMAIN, "login": "alice", "secret": STORED["alice"]})
    return made


async def test_connections_that_are_killed_cost_no_login(remote: Database) -> None:
    assert remote.server is not None
    async with remote.open(query=QUERY, connections=4) as backend:
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(accepted, backend)
            await trio.to_thread.run_sync(remote.server.kill_connections)


async def accepted(backend: Backend) -> None:
    assert is_yes(await login(backend, "alice", RIGHT), "alice")


class Storm:
    """Logins one after the other, each right; what else came of them than a yes or an outage is a failure."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.last = ""
        self.outages = 0

    async def run(self) -> None:
        """Log in until cancelled."""
        while True:
            try:
                answer = await ask(self._backend, CheckPassword(ALICE, Origin("storm", patience=10.0), Secret(RIGHT)))
                assert is_yes(answer, "alice"), answer
                self.last = "yes"
            except BackendDown:
                self.outages += 1
                self.last = "outage"
            await trio.sleep(0.02)

    async def until(self, state: str) -> None:
        """Wait until a login that begins from now on ends so."""
        self.last = ""
        with trio.fail_after(30):
            while self.last != state:
                await trio.sleep(0.02)


@pytest.mark.parametrize("how", ["restart", "pause", "crash"])
async def test_a_server_that_was_away_is_found_again(remote: Database, how: str) -> None:
    server = remote.server
    assert server is not None
    async with remote.open(query=QUERY, connections=4, timeout=2.0) as backend, trio.open_nursery() as nursery:
        storm = Storm(backend)
        for _ in range(4):
            nursery.start_soon(storm.run)
        await storm.until("yes")
        if how == "pause":
            remote.pause(signal.SIGSTOP)
            await storm.until("outage")
            remote.pause(signal.SIGCONT)
        elif how == "crash":
            os.kill(server.pid, signal.SIGKILL)
            await trio.to_thread.run_sync(server.stop)
            await storm.until("outage")
            await trio.to_thread.run_sync(server.start)
        else:
            await trio.to_thread.run_sync(server.stop)
            await trio.to_thread.run_sync(server.start)
        await storm.until("yes")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_server_that_does_not_answer_is_told_why(kind: Kind, request: pytest.FixtureRequest, tmp: Path) -> None:
    database = make_database(kind, tmp, request)
    async with database.open(query=QUERY, port=free_port(), timeout=2.0) as backend:
        with pytest.raises(BackendDown, match=r"(?i)refused|can't connect|connect call failed|multiple exceptions"):
            await login(backend, "alice", RIGHT)
    database.secret.write_text("fake wrong password")
    async with database.open(query=QUERY, timeout=2.0) as backend:
        with pytest.raises(BackendDown, match=r"(?i)password authentication failed|access denied") as caught:
            await login(backend, "alice", RIGHT)
    assert "fake wrong password" not in str(caught.value)


# Changes that the database tells ----------------------------------------------------------------------------------------------


@needs.debian("postgresql")
async def test_changes_that_are_told_are_forgotten(request: pytest.FixtureRequest, tmp: Path) -> None:
    database = make_database("postgres", tmp, request)
    assert database.server is not None

    async def until(expected: list[Identity | None]) -> None:
        with trio.fail_after(30):
            while database.changed != expected:
                await trio.sleep(0.02)
        database.changed.clear()

    async with database.open(query=QUERY, listen="Some accounts"):
        await until([None])  # what was told before we listened
        database.run("""NOTIFY "Some accounts", 'Alice@example.com'""", """NOTIFY "Some accounts", 'what'""")
        await until([ALICE, None])
        database.server.kill_connections()
        await until([None])
        database.run("""NOTIFY "Some accounts", 'alice@example.com'""")
        await until([ALICE])


@needs.debian("postgresql")
async def test_a_cache_drops_what_is_told_to_have_changed(request: pytest.FixtureRequest, tmp: Path) -> None:
    database = make_database("postgres", tmp, request)
    database.table("people", UNIQUE, {"domain": DOMAIN, "login": "alice", "secret": STORED["alice"]})
    table = database.toml(query=QUERY, listen="accounts")
    text = f"""[daemon]\nstate = "sqlite://{tmp}/state/state.db"\n[backend.people]\n{table}
        [backend.people.cache]\nttl = 3600\n[domain."{DOMAIN}"]\nbackends = ["people"]"""
    async with open_without_listeners(read(text)) as service:

        async def judge() -> bool:
            return isinstance(await settle(service.ask(CheckPassword(ALICE, ORIGIN, Secret(RIGHT)))), Accept)

        assert await judge()
        database.run(f"UPDATE people SET secret = '{STORED['bob']}'")
        with trio.fail_after(30):
            while await judge():  # until it listens, it may not have heard
                database.run("NOTIFY accounts, 'alice@example.com'")
                await trio.sleep(0.05)


# Encryption -------------------------------------------------------------------------------------------------------------------


async def test_certificates_are_verified(remote: Database, certificates: Certificates) -> None:
    async with remote.open(query=QUERY, tls="verify", ca_file=str(certificates.ca)) as backend:
        assert is_yes(await login(backend, "alice", RIGHT), "alice")
    async with remote.open(query=QUERY, tls="verify", timeout=2.0) as backend:
        with pytest.raises(BackendDown, match=r"(?i)certificate|self.signed"):
            await login(backend, "alice", RIGHT)
    with pytest.raises(ConfigError, match="ca_file"):
        async with remote.open(query=QUERY, tls="verify", ca_file="/nowhere"):
            pass


async def test_a_server_may_ask_for_a_certificate(remote: Database, certificates: Certificates) -> None:
    shown = str(certificates.client("extauth@xmpp.test"))
    keys = {"query": QUERY, "user": CAUTIOUS, "tls": "verify", "ca_file": str(certificates.ca)}
    for certificate in ({"client_certificate": shown}, {"client_certificate": shown, "client_key": shown}):
        async with remote.open(**keys, **certificate) as backend:
            assert is_yes(await login(backend, "alice", RIGHT), "alice")
    async with remote.open(**keys, timeout=2.0) as backend:
        with pytest.raises(BackendDown, match=r"certificate|Access denied"):
            await login(backend, "alice", RIGHT)
    gc.collect()  # a connection that is left open says so now


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_server_without_encryption_gets_no_password(kind: Kind, tmp: Path, certificates: Certificates) -> None:
    (tmp / "server").mkdir()
    servers: dict[str, type[Postgres | MariaDb]] = {"postgres": Postgres, "mysql": MariaDb}
    with servers[kind](tmp / "server") as server:
        database = Database(kind, tmp, server)
        async with database.open(query=QUERY, tls="verify", ca_file=str(certificates.ca), timeout=2.0) as backend:
            with pytest.raises(BackendDown, match=r"(?i)ssl|tls"):
                await login(backend, "alice", RIGHT)
        async with database.open(query=QUERY, timeout=2.0) as backend:
            with pytest.raises(BackendDown, match="people"):  # it lets us in, and has no such table
                await login(backend, "alice", RIGHT)
