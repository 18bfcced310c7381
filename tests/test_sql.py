"""The backends of SQL: the contract on each database, and what tables and statements may do to it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from extauth.backend import Backend
from extauth.model import (
    CheckCertificate,
    CheckPassword,
    CreateUser,
    Decoy,
    FindAccount,
    FindKeys,
    RemoveUser,
    SetPassword,
    UserExists,
)
from extauth.passwords.stored import make
from tests.contract import ACCOUNTS, DOMAIN, BackendContract
from tests.sql import KINDS, Database, Kind, make_database

TABLE = """CREATE TABLE people (domain VARCHAR(100) NOT NULL, login VARCHAR(100) NOT NULL, secret VARCHAR(500),
    allowed INTEGER NOT NULL DEFAULT 1, role VARCHAR(20), PRIMARY KEY (domain, login))"""
QUERY = (
    "SELECT login AS name, secret AS password, allowed AS enabled, role FROM people WHERE login = $user AND domain = $domain"
)
CHANGES = {
    "set_password": "UPDATE people SET secret = $password WHERE login = $user AND domain = $domain",
    "create_user": "INSERT INTO people (domain, login, secret) VALUES ($domain, $user, $password)",
    "remove_user": "DELETE FROM people WHERE login = $user AND domain = $domain",
}
STORED = {user: make("scram-sha-256", password, (4096,)) for user, password in ACCOUNTS.items()}


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp: Path) -> Database:
    """Give a database with the contract's accounts."""
    kind: Kind = request.param
    made = make_database(kind, tmp, request)
    made.run(TABLE, *(
        f"INSERT INTO people (domain, login, secret) VALUES ('{DOMAIN}', {made.text(user)}, '{stored}')"  # noqa: S608
        for user, stored in STORED.items()
    ))  # fmt: skip
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
