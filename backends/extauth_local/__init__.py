"""Backend `local`: accounts in the state store, passwords kept only as SCRAM keys (RFC 5802, XEP-0438)."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from extauth.backend import Backend, Context
from extauth.errors import ConfigError
from extauth.passwords import scram
from extauth.passwords.prepare import LONGEST
from extauth.passwords.rules import Rules
from extauth.values import Checked
from extauth_local.accounts import LocalBackend

MIN_LENGTH = 8  # NIST SP 800-63B section 5.1.1.2


@dataclass(frozen=True)
class Config(Checked):
    """[backend.local]: the rules for passwords that are set; those already stored are not touched by a change here."""

    iterations: int = scram.ADVISED_ITERATIONS
    min_length: int = MIN_LENGTH
    max_length: int = LONGEST
    blocklist: str | None = None  # a file of passwords that nobody may choose, one a line

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        if not scram.MIN_ITERATIONS <= self.iterations <= scram.MAX_ITERATIONS:
            yield f"iterations: must be {scram.MIN_ITERATIONS} to {scram.MAX_ITERATIONS}"
        if not 1 <= self.min_length <= self.max_length <= LONGEST:
            yield f"min_length, max_length: must be in order and from 1 to {LONGEST}"


@asynccontextmanager
async def open(config: Config, context: Context) -> AsyncGenerator[Backend, None]:  # noqa: A001 - the name every backend has
    """Open the accounts of the state store."""
    rules = Rules(config.min_length, config.max_length, _blocked(context.name, config.blocklist))
    backend = LocalBackend(context, rules, config.iterations)
    await backend.prepare()
    yield backend


def _blocked(name: str, path: str | None) -> frozenset[str]:
    if path is None:
        return frozenset()
    try:
        return frozenset(line.casefold() for line in Path(path).read_text(encoding="utf-8").splitlines() if line)
    except OSError as error:
        raise ConfigError([f"backend.{name}.blocklist: {path}: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"backend.{name}.blocklist: {path}: not UTF-8"]) from error
