"""Judges logins by the stored passwords that a backend looked up: in a table, a directory or a file."""

import secrets
from base64 import b64encode
from collections.abc import Mapping, Sequence

import structlog
import trio

from extauth.model import (
    NOTHING,
    Accept,
    Answer,
    Candidate,
    CheckPassword,
    Decoy,
    FindKeys,
    Identity,
    Keys,
    Reason,
    Reject,
    Secret,
)
from extauth.passwords.prepare import for_checking, is_prepared
from extauth.passwords.scram import ADVISED_ITERATIONS
from extauth.passwords.stored import Stored, UnsupportedHash, parse
from extauth.threads import Threads

_log = structlog.get_logger("verifier")

PASSWORD = "password"  # noqa: S105 - the name of the credential that the user's own password is
MOST = 8  # stored values of one user that are tried: a wrong password costs as much as all of them
SILENCE = 60.0  # seconds between two lines about values that can't be judged by


class Verifier:
    """One for each backend. What is slow waits for a thread of `hashing`, and is an outage if none comes free in time.

    Args:
        name: of the backend.
        hashing: the threads for key derivation.
        weak: the schemes of `passwords.stored.WEAK` that the configuration allows.
    """

    def __init__(self, name: str, hashing: Threads, weak: frozenset[str] = frozenset()) -> None:
        self._name = name
        self._hashing = hashing
        self._weak = weak
        self._decoy = _first_decoy()
        self._next_line = -float("inf")
        self._unsaid = 0

    async def check(
        self,
        request: CheckPassword,
        values: Sequence[str],
        attributes: Mapping[str, str] = NOTHING,
        refusal: Reason | None = None,
    ) -> Answer:
        """Tell whether the password is that of one of the user's stored `values`.

        Args:
            request: about the user whose values these are.
            values: as stored; one that can't be judged by matches nothing.
            attributes: of the login.
            refusal: why somebody who knows the password may not log in all the same.

        Raises:
            BackendDown: no thread came free in time.
        """
        found = self._parse(request.identity, values)
        if found:
            self._decoy = found[0]
        right = await self._matches(request.password, found or [self._decoy])
        if not (found and right):
            return Reject(Reason.BAD_PASSWORD)
        return Accept(request.identity, attributes) if refusal is None else Reject(refusal)

    def keys(
        self,
        request: FindKeys,
        values: Sequence[str],
        attributes: Mapping[str, str] = NOTHING,
        refusal: Reason | None = None,
    ) -> Keys | None:
        """Return the user's SCRAM keys for the hash that is asked for, None if none such is stored. Arguments as of `check`."""
        for stored in self._parse(request.identity, values):
            for entry in stored.scram:
                if entry.hash.value == request.hash:
                    candidates = (Candidate(PASSWORD, entry.stored_key, entry.server_key),)
                    return Keys(request.identity, entry.salt, entry.iterations, candidates, self._name, refusal, attributes)
        return None

    async def decoy(self, request: Decoy) -> Answer:
        """Spend as long as a wrong password takes: with a value of the kind that was judged last.

        Raises:
            BackendDown: no thread came free in time.
        """
        await self._matches(request.password, [self._decoy])
        return Reject(Reason.NO_USER)

    async def _matches(self, password: Secret, values: Sequence[Stored]) -> bool:
        """Tell whether the password is one of these. What is quick is done here: the way into a thread and back costs more."""

        def compare() -> bool:
            forms = for_checking(password.reveal())
            return any(stored.verify(forms) for stored in values)

        quick = is_prepared(password.reveal()) and not any(stored.cost for stored in values)
        return compare() if quick else await self._hashing.run(compare)

    def _parse(self, identity: Identity, values: Sequence[str]) -> list[Stored]:
        found: list[Stored] = []
        for value in values[:MOST]:
            try:
                found.append(parse(value, self._weak))
            except UnsupportedHash as error:
                self._tell(identity, str(error))
        return found

    def _tell(self, identity: Identity, problem: str) -> None:
        """Log a value that can't be judged by, without any of it; at most once a minute, since it comes with every login."""
        now = trio.current_time()
        if now < self._next_line:
            self._unsaid += 1
            return
        _log.warning(
            "a stored password can't be used", backend=self._name, user=str(identity), problem=problem, unsaid=self._unsaid
        )
        self._next_line, self._unsaid = now + SILENCE, 0


def _first_decoy() -> Stored:
    """Return keys that nobody's password has."""
    salt, *keys = (b64encode(secrets.token_bytes(length)).decode() for length in (16, 32, 32))
    return parse(f"SCRAM-SHA-256${ADVISED_ITERATIONS}:{salt}${keys[0]}:{keys[1]}")
