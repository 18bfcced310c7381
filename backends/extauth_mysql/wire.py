"""One connection to MariaDB or MySQL, with deadlines, and its errors as ours."""

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pymysql
from pymysql.constants import CLIENT, CR, ER

from extauth.errors import BackendDown
from extauth.sql.database import Conflict, Lost, Row
from extauth.sql.server import Address
from extauth.sql.statement import Statement

if TYPE_CHECKING:
    _Connection = pymysql.connections.Connection[pymysql.cursors.Cursor]
else:
    _Connection = pymysql.connections.Connection  # generic in its stubs alone

READ_ONLY = "SET SESSION TRANSACTION READ ONLY"

STEP = 0.25  # seconds between two time-outs of a socket: setting one takes a system call and gives the interpreter's lock away

_KILLED, _WAS_KILLED, _IDLE_TOO_LONG = 1927, 3169, 4031  # of MariaDB; of MySQL, and its wait_timeout
_GONE = {
    0,  # PyMySQL's own, of a connection that it has closed
    *(CR.CR_CONN_HOST_ERROR, CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST),
    *(ER.SERVER_SHUTDOWN, ER.CON_COUNT_ERROR, ER.NORMAL_SHUTDOWN, ER.QUERY_INTERRUPTED),
    *(_KILLED, _WAS_KILLED, _IDLE_TOO_LONG),
}
_TAKEN = {ER.DUP_ENTRY, 1586}  # ER_DUP_ENTRY_WITH_KEY_NAME
_QUOTING = {ER.PARSE_ERROR}  # errors whose text quotes the statement, values and all


class _Driver(_Connection):
    """PyMySQL with values that nothing can take for anything else, and with deadlines.

    It puts the values into the text itself. Here they are hexadecimal digits, whatever the sql_mode and the character set.
    """

    def escape(self, obj: object, mapping: Any = None) -> str:  # noqa: ANN401 - PyMySQL's signature
        """Return a value as a literal."""
        return f"_utf8mb4 X'{obj.encode().hex()}'" if isinstance(obj, str) else super().escape(obj, mapping)

    def wait_until(self, deadline: float) -> None:
        """Let the next statement take until then, or a little less: the socket is told a time-out only if it is another one."""
        left = _left(deadline)
        self._read_timeout = self._write_timeout = left - left % STEP or left


class Connection:
    """A connection. Without `changes` the server refuses all that would change anything."""

    def __init__(self, address: Address, deadline: float, *, changes: bool) -> None:
        is_socket = address.host.startswith("/")
        with self._connecting():
            self._driver = _Driver(
                host=None if is_socket else address.host,
                port=address.port,
                unix_socket=address.host if is_socket else None,
                user=address.user,
                password=address.password.reveal().encode() if address.password else b"",
                database=address.database,
                charset="utf8mb4",
                autocommit=not changes,
                init_command=None if changes else READ_ONLY,
                client_flag=CLIENT.FOUND_ROWS,  # count what an UPDATE found, also if it held the same before
                ssl=address.tls,
                ssl_disabled=address.tls is None,
                connect_timeout=_left(deadline),
                read_timeout=_left(deadline),
                write_timeout=_left(deadline),
            )
        self._cursor = self._driver.cursor()

    def read(self, statement: Statement, values: Sequence[str], deadline: float) -> list[Row]:
        """Run a SELECT."""
        with _border(Lost):
            self._driver.wait_until(deadline)
            self._cursor.execute(statement.text, tuple(values))
            names = [column[0].lower() for column in self._cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in self._cursor.fetchall()]

    def change(self, statement: Statement, values: Sequence[str], deadline: float) -> int:
        """Run a statement in a transaction."""
        with _border(BackendDown):
            self._driver.wait_until(deadline)
            count = self._cursor.execute(statement.text, tuple(values))
            self._driver.rollback() if count > 1 else self._driver.commit()
            return count

    def close(self) -> None:
        """Close it."""
        with suppress(pymysql.err.Error):  # it is closed
            self._driver.close()

    @contextmanager
    def _connecting(self) -> Generator[None]:
        try:
            yield
        except (pymysql.err.Error, OSError, RuntimeError) as error:
            # Without its cause: a traceback through the driver has the password among its values.
            raise Lost(f"MySQL: {_text(error)}") from None


@contextmanager
def _border(of_broken: type[BackendDown]) -> Generator[None]:
    """Turn the driver's errors into ours; that of a broken connection into `of_broken`."""
    try:
        yield
    except pymysql.err.IntegrityError as error:
        if error.args[0] in _TAKEN:
            raise Conflict from None
        raise BackendDown(f"MySQL: {_text(error)}") from None
    except (pymysql.err.Error, OSError) as error:
        broken = isinstance(error, OSError) or (error.args and error.args[0] in _GONE)
        raise (of_broken if broken else BackendDown)(f"MySQL: {_text(error)}") from None


def _text(error: Exception) -> str:
    code, *more = error.args or ("",)
    if isinstance(error, pymysql.err.Error) and isinstance(code, int):
        return f"error {code}" + ("" if code in _QUOTING or not more else f": {more[0]}")
    return f"{type(error).__name__}: {error}"


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)
