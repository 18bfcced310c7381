"""What ejabberd's extauth and Prosody's mod_auth_external share: questions of the form `verb:user:host[:password]`.

Sources: ejabberd src/extauth.erl, Prosody mod_auth_external_insecure.lua. Fields are joined with ":" and not escaped; only the
last one, the password, may hold one.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from extauth import jid
from extauth.model import (
    VERDICTS,
    VIA,
    Accept,
    CheckPassword,
    CreateUser,
    Identity,
    Origin,
    Reason,
    RemoveUser,
    Request,
    Secret,
    SetPassword,
    Unavailable,
    UserExists,
    Verdict,
)
from extauth.service import Service
from extauth.sockets import SocketConfig
from extauth.soon import Soon, settle


@dataclass(frozen=True)
class ExternalConfig(SocketConfig):
    """The keys that both protocols have beside those of every socket."""

    outage_reply: Literal["error", "deny"] = "error"  # how "I can't tell" is said: an error in the server's log, or a plain no
    allow_changes: bool = False  # whether the server may set passwords, register and remove accounts


Maker = Callable[[Identity, Origin, Secret], Request]


@dataclass(frozen=True)
class _Verb:
    """What may be asked: by how many fields, of which the first two are user and domain."""

    operation: str
    fields: int
    make: Maker | None
    changes: bool = False
    needs_proof: bool = False


WITH_PASSWORD = 3  # fields

_VERBS = {
    b"auth": _Verb("check-password", WITH_PASSWORD, CheckPassword),
    b"isuser": _Verb("user-exists", 2, lambda i, o, _: UserExists(i, o)),
    b"setpass": _Verb("set-password", WITH_PASSWORD, SetPassword, changes=True),
    b"tryregister": _Verb("create-user", WITH_PASSWORD, CreateUser, changes=True),
    b"removeuser": _Verb("remove-user", 2, lambda i, o, _: RemoveUser(i, o), changes=True),
    b"removeuser3": _Verb("remove-user", WITH_PASSWORD, lambda i, o, _: RemoveUser(i, o), changes=True, needs_proof=True),
    # Known, never sent (ejabberd calls it nowhere), and what its certificate would look like is written nowhere.
    b"certauth": _Verb("check-certificate", WITH_PASSWORD, None),
}
_UNKNOWN = _Verb("unknown", -1, None)
PROSODY_VERBS = {name: _VERBS[name] for name in (b"auth", b"isuser", b"setpass")}
EJABBERD_VERBS = _VERBS

_NOTHING = Secret("")


class Framing(Protocol):
    """Bytes into questions."""

    half: bytearray  # what has arrived of a question whose rest has not

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield complete questions.

        Raises:
            ProtocolError: the rest can't be understood.
        """
        ...


class Replies(NamedTuple):
    """What goes over the wire for yes, no, a password that was not set, and "I can't tell" (None: as a no)."""

    yes: bytes
    no: bytes
    not_set: bytes
    outage: bytes | None


class Conversation:
    """One connection: questions in, replies out, in order."""

    ordered = True

    def __init__(
        self,
        service: Service,
        origin: Origin,
        framing: Framing,
        replies: Replies,
        verbs: Mapping[bytes, _Verb],
        *,
        allow_changes: bool,
    ) -> None:
        self._service = service
        self._origin = origin
        self._framing = framing
        self._replies = replies
        self._verbs = verbs
        self._allow_changes = allow_changes
        self.requests = framing.feed
        self.half = framing.half

    def greet(self) -> bytes:
        """The server speaks first."""
        return b""

    def answer(self, command: bytes) -> Soon[bytes]:
        """Answer one question."""
        name, *fields = command.split(b":", 3)
        verb = self._verbs.get(name, _UNKNOWN)
        verdict = self._ask(verb, fields)
        if isinstance(verdict, Accept):
            return self._replies.yes
        if isinstance(verdict, VERDICTS):
            return self._reply(verb, verdict)
        return self._answer_later(verb, verdict)

    def closed(self) -> None:
        """Nothing is left open."""

    async def _answer_later(self, verb: _Verb, verdict: Awaitable[Verdict]) -> bytes:
        return self._reply(verb, await verdict)

    def _reply(self, verb: _Verb, verdict: Verdict) -> bytes:
        if isinstance(verdict, Accept):
            return self._replies.yes
        if isinstance(verdict, Unavailable) and self._replies.outage:
            return self._replies.outage
        return self._replies.not_set if verb.make is SetPassword else self._replies.no

    def _ask(self, verb: _Verb, fields: list[bytes]) -> Soon[Verdict]:
        """Return the verdict on a question of these fields."""
        if len(fields) != verb.fields:
            return self._refuse(verb, b"", b"", Reason.MALFORMED)
        user, domain = fields[0], fields[1]
        if verb.changes and not self._allow_changes:
            return self._refuse(verb, user, domain, Reason.NOT_ALLOWED)
        if verb.make is None:
            return self._refuse(verb, user, domain, Reason.NOT_SUPPORTED)
        try:
            password = Secret(fields[2].decode()) if verb.fields == WITH_PASSWORD else _NOTHING
        except UnicodeDecodeError:
            return self._refuse(verb, user, domain, Reason.MALFORMED)
        try:
            identity = jid.identity(user.decode(), domain.decode())
        except (jid.InvalidName, UnicodeDecodeError):
            return self._refuse(verb, user, domain, Reason.BAD_NAME)
        if verb.needs_proof:
            return self._prove(CheckPassword(identity, self._origin, password), verb.make)
        return self._service.ask(verb.make(identity, self._origin, password))

    async def _prove(self, check: CheckPassword, make: Maker) -> Verdict:
        """Do what is asked for somebody who knows the account's password."""
        proof: Verdict = await settle(self._service.ask(check))
        if not isinstance(proof, Accept):
            return proof
        if VIA in proof.attributes:  # a token or an app password, which stands for less
            return self._service.refuse(RemoveUser.operation, check.identity, check.origin, Reason.NOT_ALLOWED)
        verdict: Verdict = await settle(self._service.ask(make(check.identity, check.origin, check.password)))
        return verdict

    def _refuse(self, verb: _Verb, user: bytes, domain: bytes, reason: Reason) -> Verdict:
        names = Identity(user.decode(errors="backslashreplace"), domain.decode(errors="backslashreplace"))
        return self._service.refuse(verb.operation, names, self._origin, reason)
