"""A purge leaves nothing of a user in the store but what it says."""

from pathlib import Path

import pytest

from extauth import subjects
from extauth.admin import Command, perform
from extauth.errors import BackendDown
from extauth.issuing import IssueCredential, IssueTokens, Login
from extauth.layers.seen import Seen
from extauth.model import (
    Accept,
    CheckPassword,
    CreateUser,
    Identity,
    Origin,
    PurgeUser,
    Reason,
    Reject,
    RemoveUser,
    Request,
    Secret,
    Tokens,
    Unavailable,
    UserExists,
    Verdict,
)
from extauth.service import Service
from extauth.soon import settle
from extauth.store import Store
from extauth.tokens.grant import new_family
from tests.daemons import Daemon, extauth, serve_here
from tests.fakes import FakeBackend, Scene
from tests.test_credentials import PASSWORD, configured
from tests.test_revocation import telling

ALICE, BOB = Identity("alice", "xmpp.test"), Identity("bob", "xmpp.test")
ORIGIN = Origin("cli")
IMPERSONAL = {"secret", "token_key", "token_lifetime", "token_spent", "announced", "schema_version"}
LEFT = {"token_horizon"}


async def tables(store: Store, state: str) -> list[str]:
    sql = "SELECT name FROM sqlite_master WHERE type = 'table'"
    if state.startswith("postgresql"):
        sql = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    return [str(name) for (name,) in await settle(store.read(sql))]


async def holding(store: Store, state: str, word: str) -> set[str]:
    """Return the tables that hold a word anywhere."""
    return {
        table
        for table in await tables(store, state)
        if any(word in repr(cell) for row in await settle(store.read(f"SELECT * FROM {table}")) for cell in row)  # noqa: S608
    }


async def ask(service: Service, request: Request) -> Verdict:
    return await settle(service.ask(request))


async def settle_in(service: Service, identity: Identity) -> str:
    """Have a user leave traces in every table that can hold them; return the refresh token."""
    await ask(service, CreateUser(identity, ORIGIN, Secret(PASSWORD)))
    await ask(service, IssueCredential(identity, ORIGIN, "app", f"phone of {identity.user}"))
    await ask(service, IssueCredential(identity, ORIGIN, "fast", "phone", mechanism="HT-SHA-256-NONE"))
    recording = Seen(service.store, lambda: 0.0).record(identity, "elsewhere")
    assert recording is not None
    await recording
    await settle(subjects.admit(service.store, Accept(identity), "https://id.example.com", identity.user))
    login = Login(service.milliseconds(), new_family(), primary=True)
    issued = await ask(service, IssueTokens(identity, ORIGIN, login, "phone"))
    assert isinstance(issued, Tokens), issued
    return issued.tokens["access"].reveal()


async def test_nothing_is_left_but_what_is_said(tmp: Path, state: str) -> None:
    async with serve_here(tmp, configured(tmp, "revocable_access = true", state)) as served:
        service = served.service
        token = await settle_in(service, ALICE)
        await settle_in(service, BOB)
        personal = set(await tables(service.store, state)) - IMPERSONAL - LEFT
        assert await holding(service.store, state, "alice") == personal  # a new table is one to purge, or impersonal
        by_token = CheckPassword(ALICE, ORIGIN, Secret(token))
        assert isinstance(await ask(service, by_token), Accept)

        done = await perform(service, Command("user-purge", jid="Alice@xmpp.test"), ORIGIN)

        assert await holding(service.store, state, "alice") == LEFT
        assert await holding(service.store, state, "bob") == personal
        assert await ask(service, by_token) == Reject(Reason.TOKEN_REVOKED)
        assert await ask(service, CheckPassword(ALICE, ORIGIN, Secret(PASSWORD))) == Reject(Reason.NO_USER)
        assert done["ok"]
        assert done["result"]["removed"] == "local"
        assert done["result"]["kept"] == ""
        assert done["result"]["deleted"]["sessions"] == 1
        assert len(done["result"]["remains"]) == 2

        again = await perform(service, Command("user-purge", jid="alice@xmpp.test"), ORIGIN)
        assert again["result"]["removed"] == ""
        assert set(again["result"]["deleted"].values()) == {0}


# Where the accounts are


async def test_every_backend_is_asked_and_who_keeps_the_account_is_named() -> None:
    directory = FakeBackend({UserExists: Accept(ALICE)})
    stubborn = FakeBackend({RemoveUser: Reject(Reason.NOT_ALLOWED), UserExists: Accept(ALICE)})
    able = FakeBackend({RemoveUser: Accept(ALICE), UserExists: Accept(ALICE)})
    stranger = FakeBackend({RemoveUser: None, UserExists: None})
    scene = Scene([directory, stubborn, able, stranger])
    verdict = await settle(scene.authority.ask(PurgeUser(ALICE, ORIGIN)))
    assert verdict == Accept(ALICE, {"removed": "c", "kept": "a, b"})
    assert scene.revoked == [(ALICE, "purged")]
    assert scene.changed == [ALICE]


async def test_an_outage_is_told_and_revokes_nothing_for_good() -> None:
    scene = Scene([FakeBackend({RemoveUser: BackendDown("away"), UserExists: Accept(ALICE)})])
    assert isinstance(await settle(scene.authority.ask(PurgeUser(ALICE, ORIGIN))), Unavailable)
    assert scene.revoked == []


async def test_a_purge_is_of_a_domain_that_there_is(tmp: Path) -> None:
    async with serve_here(tmp, configured(tmp)) as served:
        done = await perform(served.service, Command("user-purge", jid="alice@elsewhere.test"), ORIGIN)
        assert done["reason"] == Reason.UNKNOWN_DOMAIN


@pytest.mark.parametrize("served", [True, False], ids=["daemon", "command line"])
def test_by_the_command_line(tmp: Path, served: bool) -> None:  # noqa: FBT001
    daemon = Daemon(tmp, telling(tmp))
    if served:
        daemon.start()
    try:
        add = extauth("user", "add", "alice@xmpp.test", "--password-stdin", "-c", daemon.config, stdin=PASSWORD)
        assert add.returncode == 0, add.stderr
        unsure = extauth("user", "purge", "alice@xmpp.test", "-c", daemon.config, stdin="n\n")
        assert unsure.returncode == 1
        done = extauth("user", "purge", "alice@xmpp.test", "--yes", "-c", daemon.config)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(
            "alice@xmpp.test: account removed from local; deleted: nothing else\n  remains: audit lines"
        )
        show = extauth("user", "show", "alice@xmpp.test", "-c", daemon.config)
        assert "no such account" in show.stderr
    finally:
        daemon.stop()
    assert (tmp / "told").read_text() == "alice xmpp.test purged\n"
