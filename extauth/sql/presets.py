"""The tables of known applications: which statement reads an account, and what its columns mean."""

from base64 import b64encode
from binascii import unhexlify
from collections.abc import Callable, Mapping

from msgspec import Struct

from extauth.sql.database import Row


class Preset(Struct, frozen=True):
    """An application's tables.

    Args:
        query: reads an account; `{prefix}` stands before names of tables, and "name" is a quoted name in every database.
        translate: makes the standard columns of a row; see `extauth.sql.account`.
        prefix: of the tables, where the configuration names none.
        weak: schemes of passwords that the application uses although they are weak.
    """

    query: str
    translate: Callable[[Row], Row] = dict
    prefix: str = ""
    weak: frozenset[str] = frozenset()


_PLAIN = frozenset({"plain"})


def _ejabberd(row: Row) -> Row:
    """Ejabberd's `users` (sql/*.sql, src/ejabberd_auth_sql.erl): a plain password, or StoredKey in its place.

    Which hash a StoredKey is of, says the column `type`, or in older schemas a prefix; without, it is SHA-1.
    """
    password = str(row.get("password") or "")
    is_plain = row.get("type") == 1 or not row.get("iterationcount")
    if is_plain:
        return {"name": row.get("username"), "password": f"{{PLAIN}}{password}" if password else None}
    return {
        "name": row.get("username"),
        "stored_key": password.rpartition(":")[2],
        "server_key": row.get("serverkey"),
        "salt": row.get("salt"),
        "iterations": row.get("iterationcount"),
    }


def _prosody(row: Row) -> Row:
    """Prosody's store `accounts` (mod_auth_internal_hashed, mod_auth_internal_plain): keys in hexadecimal, the salt as text."""
    password = row.get("password")
    translated: dict[str, object] = {
        "name": row.get("name"),
        "password": f"{{PLAIN}}{password}" if password else None,
        "disabled": row.get("disabled"),
    }
    try:
        keys = {name: b64encode(unhexlify(str(row[name]))).decode() for name in ("stored_key", "server_key")}
        salt = b64encode(str(row["salt"]).encode()).decode()
    except (KeyError, ValueError):  # there are none, or they are broken
        return translated
    return {**translated, **keys, "salt": salt, "iterations": row.get("iteration_count")}


PRESETS: Mapping[str, Preset] = {
    "prosody": Preset(
        'SELECT "user" AS name, "key", "value" FROM {prefix}prosody '
        """WHERE "host" = $domain AND "user" = $user AND "store" = 'accounts'""",
        _prosody,
        weak=_PLAIN,
    ),
    "ejabberd": Preset("SELECT * FROM {prefix}users WHERE username = $user", _ejabberd, weak=_PLAIN),
    "ejabberd-hosts": Preset(  # its new_sql_schema: the accounts of all hosts
        "SELECT * FROM {prefix}users WHERE username = $user AND server_host = $domain", _ejabberd, weak=_PLAIN
    ),
    "django": Preset(
        "SELECT username AS name, password, is_active AS enabled, "
        "CASE WHEN is_superuser THEN 'admin' WHEN is_staff THEN 'staff' END AS role "
        "FROM {prefix}user WHERE username = $user",
        prefix="auth_",
    ),
    "nextcloud": Preset(
        "SELECT u.uid AS name, u.password, COALESCE(p.configvalue, 'true') AS enabled FROM {prefix}users u "
        "LEFT JOIN {prefix}preferences p ON p.userid = u.uid AND p.appid = 'core' AND p.configkey = 'enabled' "
        "WHERE u.uid_lower = $user",
        prefix="oc_",
    ),
    "wordpress": Preset(
        "SELECT user_login AS name, user_pass AS password, user_status AS disabled FROM {prefix}users WHERE user_login = $user",
        prefix="wp_",
    ),
}
