"""Stored passwords of any kind behind one door: `parse` reads one, `make` writes one.

The formats are the modules of `extauth.passwords.formats`; the folder is the registry. A module has any of these, all dicts:

    READERS   prefix of the text ("$argon2id$", "{SSHA}") -> reader of what follows it
    BINARY    the same for "{SCHEME}" whose payload is bytes, in Base64 or hexadecimal
    WRAPPERS  prefix -> how the text after it begins, which is then read by itself ("{ARGON2}" -> "$argon2")
    BARE      scheme without any prefix -> reader of the text; tried only where the configuration names that scheme
    WRITERS   name of a form that may be written -> Writer
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import extauth.passwords.formats
from extauth.passwords.format import Reader, ScramEntry, Stored, UnsupportedHash, Writer, base64, unhex

__all__ = ["WEAK", "WRITABLE", "ScramEntry", "Stored", "UnsupportedHash", "make", "needs_update", "parse"]

LONGEST = 4096  # characters that a stored value may have

# Bare values last of all: any text may be a plain password.
_MODULES = sorted(
    (importlib.import_module(f"extauth.passwords.formats.{info.name}") for info in pkgutil.iter_modules(
        extauth.passwords.formats.__path__)), key=lambda module: (module.__name__.endswith(".plain"), module.__name__),
)  # fmt: skip


def _gather(kind: str) -> dict[str, Any]:
    return {key: value for module in _MODULES for key, value in getattr(module, kind, {}).items()}


_READERS: dict[str, Reader] = _gather("READERS")
_BINARY: dict[str, Callable[[bytes], Stored]] = _gather("BINARY")
_WRAPPERS: dict[str, str] = _gather("WRAPPERS")
_BARE: dict[str, Reader] = _gather("BARE")
_WRITERS: dict[str, Writer] = _gather("WRITERS")
_KNOWN = {*_READERS, *_BINARY, *_WRAPPERS}
# How a text begins that has no braces, with the prefix that this is; a longer beginning goes before a shorter one.
_BEGINNINGS = sorted(
    ((prefix + _WRAPPERS.get(prefix, ""), prefix) for prefix in _KNOWN if not prefix.startswith("{")), key=lambda b: -len(b[0])
)
_ENCODINGS = {"HEX": unhex, "B64": base64, "BASE64": base64}

WEAK: frozenset[str] = frozenset(scheme for module in _MODULES for scheme in getattr(module, "WEAK", ()))
"""The schemes that are read only where the configuration names them."""

WRITABLE: frozenset[str] = frozenset(_WRITERS)
"""The forms that `make` writes."""


def parse(text: str, weak: frozenset[str] = frozenset()) -> Stored:
    """Read a stored password. Fast: nothing is derived here, and costs are judged before anything ever is.

    Args:
        text: the value, as an application, a directory or a password file keeps it.
        weak: those of `WEAK` that are allowed.

    Raises:
        UnsupportedHash: it is unknown, malformed, weak and not allowed, or costs more than a login may.
    """
    stored = _read(text, weak)
    if stored.weak and stored.scheme not in weak:
        raise UnsupportedHash(f"{stored.scheme}: weak, and not among the weak schemes that are allowed")
    return stored


def needs_update(stored: Stored, form: str) -> bool:
    """Tell whether a password should be stored anew in a form of `WRITABLE`: its scheme is another one, or costs less."""
    writer = _WRITERS[form]
    return stored.scheme != writer.scheme or any(a < b for a, b in zip(stored.cost, writer.cost, strict=True))


def make(form: str, prepared: str, cost: tuple[int, ...] | None = None) -> str:
    """Return a fresh stored value of a prepared password, in a form of `WRITABLE`. Slow: run it in a thread.

    Raises:
        ValueError: the password is longer than that form takes.
    """
    writer = _WRITERS[form]
    return writer.write(prepared, cost or writer.cost)


def _read(text: str, weak: frozenset[str]) -> Stored:
    if len(text) > LONGEST:
        raise UnsupportedHash("too long for any scheme")
    if text.startswith("{") and "}" in text:
        return _read_braced(text, weak)
    for beginning, prefix in _BEGINNINGS:
        if text.startswith(beginning):
            return _read_known(prefix, text[len(prefix) :], weak)
    return _read_bare(text, weak)


def _read_braced(text: str, weak: frozenset[str]) -> Stored:
    """Read `{SCHEME}` (RFC 2307 section 5.3) or Dovecot's `{SCHEME.ENCODING}`."""
    name, _, rest = text[1:].partition("}")
    scheme, _, encoding = name.upper().partition(".")
    prefix = f"{{{scheme}}}"
    if prefix not in _KNOWN:
        raise UnsupportedHash("an unknown {scheme}")
    return _read_known(prefix, rest, weak, encoding)


def _read_known(prefix: str, rest: str, weak: frozenset[str], encoding: str = "") -> Stored:
    """Read what follows a prefix of `_KNOWN`."""
    problem = UnsupportedHash(f"{prefix}: malformed")
    try:
        payload = _ENCODINGS[encoding](rest) if encoding else rest.encode()
        inner = _WRAPPERS.get(prefix)
        if inner is not None and payload.startswith(inner.encode()):
            return _read(payload.decode(), weak)
        if prefix in _BINARY:
            return _BINARY[prefix](payload if encoding else _decode(rest))
        if prefix in _READERS:
            return _READERS[prefix](payload.decode())
    except UnsupportedHash as error:
        problem = error
    except (KeyError, ValueError):
        pass  # what it says might hold some of the value
    raise problem from None


def _decode(text: str) -> bytes:
    """Decode a payload that does not say its encoding: hexadecimal if it looks so and is as long as a digest, else Base64."""
    if len(text) in {32, 40, 64, 128}:
        try:
            return unhex(text)
        except ValueError:
            pass
    return base64(text)


def _read_bare(text: str, weak: frozenset[str]) -> Stored:
    if not text.lstrip("!*") or text.lstrip("!*")[0] in "${":
        raise UnsupportedHash("locked, or an unknown scheme")
    for scheme, reader in _BARE.items():
        if scheme in weak:
            try:
                return reader(text)
            except ValueError:
                continue
    raise UnsupportedHash("no scheme, or an unknown one")
