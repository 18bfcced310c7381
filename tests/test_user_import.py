"""`extauth user import`: what becomes of accounts; and those made by a real ejabberd and a real Prosody log in as ever."""

import json
import sqlite3
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from extauth.configuration import load
from extauth.daemon import open_without_listeners
from extauth.model import Origin
from extauth.passwords import scram
from extauth.passwords.scram import Hash
from extauth.plugins import InstalledKinds
from extauth.sasl.mechanism import Stream
from tests import needs
from tests.certificates import Certificates
from tests.daemons import NO, YES, Daemon, extauth, with_local_accounts
from tests.servers.ejabberd import Ejabberd
from tests.servers.process import temporary_folder
from tests.servers.prosody import Prosody
from tests.xmppclient import Job, XmppClient

PASSWORDS = {"alice": "fake one", "gr\u00fcn": "fake'two\\ \"x", "o.neil-x": "fake three"}
PROSODY = Path(__file__).parent.parent / "contrib" / "prosody"


@pytest.fixture
def config(tmp: Path) -> Path:
    """Give a configuration with accounts of its own."""
    (tmp / "extauth.toml").write_text(with_local_accounts(tmp))
    return tmp / "extauth.toml"


def users(path: Path, *rows: tuple[str, str, str, str, int]) -> Path:
    """Write a database of ejabberd's."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE users (username text PRIMARY KEY, password text NOT NULL, serverkey text NOT NULL DEFAULT '', "
            "salt text NOT NULL DEFAULT '', iterationcount integer NOT NULL DEFAULT 0)"
        )
        connection.executemany("INSERT INTO users VALUES (?, ?, ?, ?, ?)", rows)
    return path


def plain(user: str, password: str) -> tuple[str, str, str, str, int]:
    return (user, password, "", "", 0)


def hashed(user: str, password: str, family: Hash = Hash.SHA_1) -> tuple[str, str, str, str, int]:
    salt = scram.new_salt()
    keys = scram.make(family, password, salt, 4096)
    stored, server, encoded = (b64encode(data).decode() for data in (keys.stored_key, keys.server_key, salt))
    return (user, stored if family is Hash.SHA_1 else f"{family.digest}:{stored}", server, encoded, 4096)


def login(daemon: Daemon, user: str, password: str) -> bytes:
    with daemon.connect() as wire:
        return wire.ask(f"auth:{user}:xmpp.test:{password}")


def offered(config: Path) -> set[str]:
    """Return the hashes that SCRAM is offered for."""

    async def ask() -> tuple[str, ...]:
        async with open_without_listeners(load(config, InstalledKinds())) as service:
            return service.offer(Stream(domain="xmpp.test", origin=Origin("test"), secure=True)).mechanisms

    return {name.removeprefix("SCRAM-") for name in trio.run(ask) if name.startswith("SCRAM-")}


# What becomes of accounts


def test_imported_accounts_log_in_and_those_that_are_there_are_left_alone(config: Path, tmp: Path) -> None:
    source = users(tmp / "users.db", plain("alice", "fake one"), hashed("bob", "fake two"), plain("carol", "fake three"))
    extauth("user", "add", "carol@xmpp.test", "--password-stdin", "-c", str(config), stdin="fake own one\n")
    done = extauth("user", "import", str(source), "--domain", "xmpp.test", "-c", str(config))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == [
        "carol@xmpp.test: there is such an account already: left alone",
        "2 accounts imported, 1 left alone",
    ]
    with Daemon(tmp, with_local_accounts(tmp)) as daemon:
        assert login(daemon, "alice", "fake one") == YES
        assert login(daemon, "bob", "fake two") == YES
        assert login(daemon, "bob", "fake one") == NO
        assert login(daemon, "carol", "fake own one") == YES
        assert login(daemon, "carol", "fake three") == NO


def test_by_the_running_daemon_and_replacing(config: Path, tmp: Path) -> None:
    source = users(tmp / "users.db", *(plain(f"user{number}", f"fake {number}") for number in range(25)))
    with Daemon(tmp, with_local_accounts(tmp)) as daemon:
        for arguments in ([], ["--replace"]):
            done = extauth("user", "import", str(source), "--domain", "xmpp.test", "--json", "-c", str(config), *arguments)
            assert done.returncode == 0, done.stderr
            assert len(json.loads(done.stdout)["imported"]) == 25
            assert login(daemon, "user24", "fake 24") == YES
            extauth("user", "passwd", "user24@xmpp.test", "--password-stdin", "-c", str(config), stdin="fake other\n")
            assert login(daemon, "user24", "fake 24") == NO
        assert daemon.log().count("import-user") == 50
        assert "fake 2" not in daemon.log()


def test_a_dry_run_changes_nothing(config: Path, tmp: Path) -> None:
    source = users(tmp / "users.db", plain("alice", "fake one"), plain("a b", "x"), plain("carol", "fake three"))
    extauth("user", "add", "carol@xmpp.test", "--password-stdin", "-c", str(config), stdin="fake own one\n")
    done = extauth("user", "import", str(source), "--domain", "xmpp.test", "--dry-run", "-c", str(config))
    assert done.returncode == 65
    assert done.stdout.splitlines() == [
        "row 2 of users: a local part with U+0020",
        "carol@xmpp.test: there is such an account already: left alone",
        "1 account would be imported, 1 left alone",
    ]
    assert extauth("user", "list", "-c", str(config)).stdout == "carol@xmpp.test\n"
    done = extauth("user", "import", str(source), "--domain", "xmpp.test", "--dry-run", "--replace", "-c", str(config))
    assert "2 accounts would be imported, 0 left alone" in done.stdout


def test_what_cannot_be_imported_is_named(config: Path, tmp: Path) -> None:
    source = users(tmp / "users.db", hashed("alice", "fake one"), plain("bob", "fake \ufdd0"))
    done = extauth("user", "import", str(source), "--domain", "other.test", "-c", str(config))
    assert done.returncode == 65
    assert "alice@other.test: refused (unknown-domain)" in done.stdout
    assert "bob@other.test: a password with characters that no password may have" in done.stdout
    assert "0 accounts imported, 0 left alone" in done.stdout
    assert "fake" not in done.stdout
    done = extauth("user", "import", str(config), "-c", str(config))
    assert done.returncode == 65
    assert "neither a dump of ejabberd or Prosody nor a database of theirs" in done.stderr


def test_scram_is_offered_for_the_hashes_that_all_accounts_have_keys_for(config: Path, tmp: Path) -> None:
    assert offered(config) == {"SHA-1", "SHA-256", "SHA-384", "SHA-512"}
    source = users(tmp / "users.db", hashed("alice", "fake one", Hash.SHA_256), plain("bob", "fake two"))
    assert extauth("user", "import", str(source), "--domain", "xmpp.test", "-c", str(config)).returncode == 0
    assert offered(config) == {"SHA-256"}
    extauth("user", "passwd", "alice@xmpp.test", "--password-stdin", "-c", str(config), stdin="fake other\n")
    assert offered(config) == {"SHA-1", "SHA-256", "SHA-384", "SHA-512"}
    assert extauth("user", "import", str(source), "--domain", "xmpp.test", "--replace", "-c", str(config)).returncode == 0
    assert offered(config) == {"SHA-256"}
    extauth("user", "remove", "alice@xmpp.test", "--yes", "-c", str(config))
    assert offered(config) == {"SHA-1", "SHA-256", "SHA-384", "SHA-512"}


def test_a_disabled_account_stays_disabled(config: Path, tmp: Path) -> None:
    folder = tmp / "data" / "xmpp%2etest" / "accounts"
    folder.mkdir(parents=True)
    (folder / "alice.dat").write_text('return { ["password"] = "fake one"; ["disabled"] = true; };')
    assert extauth("user", "import", str(tmp / "data"), "-c", str(config)).returncode == 0
    assert "alice@xmpp.test (disabled)" in extauth("user", "list", "-c", str(config)).stdout


# Real servers


@pytest.fixture(scope="module")
def exports(certificates: Certificates, xmpp: XmppClient) -> Iterator[dict[str, Path]]:
    """Give what real servers wrote of accounts that clients or their own API made."""
    with temporary_folder() as folder:
        found: dict[str, Path] = {}
        for name, lines in {
            "mnesia": "auth_method: [mnesia]\nauth_password_format: scram\nauth_scram_hash: sha256\n",
            "plain": f"auth_method: [mnesia]\nsql_type: sqlite\nsql_database: {folder}/unused.db\n",
            "sql": f"auth_method: [sql]\nauth_password_format: scram\nsql_type: sqlite\nsql_database: {folder}/ejabberd.db\n",
        }.items():
            (folder / name).mkdir()
            with Ejabberd(folder / name, certificates, "", authentication=lines, more_modules=("mod_muc",)) as ejabberd:
                for user, password in PASSWORDS.items():
                    ejabberd.api("register", user=user, host="xmpp.test", password=password)
                if name != "sql":
                    found[f"ejabberd {name}"] = folder / f"{name}.dump"
                    ejabberd.api("dump", file=str(folder / f"{name}.dump"))
                if name == "plain":
                    found["ejabberd export"] = folder / f"{name}.sql"
                    ejabberd.api("export2sql", host="xmpp.test", file=str(folder / f"{name}.sql"))
        found["ejabberd sql"] = folder / "ejabberd.db"
        for name, lines in {
            "hashed": 'authentication = "internal_hashed"',
            "sql": 'authentication = "internal_hashed"\npassword_hash = "SHA-256"\nstorage = "sql"',
            "plain": 'authentication = "internal_plain"',
        }.items():
            here = folder / f"prosody-{name}"
            here.mkdir()
            with Prosody(here, certificates, f"{lines}\nallow_registration = true") as prosody:
                for user, password in PASSWORDS.items():
                    job = Job(port=prosody.port, jid=f"{user}@xmpp.test", password=password, action="register")
                    assert xmpp.run(job).ok
            found[f"prosody {name}"] = here / "data" / ("prosody.sqlite" if name == "sql" else ".")
        with closing(sqlite3.connect(found["prosody sql"])) as connection:
            found["prosody dump"] = folder / "prosody.sql"
            found["prosody dump"].write_text("\n".join(connection.iterdump()))
        yield found


def with_sasl(folder: Path) -> str:
    return with_local_accounts(folder) + f'[listener.sasl]\nprotocol = "dovecot"\naddress = "unix:{folder}/sasl.sock"\n'


def import_(folder: Path, source: Path) -> None:
    """Import the three accounts into a store."""
    (folder / "extauth.toml").write_text(with_sasl(folder))
    done = extauth("user", "import", source, "--domain", "xmpp.test", "-c", folder / "extauth.toml")
    assert done.stdout.startswith("3 accounts imported, 0 left alone"), done.stdout + done.stderr


@needs.debian("ejabberd")
@needs.debian("prosody")
@pytest.mark.parametrize("source", ["ejabberd export", "ejabberd plain", "prosody plain", "prosody dump"])
def test_every_form_that_a_real_server_writes_is_read(exports: dict[str, Path], tmp: Path, source: str) -> None:
    import_(tmp, exports[source])
    with Daemon(tmp, with_sasl(tmp)) as daemon:
        for user, password in PASSWORDS.items():
            assert login(daemon, user, password) == YES
            assert login(daemon, user, password + "x") == NO


@needs.debian("ejabberd")
@needs.debian("prosody")
@pytest.mark.parametrize(
    ("source", "mechanism"),
    [
        ("ejabberd mnesia", "SCRAM-SHA-256"),
        ("ejabberd sql", "SCRAM-SHA-1"),
        ("prosody hashed", "SCRAM-SHA-1"),
        ("prosody sql", "SCRAM-SHA-256"),
    ],
)
def test_accounts_of_a_real_server_log_in_as_ever(
    exports: dict[str, Path], certificates: Certificates, xmpp: XmppClient, tmp: Path, source: str, mechanism: str
) -> None:
    import_(tmp, exports[source])
    (tmp / "prosody").mkdir()
    lines = f'authentication = "extauth"\nextauth_socket = "{tmp}/sasl.sock"\nextauth_accounts_socket = "{tmp}/ejabberd.sock"\n'
    with Daemon(tmp, with_sasl(tmp)), Prosody(tmp / "prosody", certificates, lines, plugin_paths=(PROSODY,)) as prosody:
        jobs = [Job(port=prosody.port, jid=f"{user}@xmpp.test", password=password) for user, password in PASSWORDS.items()]
        jobs.append(Job(port=prosody.port, jid="alice@xmpp.test", password=PASSWORDS["alice"], mechanism="PLAIN"))
        wrong = xmpp.submit(Job(port=prosody.port, jid="alice@xmpp.test", password=PASSWORDS["alice"] + "x"))
        outcomes = [outcome.result() for outcome in [xmpp.submit(job) for job in jobs]]
        assert [(outcome.ok, outcome.mechanism) for outcome in outcomes] == [(True, mechanism)] * 3 + [(True, "PLAIN")]
        assert not wrong.result().ok
