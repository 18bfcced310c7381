"""SCRAM keys: as PostgreSQL stores them, in the form of RFC 5803, and Dovecot's."""

import re
from base64 import b64encode

from extauth.passwords import scram
from extauth.passwords.format import Reader, ScramEntry, Stored, Writer, base64, within
from extauth.passwords.scram import Hash

_B64 = "([A-Za-z0-9+/]{1,172}={0,2})"
# RFC 5803 section 2; RFC 3112 section 2.2 allows blanks around "$"
_DOLLARS = re.compile(rf"(?:\s*\$)?\s*(\d{{1,9}}):{_B64}\s*\$\s*{_B64}:{_B64}", re.ASCII)
_COMMAS = re.compile(rf"(\d{{1,9}}),{_B64},{_B64},{_B64}", re.ASCII)


def _reader(family: Hash) -> Reader:
    scheme = f"scram-{family.value.lower()}"

    def read(rest: str) -> Stored:
        match = _DOLLARS.fullmatch(rest) or _COMMAS.fullmatch(rest)
        if match is None:
            raise ValueError(scheme)
        iterations, salt, stored_key, server_key = int(match[1]), base64(match[2]), base64(match[3]), base64(match[4])
        within(scheme, (iterations, scram.MAX_ITERATIONS))
        length = len(stored_key)
        if not iterations or not salt or length != family.length or length != len(server_key):
            raise ValueError(scheme)

        def check(password: bytes) -> bool:
            return scram.verify(family, (password.decode(),), salt, iterations, (stored_key,)) is not None

        entry = ScramEntry(family, salt, iterations, stored_key, server_key)
        return Stored(scheme, check, (iterations,), scram=(entry,))

    return read


def _writer(family: Hash, form: str) -> Writer:
    def write(prepared: str, cost: tuple[int, ...]) -> str:
        salt = scram.new_salt()
        keys = scram.make(family, prepared, salt, cost[0])
        return form.format(family.value, cost[0], *(b64encode(x).decode() for x in (salt, keys.stored_key, keys.server_key)))

    return Writer(f"scram-{family.value.lower()}", (scram.ADVISED_ITERATIONS,), write)


READERS: dict[str, Reader] = {
    prefix: _reader(family) for family in Hash for prefix in (f"SCRAM-{family.value}", f"{{SCRAM-{family.value}}}")
}
WRITERS = {
    f"{prefix}scram-{family.value.lower()}": _writer(family, form)
    for family in Hash
    for prefix, form in (("", "SCRAM-{}${}:{}${}:{}"), ("dovecot-", "{{SCRAM-{}}}{},{},{},{}"))
}
