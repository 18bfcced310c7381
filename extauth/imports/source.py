"""Finds out what a file or folder is, and reads the accounts in it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from extauth import jid
from extauth.imports import ejabberd, prosody, sqldump
from extauth.imports.account import Found, Problem, merged
from extauth.imports.sqldump import Row

SQLITE = b"SQLite format 3\0"


class NoSource(Exception):  # noqa: N818 - it names a state of the world
    """Nothing can be imported from there. The message says why."""


def accounts(path: Path, domain: str = "") -> Iterator[Found | Problem]:
    """Yield the accounts that another server keeps in a file or folder.

    Args:
        path: Prosody's data folder or a folder of one of its hosts; a SQLite database or SQL dump of either server; what
            `ejabberdctl dump` wrote.
        domain: only accounts of this domain; and that of accounts whose source does not tell it.

    Raises:
        NoSource: it is none of these, or can't be read.
    """
    try:
        for item in merged(_folder(path) if path.is_dir() else _file(path, domain)):
            if isinstance(item, Problem) or not domain or item.identity.domain == domain:
                yield item
    except (OSError, sqlite3.Error) as error:
        raise NoSource(f"{path}: {error}") from None
    except ValueError as error:
        raise NoSource(f"{path}: {error}") from None


def _file(path: Path, domain: str) -> Iterator[Found | Problem]:
    data = path.read_bytes()
    if data.startswith(SQLITE):
        yield from _database(path, domain)
        return
    text = data.decode("latin-1")
    if ejabberd.is_dump(text):
        yield from ejabberd.from_dump(text)
        return
    text = data.decode()
    found = [*prosody.from_rows(sqldump.rows(text, "prosody")), *ejabberd.from_users(sqldump.rows(text, "users"), domain)]
    if not found:
        raise ValueError("no accounts: neither a dump of ejabberd or Prosody nor a database of theirs")
    yield from found


def _database(path: Path, domain: str) -> Iterator[Found | Problem]:
    with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "prosody" in tables:
            yield from prosody.from_rows(_rows(connection, "SELECT * FROM prosody WHERE store = 'accounts'"))
        elif "users" in tables:
            yield from ejabberd.from_users(_rows(connection, "SELECT * FROM users"), domain)
        else:
            raise ValueError("a database without a table of accounts of ejabberd or Prosody")


def _rows(connection: sqlite3.Connection, query: str) -> Iterator[Row]:
    cursor = connection.execute(query)
    columns = [column[0].lower() for column in cursor.description]
    for values in cursor:
        yield {name: None if value is None else str(value) for name, value in zip(columns, values, strict=True)}


def _folder(path: Path) -> Iterator[Found | Problem]:
    """Read Prosody's data folder, that of one host, or the `accounts` in it."""
    if path.name == prosody.STORE:
        folders = [path]
    elif (path / prosody.STORE).is_dir():
        folders = [path / prosody.STORE]
    else:
        folders = sorted(path.glob(f"*/{prosody.STORE}"))
    if not folders:
        raise ValueError("not a data folder of Prosody: there is no folder HOST/accounts")
    for folder in folders:
        for file in sorted(folder.absolute().glob("*.dat")):
            yield _account(file)


def _account(file: Path) -> Found | Problem:
    try:
        identity = jid.identity(prosody.decode_name(file.stem), prosody.decode_name(file.parent.parent.name))
        return prosody.from_file(identity, file.read_bytes().decode("latin-1"))
    except (ValueError, OSError) as error:
        return Problem(str(file), str(error))
