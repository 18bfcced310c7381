"""Accounts of Prosody: the store `accounts` of internal_hashed and internal_plain, in files or in SQL (mod_storage_sql)."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from extauth import jid
from extauth.imports import lua
from extauth.imports.account import Found, Problem, scram_keys
from extauth.imports.sqldump import Row
from extauth.model import Identity, Secret

STORE = "accounts"


def decode_name(name: str) -> str:
    """Return the name that util.datamanager encodes as a file's: every byte but letters, digits and `_` is %xx.

    Raises:
        ValueError: it is no such name.
    """
    data = re.sub(r"%([0-9a-fA-F]{2})", lambda match: chr(int(match[1], 16)), name)
    try:
        return data.encode("latin-1").decode()
    except UnicodeError:
        raise ValueError("not UTF-8") from None


def from_file(identity: Identity, text: str) -> Found:
    """Read the file of an account, decoded as Latin-1.

    Raises:
        ValueError: it can't be read, or holds no password.
    """
    return _account(identity, lua.read(text))


def from_rows(rows: Iterable[Row]) -> Iterator[Found | Problem]:
    """Read the rows of the table `prosody`: host, user, store, key, type, value."""
    accounts: defaultdict[tuple[str, str], dict[bytes, lua.Value]] = defaultdict(dict)
    for row in rows:
        if row.get("store") == STORE:
            value = row.get("value") or ""
            accounts[row.get("host") or "", row.get("user") or ""][(row.get("key") or "").encode()] = _typed(
                row.get("type"), value
            )
    for (host, user), account in accounts.items():
        try:
            identity = jid.identity(user, host)
        except jid.InvalidName as error:
            yield Problem(f"{user}@{host}", str(error))
            continue
        try:
            yield _account(identity, account)
        except ValueError as error:
            yield Problem(str(identity), str(error))


def _typed(kind: str | None, value: str) -> lua.Value:
    if kind == "number":
        number = float(value) if re.fullmatch(r"\d+(\.\d+)?", value) else 0.0
        return int(number)
    return value == "true" if kind == "boolean" else value.encode()


def _account(identity: Identity, account: lua.Value) -> Found:
    if not isinstance(account, Mapping):
        raise ValueError("not an account")  # noqa: TRY004 - of the file
    fields = cast("Mapping[object, lua.Value]", account)
    enabled = fields.get(b"disabled") is not True
    stored, server, salt = fields.get(b"stored_key"), fields.get(b"server_key"), fields.get(b"salt")
    count, password = fields.get(b"iteration_count"), fields.get(b"password")
    if isinstance(stored, bytes) and isinstance(server, bytes) and isinstance(salt, bytes) and isinstance(count, int):
        return Found(identity, keys=(scram_keys(salt, count, _unhex(stored), _unhex(server)),), enabled=enabled)
    if not isinstance(password, bytes) or not password:
        raise ValueError("neither a password nor SCRAM keys")
    try:
        return Found(identity, Secret(password.decode()), enabled=enabled)
    except UnicodeDecodeError:
        raise ValueError("a password that is not UTF-8") from None


def _unhex(text: bytes) -> bytes:
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise ValueError("keys that are not hexadecimal") from None
