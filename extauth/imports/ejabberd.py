"""Accounts of ejabberd: its Mnesia table `passwd` as `ejabberdctl dump` writes it, and its SQL table `users`."""

import re
from base64 import b64decode
from collections.abc import Iterable, Iterator
from typing import cast

from extauth import jid
from extauth.imports import erlang
from extauth.imports.account import Found, Problem, scram_keys
from extauth.imports.sqldump import Row
from extauth.model import Secret

_RECORD = re.compile(r"^\{passwd,", re.MULTILINE)


def is_dump(text: str) -> bool:
    """Tell whether this is what `ejabberdctl dump` writes."""
    return re.match(r"\s*\{tables,", text) is not None


def from_dump(text: str) -> Iterator[Found | Problem]:
    """Read the accounts of a dump: `{passwd,{User,Server},Password}` or with `{scram,StoredKey,ServerKey,Salt,Hash,Count}`.

    Since ejabberd 25 the key is {User,Server,Hash}. Each record begins at the start of a line, and no line within one does so.
    """
    for number, match in enumerate(_RECORD.finditer(text), 1):
        end = text.find("\n{", match.end())
        try:
            yield _record(erlang.read(text[match.start() : end if end >= 0 else len(text)]))
        except ValueError as error:
            yield Problem(f"passwd record {number}", str(error))


def _record(term: erlang.Term) -> Found:
    match _elements(term):
        case (erlang.Atom("passwd"), key, value):
            pass
        case _:
            raise ValueError("not a passwd record")
    match _elements(key)[:2]:
        case (bytes() as user, bytes() as server):
            identity = jid.identity(_text(user), _text(server))
        case _:
            raise ValueError("a passwd record of an ejabberd that is not known here")
    if isinstance(value, bytes) and value:
        return Found(identity, Secret(_text(value)))
    elements = _elements(value)
    match (*elements[:4], *elements[-1:]):
        case (erlang.Atom("scram"), bytes() as stored, bytes() as server_key, bytes() as salt, int() as count):
            return Found(identity, keys=(scram_keys(_base64(salt), count, _base64(stored), _base64(server_key)),))
        case _:
            raise ValueError(f"{identity}: neither a password nor SCRAM keys")


def _elements(term: erlang.Term) -> tuple[erlang.Term, ...]:
    return cast("tuple[erlang.Term, ...]", term) if isinstance(term, tuple) else ()


def from_users(rows: Iterable[Row], domain: str) -> Iterator[Found | Problem]:
    """Read the rows of the table `users` (ejabberd's sql/*.sql). `domain` is for the schema that has no server_host."""
    for number, row in enumerate(rows, 1):
        try:
            yield _user(row, domain)
        except ValueError as error:
            yield Problem(f"row {number} of users", str(error))


def _user(row: Row, domain: str) -> Found:
    name, password = row.get("username") or "", row.get("password") or ""
    host = row.get("server_host") or domain
    if not host:
        raise ValueError("the table does not tell the domain: name it by --domain")
    identity = jid.identity(name, host)
    count, salt, server_key = row.get("iterationcount") or "0", row.get("salt"), row.get("serverkey")
    if salt and server_key:
        stored_key = password.rpartition(":")[2]  # "sha256:..."; without, it is SHA-1
        try:
            return Found(identity, keys=(scram_keys(_base64(salt), int(count), _base64(stored_key), _base64(server_key)),))
        except ValueError as error:
            raise ValueError(f"{identity}: {error}") from None
    if not password:
        raise ValueError(f"{identity}: has no password")
    return Found(identity, Secret(password))


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None


def _base64(text: str | bytes) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise ValueError("not Base64") from None
