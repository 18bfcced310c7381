"""What we use of libpass, which has no types. Its algorithms are written in Python and hold the interpreter while they run."""

from typing import Any, cast

from passlib import registry


def _handler(name: str) -> Any:  # noqa: ANN401 - untyped
    return cast("Any", registry).get_crypt_handler(name)


def verify(name: str, password: bytes, stored: str) -> bool:
    """Tell whether `password` is that of a hash of the kind libpass calls `name`."""
    return bool(_handler(name).verify(password, stored))


def make(name: str, password: str, salt: str, rounds: int) -> str:
    """Return the hash of a password."""
    return str(_handler(name).using(salt=salt, rounds=rounds).hash(password))
