"""Whether anybody has written to an SQLite file in WAL mode, told without a look-up.

All processes that have such a file open share the header of its WAL index, at the start of FILE-shm: each commit puts another
one there, with a counter and with the length, salts and checksums of the log (https://sqlite.org/walformat.html, section 2).
SQLite begins every look-up by comparing it with the one it saw last, and trusts its memory of the file if it is the same.
"""

import os
import sqlite3
import sys
from collections.abc import Generator
from contextlib import contextmanager
from mmap import PROT_READ, mmap
from pathlib import Path

_BYTES = 48
_VERSION = (3_007_000).to_bytes(4, sys.byteorder)  # how a header begins whose form is known
_IS_INITIALIZED = 12  # the byte that says so


class _Shared:
    """The header of one file, and how many in this process use it."""

    def __init__(self, path: Path) -> None:
        self.users = 0
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.header = mmap(self._descriptor, _BYTES, prot=PROT_READ)

    def close(self) -> None:
        self.header.close()
        os.close(self._descriptor)


_shared: dict[tuple[int, int], _Shared] = {}  # by device and inode


@contextmanager
def wal_header(path: str, reader: sqlite3.Connection) -> Generator[mmap | None]:
    """Map the header of a file that `reader` has open; None: it has none of a form that is known.

    It is to be left after the file has been closed. Closing any descriptor of FILE-shm takes away the locks that SQLite holds
    on it in the same process (fcntl(2)): so there is one for all who share a file, and the last to leave closes it.
    """
    reader.execute("SELECT 1 FROM sqlite_schema").fetchone()  # the index is there after the first look-up
    index = Path(f"{path}-shm")
    if reader.execute("PRAGMA journal_mode").fetchone() != ("wal",) or not index.exists():
        yield None
        return
    status = index.stat()
    place = status.st_dev, status.st_ino
    shared = _shared.get(place) or _shared.setdefault(place, _Shared(index))
    shared.users += 1
    try:
        known = shared.header[:4] == _VERSION and shared.header[_IS_INITIALIZED]
        yield shared.header if known else None
    finally:
        shared.users -= 1
        if not shared.users:
            del _shared[place]
            shared.close()
