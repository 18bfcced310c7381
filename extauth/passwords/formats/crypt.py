"""What crypt(3) computes: SHA-crypt, yescrypt, scrypt, MD5-crypt, DES. By libcrypt (libxcrypt) if it is there, else by libpass.

libcrypt is several times as fast and leaves the interpreter to others meanwhile; yescrypt and `$7$` are its alone.
"""

import ctypes
import re
import secrets
from typing import Any

from extauth.passwords import libpass
from extauth.passwords.format import Reader, Stored, UnsupportedHash, Writer, same, within

MAX_ROUNDS = 1_000_000  # of SHA-crypt: half a second
MAX_MEMORY = 256 * 1024 * 1024  # bytes, of yescrypt and scrypt
ROUNDS = (5000,)  # those of crypt(3), if none are named
WORK = 32768  # bytes that crypt_rn works in (struct crypt_data)
SALT = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_SHA = re.compile(r"\$([56])\$(?:rounds=(\d{1,9})\$)?[^$:\n]{1,16}\$([./0-9A-Za-z]{43}|[./0-9A-Za-z]{86})", re.ASCII)
_YESCRYPT = re.compile(r"\$g?y\$[./0-9A-Za-z]([./0-9A-Za-j])([./0-9A-Za-j])\$[./0-9A-Za-z]{1,86}\$[./0-9A-Za-z]{43}", re.ASCII)
_SCRYPT = re.compile(r"\$7\$([./0-9A-Za-z])([./0-9A-Za-z]{5})([./0-9A-Za-z]{5})[./0-9A-Za-z]+\$[./0-9A-Za-z]{43}", re.ASCII)
_MD5 = re.compile(r"\$(1|apr1)\$[^$:\n]{1,8}\$[./0-9A-Za-z]{22}", re.ASCII)
_DES = re.compile(r"[./0-9A-Za-z]{13}([./0-9A-Za-z]{11}){0,15}", re.ASCII)


def _load() -> Any:  # noqa: ANN401 - a foreign function
    for name in ("libcrypt.so.1", "libcrypt.so.2"):
        try:
            function = ctypes.CDLL(name).crypt_rn
        except (OSError, AttributeError):  # not installed, or not libxcrypt
            continue
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int]
        return function
    return None


_crypt_rn = _load()


def _crypt(password: bytes, setting: bytes) -> bytes:
    """Return crypt(password, setting), b"" if libcrypt can't tell. Any number of threads may do so at a time."""
    result: bytes | None = _crypt_rn(password, setting, ctypes.create_string_buffer(WORK), WORK)
    return result or b""


def _stored(scheme: str, text: str, handler: str | None, cost: tuple[int, ...], *, weak: bool = False) -> Stored:
    """Judge by libcrypt, else by the handler of that name of libpass."""
    stored = text.encode()
    if _crypt_rn is not None and not text.startswith("$apr1$"):
        return Stored(scheme, lambda password: same(_crypt(password, stored), stored), cost, weak)
    if handler is None:
        raise UnsupportedHash(f"{scheme}: needs libcrypt, which is not installed")
    return Stored(scheme, lambda password: libpass.verify(handler, password, text), cost, weak)


def _sha(rest: str, prefix: str, scheme: str) -> Stored:
    match = _SHA.fullmatch(prefix + rest)
    if match is None or len(match[3]) != {"5": 43, "6": 86}[match[1]]:
        raise ValueError(scheme)
    rounds = int(match[2] or ROUNDS[0])
    within(scheme, (rounds, MAX_ROUNDS))
    return _stored(scheme, prefix + rest, scheme.replace("-", "_"), (rounds,))


def _yescrypt(rest: str, prefix: str, scheme: str) -> Stored:
    match = _YESCRYPT.fullmatch(prefix + rest)
    if match is None:
        raise ValueError(scheme)
    n, r = 2 << SALT.index(match[1]), 1 + SALT.index(match[2])
    within(scheme, (128 * n * r, MAX_MEMORY))
    return _stored(scheme, prefix + rest, None, (n, r))


def _scrypt(rest: str) -> Stored:
    match = _SCRYPT.fullmatch("$7$" + rest)
    if match is None:
        raise ValueError("scrypt")
    n, r, p = 1 << SALT.index(match[1]), _number(match[2]), _number(match[3])
    within("scrypt", (128 * n * r * p, MAX_MEMORY))
    return _stored("scrypt", "$7$" + rest, None, (n, r, p))


def _number(digits: str) -> int:
    return sum(SALT.index(digit) << 6 * place for place, digit in enumerate(digits))


def _md5(rest: str, prefix: str) -> Stored:
    if _MD5.fullmatch(prefix + rest) is None:
        raise ValueError("md5-crypt")
    return _stored("md5-crypt", prefix + rest, {"$1$": "md5_crypt", "$apr1$": "apr_md5_crypt"}[prefix], (1000,), weak=True)


def _des(text: str) -> Stored:
    match = _DES.fullmatch(text)
    if match is None:
        raise ValueError("des-crypt")
    return _stored("des-crypt", text, None if match[1] else "des_crypt", (25,), weak=True)


def _write(prepared: str, cost: tuple[int, ...]) -> str:
    salt = "".join(secrets.choice(SALT) for _ in range(16))
    rounds = "" if cost == ROUNDS else f"rounds={cost[0]}$"
    if _crypt_rn is not None:
        return _crypt(prepared.encode(), f"$6${rounds}{salt}$".encode()).decode()
    return libpass.make("sha512_crypt", prepared, salt, cost[0])


READERS: dict[str, Reader] = {
    "$5$": lambda rest: _sha(rest, "$5$", "sha256-crypt"),
    "$6$": lambda rest: _sha(rest, "$6$", "sha512-crypt"),
    "$y$": lambda rest: _yescrypt(rest, "$y$", "yescrypt"),
    "$gy$": lambda rest: _yescrypt(rest, "$gy$", "gost-yescrypt"),
    "$7$": _scrypt,
    "$1$": lambda rest: _md5(rest, "$1$"),
    "$apr1$": lambda rest: _md5(rest, "$apr1$"),
    "{CRYPT}": _des,
    "{DES-CRYPT}": _des,
}
WRAPPERS = {
    "{CRYPT}": "$",
    "{SHA256-CRYPT}": "$5$",
    "{SHA512-CRYPT}": "$6$",
    "{MD5-CRYPT}": "$1$",
    "{MD5}": "$1$",  # Dovecot
}
BARE = {"des-crypt": _des}
WEAK = ("md5-crypt", "des-crypt")
WRITERS = {"sha512-crypt": Writer("sha512-crypt", ROUNDS, _write)}
