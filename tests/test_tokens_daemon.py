"""Tokens through the dovecot listener, the line protocols and the command line: token reconnection from end to end."""

import base64
import json
import re
import shlex
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner
from msgspec.structs import replace

from extauth.admin import Command, perform
from extauth.changes import Member, standing
from extauth.cli.root import cli
from extauth.dovecot import parse
from extauth.errors import BackendDown
from extauth.issuing import IssueToken
from extauth.model import (
    Accept,
    Answer,
    CheckCertificate,
    CheckPassword,
    CreateUser,
    Identity,
    Origin,
    Reason,
    Reject,
    Request,
    Secret,
    SetEnabled,
    SetPassword,
    Tokens,
    Unavailable,
    UserExists,
    Verdict,
)
from extauth.service import Service
from extauth.soon import settle
from tests.daemons import NO, YES, Daemon, frame, serve_here, with_local_accounts
from tests.daemons import configuration as in_memory
from tests.fakes import FakeBackend
from tests.test_dovecot import GOOD, SASL, Peer

ALICE = Identity("alice", "xmpp.test")
PASSWORD = "fake right"
ADMIN = Origin("test")


def configuration(folder: Path, tokens: str = "") -> str:
    text = with_local_accounts(folder, ejabberd="allow_changes = true") + SASL.format(folder=folder, more="")
    return text.replace('["local"]', '["tokens", "local"]') + f"[backend.tokens]\n{tokens}\n"


class Server:
    """An XMPP server that relays logins and asks for tokens."""

    def __init__(self, peer: Peer, service: Service, folder: Path) -> None:
        self.peer = peer
        self.service = service
        self.folder = folder
        self._number = 0

    async def ask(self, verb: str, *fields: str) -> dict[str, str]:
        """Put a question and return the fields of its answer; `verb` is the answer's."""
        self._number += 1
        line = await self.peer.ask("\t".join([verb, str(self._number), *fields]))
        answer, number, *rest = line.split("\t")
        assert number == str(self._number)
        return {"verb": answer, **parse(rest)}

    async def login(self, mechanism: str, initial: bytes, *fields: str) -> dict[str, str]:
        encoded = base64.b64encode(initial).decode()
        return await self.ask("AUTH", mechanism, "service=xmpp", "grant", *fields, f"resp={encoded}")

    async def by_password(self, password: str = PASSWORD) -> dict[str, str]:
        return await self.login("PLAIN", f"\0alice\0{password}".encode())

    async def by_token(self, token: str) -> dict[str, str]:
        return await self.login("X-OAUTH", base64.b64decode(token))


@asynccontextmanager
async def server_of(folder: Path, tokens: str = "") -> AsyncGenerator[Server, None]:
    async with serve_here(folder, configuration(folder, tokens)) as served:
        await settle(served.service.ask(CreateUser(ALICE, ADMIN, Secret(PASSWORD))))
        async with await served.connect("sasl") as stream:
            peer = Peer(stream)
            await peer.handshake()
            yield Server(peer, served.service, folder)


async def test_token_reconnection(tmp: Path) -> None:
    async with server_of(tmp) as server:
        login = await server.by_password()
        assert "login" not in login
        tokens = await server.ask("TOKENS", f"grant={login['grant']}", "device=laptop")
        assert tokens["verb"] == "TOKENS"

        reconnected = await server.by_token(tokens["access"])
        assert (reconnected["verb"], reconnected["user"], reconnected["login"]) == ("OK", "alice", "token")
        assert "resp" not in reconnected
        again = await server.ask("TOKENS", f"grant={reconnected['grant']}")
        assert again["refresh"] == tokens["refresh"]

        refreshed = await server.by_token(tokens["refresh"])
        assert refreshed["verb"] == "OK"
        successor = refreshed["resp"]
        assert base64.b64decode(successor).startswith(b"refresh\0alice@xmpp.test/")
        assert (await server.by_token(successor))["verb"] == "OK"

        await settle(server.service.ask(SetPassword(ALICE, ADMIN, Secret("fake and new"))))
        refused = await server.by_token(successor)
        assert refused == {"verb": "FAIL", "reason": "Authentication failed"}
        for grant in (login["grant"], reconnected["grant"]):  # streams of before get nothing, either
            assert (await server.ask("TOKENS", f"grant={grant}"))["verb"] == "FAIL"
        assert (await server.ask("TOKENS", f"grant={(await server.by_password('fake and new'))['grant']}"))["verb"] == "TOKENS"


async def test_an_access_token_in_every_place(tmp: Path) -> None:
    async with server_of(tmp) as server:
        tokens = await server.ask("TOKENS", f"grant={(await server.by_password())['grant']}")
        access, refresh = tokens["access"], tokens["refresh"]
        assert (await server.login("PLAIN", f"\0alice\0{access}".encode()))["family"] == tokens["family"]
        assert (await server.login("OAUTHBEARER", f"n,,\x01auth=Bearer {access}\x01\x01".encode()))["user"] == "alice"
        assert (await server.login("X-OAUTH2", f"\0alice\0{access}".encode()))["user"] == "alice"
        assert (await server.login("PLAIN", f"\0alice\0{refresh}".encode()))["verb"] == "FAIL"
        assert (await server.login("PLAIN", f"\0bob\0{access}".encode()))["verb"] == "FAIL"
        async with await trio.open_unix_socket(str(tmp / "ejabberd.sock")) as ejabberd:
            for password, answer in ((access, YES), (refresh, NO)):
                await ejabberd.send_all(frame(f"auth:alice:xmpp.test:{password}".encode()))
                assert await ejabberd.receive_some(4) == frame(answer)


async def test_who_shows_no_grant_gets_no_tokens(tmp: Path) -> None:
    async with server_of(tmp) as server:
        grant = (await server.by_password())["grant"]
        for fields in ((), ("grant=",), (f"grant={grant[:-1]}",), (f"grant=A{grant}",), ("grant=\N{SNOWMAN}",)):
            assert await server.ask("TOKENS", *fields) == {"verb": "FAIL", "reason": "Refused"}
        plain = await server.ask("AUTH", "PLAIN", "service=xmpp", f"resp={GOOD}")
        assert "grant" not in plain  # nobody asked for one


async def test_a_login_that_began_before_the_password_was_changed_gets_no_tokens(tmp: Path) -> None:
    async with server_of(tmp) as server:
        await server.peer.say("AUTH\t77\tPLAIN\tservice=xmpp\tgrant")
        assert await server.peer.line() == "CONT\t77\t="
        await settle(server.service.ask(SetPassword(ALICE, ADMIN, Secret(PASSWORD))))
        line = await server.peer.ask(f"CONT\t77\t{GOOD}")
        (grant,) = re.findall(r"grant=(\S+)", line)
        assert (await server.ask("TOKENS", f"grant={grant}"))["verb"] == "FAIL"


async def test_a_domain_without_tokens_gives_no_grants(tmp: Path) -> None:
    text = configuration(tmp).replace('["tokens", "local"]', '["local"]')
    async with serve_here(tmp, text) as served:
        await settle(served.service.ask(CreateUser(ALICE, ADMIN, Secret(PASSWORD))))
        async with await served.connect("sasl") as stream:
            peer = Peer(stream)
            await peer.handshake()
            server = Server(peer, served.service, tmp)
            assert "grant" not in await server.by_password()


async def test_no_guest_is_made_while_nobody_can_tell_whose_the_name_is(tmp: Path) -> None:
    text = in_memory(tmp).replace('["people"]', '["tokens", "people"]')
    async with serve_here(tmp, text) as served:
        command = Command("token-issue", "down@xmpp.test", kind="guest", fields={"rooms": "lobby@rooms.xmpp.test"})
        assert (await perform(served.service, command, ADMIN))["reason"] == "backend-down"
        assert (await perform(served.service, replace(command, jid="alice@xmpp.test"), ADMIN))["reason"] == "user-exists"
        assert (await perform(served.service, replace(command, jid="visitor@xmpp.test"), ADMIN))["ok"]


ISSUES = (
    Command("token-issue"),
    Command("token-issue", kind="temporary"),
    Command("token-issue", kind="app", label="phone"),
    Command("token-issue", kind="fast", device="phone", mechanism="HT-SHA-256-NONE"),
    Command("token-issue", kind="provision", fields={"vcard": "<vCard/>"}),
    Command("session-start"),
)


@pytest.mark.parametrize("command", ISSUES, ids=lambda command: f"{command.verb} {command.kind}")
async def test_nothing_is_given_to_an_account_that_is_disabled(tmp: Path, command: Command) -> None:
    async with server_of(tmp) as server:
        command = replace(command, jid="alice@xmpp.test")
        await settle(server.service.ask(SetEnabled(ALICE, ADMIN, enabled=False)))
        refused = await perform(server.service, command, ADMIN)
        assert (refused["ok"], refused["reason"]) == (False, "account-disabled")
        server.service.journal.flush()
        *_, last = (await server.service.journal.tail(0, 0))[1]
        assert (last.user, last.result, last.reason) == ("alice@xmpp.test", "reject", "account-disabled")
        await settle(server.service.ask(SetEnabled(ALICE, ADMIN, enabled=True)))
        given = await perform(server.service, command, ADMIN)
        assert given["ok"]
        assert "enabled" not in given["result"]


@pytest.mark.parametrize("command", ISSUES, ids=lambda command: f"{command.verb} {command.kind}")
async def test_it_is_told_where_nobody_can_tell_whether_an_account_is_enabled(tmp: Path, command: Command) -> None:
    text = in_memory(tmp).replace('["people"]', '["tokens", "people"]')
    async with serve_here(tmp, text) as served:
        given = await perform(served.service, replace(command, jid="alice@xmpp.test"), ADMIN)
        assert given["result"]["enabled"] == "unknown"
        down = await perform(served.service, replace(command, jid="down@xmpp.test"), ADMIN)
        assert (down["reason"], down["unavailable"]) == ("backend-down", True)


YES_, NO_, DOWN = Accept(ALICE), Reject(Reason.DISABLED), BackendDown("no route")


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([{CheckCertificate: YES_, UserExists: None}], YES_),
        ([{CheckCertificate: NO_, UserExists: YES_}], NO_),
        ([{CheckCertificate: None}, {CheckCertificate: NO_}], NO_),
        ([{CheckCertificate: YES_}, {CheckCertificate: NO_}], YES_),  # the first who knows the user decides
        ([{UserExists: YES_}, {CheckCertificate: NO_}], None),
        ([{UserExists: None}, {CheckPassword: YES_}, {CheckCertificate: YES_}], YES_),
        ([{CheckCertificate: Accept(Identity("bob", "xmpp.test"))}, {CheckCertificate: NO_}], NO_),
        ([{UserExists: None}, {CheckCertificate: None}], Reject(Reason.NO_USER)),
        ([{CheckPassword: YES_}], Reject(Reason.NO_USER)),
        (
            [{CheckCertificate: DOWN}, {CheckCertificate: YES_}],
            Unavailable(Reason.BACKEND_DOWN, "0: no route"),
        ),
    ],
)
@pytest.mark.parametrize("later", [False, True])
async def test_who_knows_the_user_tells_whether_it_may_log_in(
    members: list[dict[type[Request], Answer | BackendDown | None]],
    told: Verdict | None,
    later: bool,  # noqa: FBT001
) -> None:
    chain = [Member(str(number), FakeBackend({**replies}, later=later)) for number, replies in enumerate(members)]
    assert await standing(chain, ALICE, ADMIN) == told


async def test_a_refusal_that_is_not_final_lets_the_next_one_speak() -> None:
    refusing = Member("0", FakeBackend({CheckCertificate: NO_}), "next")
    for after, told in ((None, NO_), (YES_, YES_)):
        assert await standing([refusing, Member("1", FakeBackend({CheckCertificate: after}))], ALICE, ADMIN) == told


async def test_no_token_stands_for_the_password_where_an_account_is_removed(tmp: Path) -> None:
    async with server_of(tmp) as server:
        tokens = await server.ask("TOKENS", f"grant={(await server.by_password())['grant']}")
        async with await trio.open_unix_socket(str(tmp / "ejabberd.sock")) as ejabberd:
            for question, answer in [
                (f"auth:alice:xmpp.test:{tokens['access']}", YES),
                (f"removeuser3:alice:xmpp.test:{tokens['access']}", NO),
                ("isuser:alice:xmpp.test", YES),
                (f"removeuser3:alice:xmpp.test:{PASSWORD}", YES),
                ("isuser:alice:xmpp.test", NO),
            ]:
                await ejabberd.send_all(frame(question.encode()))
                assert await ejabberd.receive_some() == frame(answer), question


async def test_a_guest_is_let_in_by_a_server_that_enforces(tmp: Path) -> None:
    async with server_of(tmp) as server:
        fields = {"rooms": "lobby@rooms.xmpp.test"}
        made = await settle(server.service.ask(IssueToken(Identity("visitor", "xmpp.test"), ADMIN, "guest", fields)))
        assert isinstance(made, Tokens)
        initial = base64.b64decode(made.tokens["guest"].reveal())
        assert (await server.login("X-OAUTH", initial))["verb"] == "FAIL"
        guest = await server.login("X-OAUTH", initial, "enforces")
        assert (guest["user"], guest["role"], guest["rooms"]) == ("visitor", "guest", "lobby@rooms.xmpp.test")
        assert "grant" not in guest


# The command line -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def daemon(tmp: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp, configuration(tmp))
    with daemon:
        run(daemon, "user add alice@xmpp.test --password-stdin", stdin=PASSWORD)
        yield daemon


def run(daemon: Daemon, command: str, *, stdin: str = "", status: int = 0) -> str:
    """Run a command within this process; return what it printed, or said when it failed."""
    arguments = [*shlex.split(command), "-c", str(daemon.config)]
    ended = CliRunner(env={"EXTAUTH_CONFIG": None}).invoke(cli, arguments, input=stdin, catch_exceptions=False)
    assert ended.exit_code == status, ended.output
    return ended.stdout if status in (0, 77) else ended.stderr


def test_tokens_from_the_command_line(daemon: Daemon) -> None:
    tokens = json.loads(run(daemon, "token issue alice@xmpp.test --device laptop --json"))
    login = "login alice@xmpp.test --mechanism X-OAUTH --password-stdin"
    assert "accept (ok)" in run(daemon, login, stdin=tokens["access"])
    assert "accept (ok)" in run(daemon, login, stdin=tokens["refresh"])
    assert "state: token-reused" in run(daemon, "token inspect", stdin=tokens["refresh"])
    assert f"{tokens['family']} laptop since 20" in run(daemon, "session list alice@xmpp.test")
    assert f"refresh 2 of {tokens['family']}" in run(daemon, "token list")
    assert run(daemon, "token revoke", stdin=tokens["access"]) == "alice@xmpp.test: 1 sessions ended\n"
    assert run(daemon, "session list") == ""
    assert "reject (token-revoked)" in run(daemon, login, stdin=tokens["refresh"], status=77)
    run(daemon, "token issue alice@xmpp.test")
    assert run(daemon, "session end alice@xmpp.test --device tablet") == "alice@xmpp.test: 0 sessions ended\n"
    assert run(daemon, "session end --all") == "xmpp.test: 1 sessions ended\n"
    run(daemon, "session end", status=64)
    run(daemon, "token issue nobody@xmpp.test", status=67)
    run(daemon, "token inspect", stdin="fake", status=65)
    assert "base64" in run(daemon, login, stdin="\u2603", status=65)
    run(daemon, "token issue alice@xmpp.test --kind guest --room a@b", status=73)
    described = run(daemon, "token issue shop@xmpp.test --kind provision --vcard <vCard/> --lifetime 60")
    assert "\nexpires: 20" in described
    assert tokens["access"] not in daemon.log()


def test_keys_from_the_command_line(daemon: Daemon) -> None:
    assert run(daemon, "key list") == ""
    first = json.loads(run(daemon, "token issue alice@xmpp.test --json"))
    (old,) = json.loads(run(daemon, "key list --json"))
    assert "signs from now on" in run(daemon, "key rotate token_secret")
    shared = daemon.folder / "shared.key"
    shared.write_bytes(b"a fake key\n")
    run(daemon, f"key import provision_pre_shared {shared}")
    listed = run(daemon, "key list")
    assert re.search(r"token_secret \w+ signs, made", listed)
    assert re.search(rf"token_secret {old['id']} verifies, made .*, has signed what expires by 20", listed)
    assert "provision_pre_shared" in listed
    assert "fake key" not in run(daemon, "key list --json")
    run(daemon, f"key retire token_secret {old['id']}", status=65)
    login = "login alice@xmpp.test --mechanism X-OAUTH --password-stdin"
    run(daemon, login, stdin=first["refresh"])
    run(daemon, f"key retire token_secret {old['id']} --force")
    run(daemon, "token inspect", stdin=first["access"], status=65)
    assert "there are fast_secret, guest_secret, provision_pre_shared, " in run(daemon, "key rotate token-secret", status=65)
    run(daemon, "key list --domain other.test", status=65)
    run(daemon, "key import token_secret /nonexistent/fake", status=66)
    shared.write_bytes(b"")
    run(daemon, f"key import token_secret {shared}", status=65)


def test_keys_and_sessions_without_a_daemon(tmp: Path) -> None:
    daemon = Daemon(tmp, configuration(tmp))
    run(daemon, "user add alice@xmpp.test --password-stdin", stdin=PASSWORD)
    run(daemon, "key rotate token_secret")
    tokens = json.loads(run(daemon, "token issue alice@xmpp.test --json"))
    assert tokens["family"] in run(daemon, "session list")
    assert run(daemon, "session end alice@xmpp.test") == "alice@xmpp.test: 1 sessions ended\n"
