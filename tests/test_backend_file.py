"""Users in a passwd-file or an htpasswd file: lines, changes of the file, and what real tools write."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import extauth_file
import pytest
import structlog
import trio
import trio.testing
from extauth_file import watched
from extauth_file.table import read, told
from hypothesis import given
from hypothesis import strategies as st

from extauth.backend import Backend, Context
from extauth.configuration import load
from extauth.daemon import open_without_listeners
from extauth.errors import BackendDown, ConfigError
from extauth.model import (
    Accept,
    CheckCertificate,
    CheckPassword,
    Decoy,
    FindKeys,
    Identity,
    Keys,
    Origin,
    Reason,
    Reject,
    Request,
    UserExists,
)
from extauth.passwords.stored import make
from extauth.plugins import InstalledKinds
from extauth.sasl.mechanism import Stream
from extauth.store import open_store
from extauth.threads import Threads
from tests import needs
from tests.contract import ACCOUNTS, ALICE, DOMAIN, ORIGIN, BackendContract, ask, is_yes, login

SCRAM = {user: make("dovecot-scram-sha-256", password, (4096,)) for user, password in ACCOUNTS.items()}
ARGON2 = {user: make("argon2id", password, (1024, 1, 1)) for user, password in ACCOUNTS.items()}
PASSWORDS: frozenset[type[Request]] = frozenset({CheckPassword, UserExists, CheckCertificate, Decoy})


@pytest.fixture
def threads() -> Iterator[Threads]:
    """Give a crew of two."""
    with Threads("password", 2, 30) as threads:
        yield threads


@pytest.fixture
async def context(tmp: Path, threads: Threads) -> AsyncIterator[Context]:
    """Give what surrounds a backend."""
    async with open_store(f"sqlite://{tmp}/state.db") as store:
        yield Context("mail", store, threads, time.time)


def opened(path: Path, text: str, context: Context, **config: object) -> AbstractAsyncContextManager[Backend]:
    path.write_text(text)
    return extauth_file.open(extauth_file.Config(str(path), **config), context)  # type: ignore[arg-type]


class TestPasswdFile(BackendContract):
    """Dovecot's form, with SCRAM keys."""

    handles = PASSWORDS | {FindKeys}

    @pytest.fixture
    async def backend(self, tmp: Path, context: Context) -> AsyncIterator[Backend]:
        """Give one with all accounts."""
        lines = [f"{user}@{DOMAIN}:{SCRAM[user]}:1000:1000::/home/{user}::userdb_mail=maildir" for user in ACCOUNTS]
        async with opened(tmp / "users", "# users\n\n" + "\n".join(lines), context) as backend:
            yield backend


class TestHtpasswd(BackendContract):
    """Apache's form, of one domain."""

    handles = PASSWORDS

    @pytest.fixture
    async def backend(self, tmp: Path, context: Context) -> AsyncIterator[Backend]:
        """Give one with all accounts."""
        lines = "".join(f"{user}:{ARGON2[user]}\n" for user in ACCOUNTS)
        async with opened(tmp / "htpasswd", lines, context, domain=DOMAIN) as backend:
            yield backend


# Lines


def names(text: str, domain: str = "") -> set[str]:
    return {str(identity) for identity in read(text.encode(), frozenset(), domain).entries}


def test_names_are_canonical() -> None:
    hashed = ARGON2["alice"]
    assert names(f"Alice:{hashed}\nBOB@Example.COM:{hashed}\n") == {"alice@", "bob@example.com"}
    assert names(f"alice:{hashed}\n", "example.org") == {"alice@example.org"}


def test_lines_that_cannot_be_used_are_told_by_number_and_the_rest_is_served() -> None:
    hashed = ARGON2["alice"]
    text = (
        f"# comment\nalice:{hashed}\nno colon\n\nALICE:{hashed}\na b:{hashed}\n:{hashed}\ncarol:{{PLAIN}}secret\n"
        f"dave@bad..domain:{hashed}\n".encode()
        + b"\xff:x\nerin:"
        + f"{hashed}:::::: nopassword=y\nbob:{hashed}\n".encode()
    )
    table = read(text, frozenset())
    assert [identity.user for identity in table.entries] == ["alice", "carol", "erin", "bob"]
    assert table.problems == (
        "line 3: no colon",
        "line 5: the user has a line already",
        "line 6: not a valid name: a local part with U+0020",
        "line 7: not a valid name: an empty local part",
        "line 8: plain: weak, and not among the weak schemes that are allowed; the user can't log in",
        "line 9: not a valid name: not a domain name",
        "line 10: not UTF-8",
        "line 11: the extra field nopassword is not understood; the user can't log in",
    )
    assert told(table.problems, 2) == [*table.problems[:2], "and 6 more"]
    assert told(table.problems, 8) == list(table.problems)


def test_keys_are_offered_for_a_hash_that_every_user_has() -> None:
    both, one = make("dovecot-scram-sha-256", "x", (4096,)), make("dovecot-scram-sha-1", "x", (4096,))
    assert read(f"a:{both}\nb:{both}\n".encode(), frozenset()).hashes == {"SHA-256"}
    assert read(f"a:{both}\nb:{one}\n".encode(), frozenset()).hashes == frozenset()
    assert read(f"a:{both}\nb:{ARGON2['alice']}\n".encode(), frozenset()).hashes == frozenset()
    assert read(b"", frozenset()).hashes == frozenset()


@given(st.binary() | st.text("ab:@{}$ \n\r\t#=", max_size=60).map(str.encode))
def test_any_bytes_are_read(data: bytes) -> None:
    table = read(data, frozenset({"plain"}))
    assert all(problem.startswith("line ") for problem in table.problems)
    assert all(identity.user for identity in table.entries)


async def test_a_line_that_cannot_be_used_is_logged_without_its_secret(tmp: Path, context: Context) -> None:
    with structlog.testing.capture_logs() as lines:
        async with opened(tmp / "users", "alice:{PLAIN}canary\nbob canary\n", context) as backend:
            assert await login(backend, "alice", "canary") == Reject(Reason.BAD_PASSWORD)
    assert [line.get("problem", "")[:7] for line in lines] == ["line 1:", "line 2:", "plain: "]
    assert "canary" not in str(lines)


async def test_nologin_is_told_to_who_knows_the_password(tmp: Path, context: Context) -> None:
    text = f"alice:{SCRAM['alice']}::::::nologin\nbob:{SCRAM['bob']}\n"
    async with opened(tmp / "users", text, context) as backend:
        assert await login(backend, "alice", ACCOUNTS["alice"]) == Reject(Reason.DISABLED)
        assert await login(backend, "alice", "wrong") == Reject(Reason.BAD_PASSWORD)
        assert await ask(backend, CheckCertificate(ALICE, ORIGIN)) == Reject(Reason.DISABLED)
        keys = await ask(backend, FindKeys(ALICE, ORIGIN, "SHA-256"))
        assert isinstance(keys, Keys)
        assert keys.refusal is Reason.DISABLED
        assert is_yes(await login(backend, "bob", ACCOUNTS["bob"]), "bob")


async def test_a_name_without_domain_is_of_any_and_one_with_it_comes_first(tmp: Path, context: Context) -> None:
    text = f"alice:{ARGON2['alice']}\nalice@example.org:{ARGON2['bob']}\n"
    async with opened(tmp / "users", text, context) as backend:
        assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")
        other = Identity("alice", "example.org")
        assert await ask(backend, UserExists(other, ORIGIN)) == Accept(other)
    table = read(text.encode(), frozenset())
    found = table.find(Identity("alice", "example.org"))
    assert found is not None
    assert found.values == (ARGON2["bob"],)


# Changes


async def test_a_change_is_seen_by_the_next_login_after_a_second(
    tmp: Path, context: Context, mock_clock: trio.testing.MockClock
) -> None:
    path = tmp / "users"
    async with opened(path, f"alice:{ARGON2['alice']}\n", context) as backend:
        assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")
        replacement = tmp / "users.new"
        replacement.write_text(f"alice:{ARGON2['bob']}\nbob:{ARGON2['bob']}\n")
        replacement.rename(path)
        mock_clock.jump(watched.INTERVAL)
        assert await login(backend, "alice", ACCOUNTS["alice"]) == Reject(Reason.BAD_PASSWORD)
        assert is_yes(await login(backend, "alice", ACCOUNTS["bob"]), "alice")
        assert is_yes(await login(backend, "bob", ACCOUNTS["bob"]), "bob")
        path.write_text("")
        mock_clock.jump(watched.INTERVAL)
        assert await login(backend, "alice", ACCOUNTS["bob"]) is None


async def test_a_change_that_does_not_show_in_a_young_file_is_seen(
    tmp: Path, context: Context, mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp / "users"
    now = time.time_ns()

    def signature(_descriptor: int) -> watched.Signature:  # as within one tick of the disk's clock
        return (now, now, 10, 1, 1)

    monkeypatch.setattr(watched, "_signature", signature)
    async with opened(path, "alice:one\n", context, weak_schemes=("plain",)) as backend:
        assert is_yes(await login(backend, "alice", "one"), "alice")
        path.write_text("alice:two\n")
        mock_clock.jump(watched.INTERVAL)
        assert is_yes(await login(backend, "alice", "two"), "alice")


async def test_a_file_that_did_not_change_is_not_read_again(
    tmp: Path, context: Context, mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp / "users"
    reads: list[bytes] = []

    def noted(data: bytes, *args: object) -> object:
        reads.append(data)
        return read(data, frozenset())

    monkeypatch.setattr(watched, "SETTLED", 0)  # the time stamp of an inode can't be set back
    monkeypatch.setattr(extauth_file, "read", noted)
    async with opened(path, f"alice:{ARGON2['alice']}\n", context) as backend:
        for _ in range(3):
            mock_clock.jump(watched.INTERVAL)
            assert is_yes(await ask(backend, UserExists(ALICE, ORIGIN)), "alice")
        assert len(reads) == 1
        path.touch()
        mock_clock.jump(watched.INTERVAL)
        await ask(backend, UserExists(ALICE, ORIGIN))
        assert len(reads) == 2


async def test_within_a_second_nobody_waits_for_the_disk(tmp: Path, context: Context) -> None:
    async with opened(tmp / "users", f"alice:{ARGON2['alice']}\n", context) as backend:
        await ask(backend, UserExists(ALICE, ORIGIN))
        assert backend.answer(UserExists(ALICE, ORIGIN)) == Accept(ALICE)  # at once


async def test_a_file_that_is_gone_is_an_outage_until_it_is_back(
    tmp: Path, context: Context, mock_clock: trio.testing.MockClock
) -> None:
    path = tmp / "users"
    async with opened(path, f"alice:{ARGON2['alice']}\n", context) as backend:
        path.rename(tmp / "away")
        with pytest.raises(BackendDown, match="users: No such file"):
            await login(backend, "alice", ACCOUNTS["alice"])
        (tmp / "away").rename(path)
        assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")


async def test_a_disk_that_does_not_answer_is_an_outage_in_time(
    tmp: Path, context: Context, autojump_clock: trio.testing.MockClock
) -> None:
    path = tmp / "users"
    async with opened(path, f"alice:{ARGON2['alice']}\n", context) as backend:
        path.unlink()
        os.mkfifo(path)  # to open it takes until somebody writes
        before = trio.current_time()
        threads = threading.active_count()
        for _ in range(3):
            with pytest.raises(BackendDown, match="can't be read within 2 s"):
                await ask(backend, UserExists(ALICE, ORIGIN))
        assert trio.current_time() == pytest.approx(before + 3 * watched.PATIENCE)
        assert threading.active_count() <= threads + 1
        descriptor = os.open(path, os.O_RDWR)
        path.unlink()
        path.write_text(f"alice:{ARGON2['alice']}\n")
        os.close(descriptor)
        autojump_clock.autojump_threshold = 0.5  # the thread that was given up has to end
        assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")


async def test_a_file_that_is_not_there_at_start_is_a_mistake(tmp: Path, context: Context) -> None:
    with pytest.raises(ConfigError, match=r"backend\.mail\.path: .*/users: No such file"):
        async with extauth_file.open(extauth_file.Config(f"{tmp}/users"), context):
            pass


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"path": "users"}, "path: must be an absolute path"),
        ({"path": "/users", "weak_schemes": ("md4",)}, "weak_schemes: 'md4' is not one of des-crypt, md5,"),
        ({"path": "/users", "domain": "Example.com"}, "domain: must be written example.com"),
        ({"path": "/users", "domain": "-"}, "domain: not a domain name"),
    ],
)
def test_what_is_wrong_with_the_configuration_is_told(config: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        extauth_file.Config(**config)  # type: ignore[arg-type]


async def test_scram_is_offered_for_the_hash_that_every_user_has_keys_for(tmp: Path) -> None:
    (tmp / "users").write_text(f"alice:{SCRAM['alice']}\n")
    text = f'[backend.mail]\ntype = "file"\npath = "{tmp}/users"\n[domain."xmpp.test"]\nbackends = ["mail"]\n'
    (tmp / "extauth.toml").write_text(f'[daemon]\nstate = "sqlite://{tmp}/state.db"\n{text}')
    async with open_without_listeners(load(tmp / "extauth.toml", InstalledKinds())) as service:
        offered = service.offer(Stream(domain="xmpp.test", origin=Origin("test"), secure=True)).mechanisms
    assert {name for name in offered if name.startswith("SCRAM")} == {"SCRAM-SHA-256"}


# What real tools write


@needs.debian("passwords")
async def test_a_file_made_by_htpasswd(tmp: Path, context: Context, mock_clock: trio.testing.MockClock) -> None:
    path = tmp / "htpasswd"

    def htpasswd(*arguments: str, password: str = "") -> None:
        program = shutil.which("htpasswd")
        assert program
        subprocess.run([program, *arguments], input=password.encode(), check=True, capture_output=True, timeout=60)

    htpasswd("-ciB", str(path), "alice", password="fake one")
    htpasswd("-i5", str(path), "bob", password="fake two")
    htpasswd("-im", str(path), "carol", password="fake three")
    config = extauth_file.Config(str(path), weak_schemes=("md5-crypt",))
    async with extauth_file.open(config, context) as backend:
        for user, password in (("alice", "fake one"), ("bob", "fake two"), ("carol", "fake three")):
            assert is_yes(await login(backend, user, password), user)
            assert await login(backend, user, "fake") == Reject(Reason.BAD_PASSWORD)
        htpasswd("-iB", str(path), "alice", password="fake four")
        htpasswd("-D", str(path), "bob")
        mock_clock.jump(watched.INTERVAL)
        assert is_yes(await login(backend, "alice", "fake four"), "alice")
        assert await login(backend, "bob", "fake two") is None
