"""SCRAM keys (RFC 5802 section 3): the only form in which our own accounts keep a password."""

import hashlib
import hmac
import secrets
from enum import Enum

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from msgspec import Struct

MIN_ITERATIONS = 4096  # RFC 5802 section 5.1
ADVISED_ITERATIONS = 10_000  # XEP-0438 section 4
MAX_ITERATIONS = 1_000_000  # more would let one stored number keep a client or us busy for seconds
SALT_BYTES = 16  # XEP-0438 section 4

_ALGORITHMS: dict[str, hashes.HashAlgorithm] = {
    "SHA-1": hashes.SHA1(),  # noqa: S303 - SCRAM-SHA-1 is mandatory to implement in XMPP (RFC 6120 section 13.8.1)
    "SHA-256": hashes.SHA256(),
    "SHA-384": hashes.SHA384(),
    "SHA-512": hashes.SHA512(),
}


class Hash(Enum):
    """A hash of the SCRAM family; the value is its name in mechanism names."""

    SHA_1 = "SHA-1"
    SHA_256 = "SHA-256"
    SHA_384 = "SHA-384"
    SHA_512 = "SHA-512"

    def __init__(self, name: str) -> None:
        self.digest = name.replace("-", "").lower()  # the name hashlib knows it by
        self.algorithm = _ALGORITHMS[name]
        self.length = self.algorithm.digest_size  # the bytes of a key


class ScramKeys(Struct, frozen=True, gc=False):
    """StoredKey and ServerKey of one password, for one hash, salt and iteration count."""

    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return "ScramKeys(...)"


def new_salt() -> bytes:
    """Return a fresh random salt."""
    return secrets.token_bytes(SALT_BYTES)


def salted_password(family: Hash, prepared: str, salt: bytes, iterations: int) -> bytes:
    """Return SaltedPassword = Hi(password, salt, i). Slow by intention; releases the interpreter lock."""
    return PBKDF2HMAC(family.algorithm, family.length, salt, iterations).derive(prepared.encode())


def keys(family: Hash, salted: bytes) -> ScramKeys:
    """Return the keys that a SaltedPassword gives."""
    digest = family.digest
    return ScramKeys(stored_key=_stored_key(digest, salted), server_key=hmac.digest(salted, b"Server Key", digest))


def make(family: Hash, prepared: str, salt: bytes, iterations: int) -> ScramKeys:
    """Derive the keys of a prepared password."""
    return keys(family, salted_password(family, prepared, salt, iterations))


def verify(family: Hash, forms: tuple[str, ...], salt: bytes, iterations: int, stored: tuple[bytes, ...]) -> int | None:
    """Return the index of the StoredKey that one of the password's `forms` gives, or None."""
    for form in forms:
        found = _stored_key(family.digest, salted_password(family, form, salt, iterations))
        for index, stored_key in enumerate(stored):
            if hmac.compare_digest(found, stored_key):
                return index
    return None


def _stored_key(digest: str, salted: bytes) -> bytes:
    return hashlib.new(digest, hmac.digest(salted, b"Client Key", digest)).digest()
