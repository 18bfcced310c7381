"""phpass's portable hashes: WordPress before 6.8 (`$P$`), phpBB 3 (`$H$`)."""

import re

from extauth.passwords import libpass
from extauth.passwords.format import Reader, Stored, within

_REST = re.compile(r"([./0-9A-Za-z])[./0-9A-Za-z]{30}", re.ASCII)
_DIGITS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

MIN_COST = 7
MAX_COST = 18  # binary logarithm of the rounds of MD5: a tenth of a second


def _reader(prefix: str) -> Reader:
    def read(rest: str) -> Stored:
        match = _REST.fullmatch(rest)
        cost = _DIGITS.index(match[1]) if match else 0
        within("phpass", (cost, MAX_COST))
        if cost < MIN_COST:
            raise ValueError("phpass")
        return Stored("phpass", lambda password: libpass.verify("phpass", password, prefix + rest), (cost,))

    return read


READERS = {prefix: _reader(prefix) for prefix in ("$P$", "$H$")}
