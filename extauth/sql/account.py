"""Rows of a table as accounts.

The standard columns: `password`, a stored value of any format, or `stored_key`, `server_key`, `salt` (Base64) and `iterations`
for SCRAM; `name`, the user's name as the table has it; `enabled` or `disabled`. Rows of `key` and `value` are taken together.
Several rows may hold several stored values of one user.
"""

from base64 import b64decode
from collections.abc import Mapping, Sequence

from msgspec import Struct

from extauth.jid import is_name
from extauth.model import NOTHING, Identity
from extauth.passwords.scram import Hash
from extauth.sql.database import Row

_NO = {"", "0", "f", "false", "n", "no", "off"}
_YES = {"1", "t", "true", "y", "yes", "on"}
_FAMILIES = {hash_.length: hash_ for hash_ in Hash}


class Account(Struct, frozen=True):
    """A user's row or rows: the stored `values`, whether logins are allowed, and attributes."""

    values: tuple[str, ...]
    enabled: bool
    attributes: Mapping[str, str] = NOTHING

    def __repr__(self) -> str:
        return f"Account({len(self.values)} values, enabled={self.enabled})"


class Ambiguous(Exception):  # noqa: N818 - it names a state of the world
    """Rows of several users go by this name."""


def pivot(rows: Sequence[Row]) -> list[Row]:
    """Return rows of `key` and `value` as one row for each name; others as they are."""
    if not rows or not {"key", "value"} <= rows[0].keys():
        return list(rows)
    found: dict[object, dict[str, object]] = {}
    for row in rows:
        name = row.get("name")
        found.setdefault(name, {"name": name} if "name" in row else {})[str(row["key"])] = row["value"]
    return list(found.values())


def read(rows: Sequence[Row], identity: Identity, attributes: Sequence[str]) -> Account | None:
    """Return the account that rows of standard columns make, None if there is none of exactly that name.

    A table's own comparison may ignore accents, case and blanks at the end, so what has another name is left out.

    Raises:
        Ambiguous: several names in the table are this one.
    """
    own = [row for row in rows if "name" not in row or is_name(_text(row["name"]), identity)]
    if not own:
        return None
    if len({_text(row.get("name")) for row in own}) > 1:
        raise Ambiguous
    told = {name: _text(own[0].get(name)) for name in attributes}
    return Account(
        tuple(value for row in own if (value := _stored(row))),
        all(_enabled(row) for row in own),
        {name: value for name, value in told.items() if value} or NOTHING,
    )


def _stored(row: Row) -> str:
    """Return the row's stored value: as it is, or its columns for SCRAM in the form of RFC 5803; "" if it has none."""
    password = _text(row.get("password"))
    if password:
        return password
    names = ("iterations", "salt", "stored_key", "server_key")
    iterations, salt, stored_key, server_key = (_text(row.get(name)) for name in names)
    try:
        family = _FAMILIES[len(b64decode(stored_key, validate=True))]
    except (KeyError, ValueError):
        return ""
    return f"SCRAM-{family.value}${iterations}:{salt}${stored_key}:{server_key}"


def _enabled(row: Row) -> bool:
    """Tell whether logins are allowed. What is neither yes nor no allows none."""
    allowed = "enabled" not in row or _text(row["enabled"]).lower() in _YES
    return allowed and ("disabled" not in row or _text(row["disabled"]).lower() in _NO)


def _text(value: object) -> str:
    """Return a column's value as text: NULL is "", numbers and truth values are as SQL writes them, bytes are UTF-8."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)
