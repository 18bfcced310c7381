"""An ejabberd-style authentication script, as sites have them: accounts in a SQLite file. `python3 accounts.py FILE [FAULT]`.

The user named like a fault shows it: hang, die, rubbish, stray, leak; as an argument it is shown at once.
"""

import sqlite3
import sys
import time


def fault(kind: str, password: str) -> None:
    """Misbehave."""
    if kind == "hang":
        time.sleep(3600)
    elif kind == "die":
        sys.exit("Traceback: the database is gone")
    elif kind == "rubbish":
        sys.stdout.buffer.write(b"OK\n\n")
    elif kind == "stray":
        sys.stdout.buffer.write(b"\0\2\0\1\0\2\0\1")
    elif kind == "leak":
        sys.stderr.write(f"checking {password}\n")
        sys.stderr.flush()


def answer(database: sqlite3.Connection, verb: str, user: str, host: str, password: str) -> bool:
    """Decide a question."""
    key = f"{user}@{host}"
    row: tuple[str] | None = database.execute("SELECT password FROM account WHERE name = ?", (key,)).fetchone()
    if verb == "auth":
        return row == (password,)
    if verb == "isuser":
        return row is not None
    if verb == "tryregister":
        if row is None:
            database.execute("INSERT INTO account VALUES (?, ?)", (key, password))
        return row is None
    if verb == "setpass":
        return database.execute("UPDATE account SET password = ? WHERE name = ?", (password, key)).rowcount == 1
    if verb == "removeuser":
        return database.execute("DELETE FROM account WHERE name = ?", (key,)).rowcount == 1
    return False


def main() -> None:
    """Answer questions until standard input ends."""
    database = sqlite3.connect(sys.argv[1], isolation_level=None)
    if len(sys.argv) > 2:
        fault(sys.argv[2], "")
    while size := sys.stdin.buffer.read(2):
        verb, user, host, *password = sys.stdin.buffer.read(int.from_bytes(size, "big")).decode().split(":", 3)
        fault(user, "".join(password))
        right = answer(database, verb, user, host, "".join(password))
        sys.stdout.buffer.write(b"\0\2\0" + bytes([right]))
        sys.stdout.buffer.flush()


main()
