"""A backend with layers around it keeps the contract of all backends."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import extauth_local
import pytest
from extauth_local import Config

from extauth.backend import Backend, Context
from extauth.layers.compose import surround
from extauth.layers.rules import CacheRules, Layers, NameRules
from extauth.layers.seen import Seen
from extauth.model import (
    CheckCertificate,
    CheckPassword,
    CreateUser,
    Decoy,
    FindAccount,
    FindKeys,
    Identity,
    ImportUser,
    ListUsers,
    RemoveUser,
    Request,
    Secret,
    SetEnabled,
    SetPassword,
    UserExists,
)
from extauth.passwords import scram
from extauth.store.sqlite import SqliteStore
from extauth.threads import Threads
from tests.contract import ACCOUNTS, DOMAIN, ORIGIN, BackendContract, ask, is_yes

LOCAL: frozenset[type[Request]] = frozenset(
    {
        *(CheckPassword, FindKeys, CheckCertificate, UserExists, Decoy, FindAccount, ListUsers),
        *(SetPassword, CreateUser, ImportUser, RemoveUser, SetEnabled),
    }
)


class _Layered(BackendContract):
    """Local accounts with `layers` around them."""

    layers: ClassVar[Layers]

    @pytest.fixture
    async def backend(self, tmp: Path) -> AsyncIterator[Backend]:
        """Give a backend that has the contract's accounts."""
        async with SqliteStore.open(str(tmp / "state.db")) as store:
            with Threads("test", 2, 10) as threads:
                context = Context("local", store, threads, lambda: 1e9)
                seen = Seen(store, context.now)
                async with (
                    extauth_local.open(Config(iterations=scram.MIN_ITERATIONS), context) as local,
                    surround(local, self.layers, context, seen, None) as layered,
                ):
                    for user, password in ACCOUNTS.items():
                        made = await ask(layered.backend, CreateUser(Identity(user, DOMAIN), ORIGIN, Secret(password)))
                        assert is_yes(made, user)
                    yield layered.backend


class TestCached(_Layered):
    """With a memory of what was accepted."""

    layers = Layers(CacheRules(ttl=600, grace=600))
    handles = LOCAL


class TestRenamed(_Layered):
    """Under other names."""

    layers = Layers(names=NameRules(template="x-{user}"))
    handles = LOCAL - {ListUsers}
