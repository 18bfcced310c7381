"""One SASL exchange: drives a mechanism and does no I/O.

    step = exchange.begin(initial)
    Challenge    send its data to the client; step = exchange.respond(response)
    Request      ask the authority;           step = exchange.resume(verdict)
    Success      the end
    Failure      the end

`abort` ends it from outside at any time. A mechanism is told of every end once, and whatever it raises stays in its exchange.
"""

from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

from msgspec.structs import replace

from extauth.jid import InvalidName
from extauth.model import Accept, Identity, Reason, Request, Unavailable, Verdict
from extauth.sasl.mechanism import (
    Challenge,
    Condition,
    Failure,
    Mechanism,
    Options,
    Refused,
    Session,
    Stream,
    Success,
    Talk,
)

__all__ = ["Challenge", "Condition", "Exchange", "Failure", "Options", "Step", "Stream", "Success"]

Step: TypeAlias = Challenge | Request | Success | Failure

MAX_MESSAGE = 65536  # bytes of one message of a client

_OVER = Failure("aborted", Reason.ABORTED, text="the exchange is over")
_REASONS: Mapping[Condition, Reason] = {"aborted": Reason.ABORTED, "temporary-auth-failure": Reason.BACKEND_DOWN}


# What an exchange waits for. No enumeration: Python 3.11 takes 0.7 us for each look at one.
_Awaits: TypeAlias = Literal["begin", "response", "verdict", "nothing"]


class Exchange:
    """One client's run of the mechanism `name` (upper case).

    `mechanisms` are those that exist (`registry.find`); `offered` the names that this stream was offered (None: all that it can
    have): what is not among them fails.
    """

    __slots__ = ("_accepted", "_awaits", "_mechanism", "_mechanisms", "_offered", "_options", "_stream", "_talk", "name")

    def __init__(
        self,
        name: str,
        stream: Stream,
        options: Options,
        mechanisms: Mapping[str, Mechanism],
        offered: Collection[str] | None = None,
    ) -> None:
        self.name = name
        self._stream = stream
        self._options = options
        self._mechanisms = mechanisms
        self._offered = offered
        self._mechanism = mechanisms.get(name)
        self._talk: Talk[Success | Failure] | None = None
        self._awaits: _Awaits = "begin"
        self._accepted: Identity | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._awaits == "nothing"

    def begin(self, initial: bytes | None) -> Step:
        """Start with the client's initial response (None: it sent none; b"": it sent an empty one)."""
        if self._awaits != "begin":
            return self._misuse()
        mechanism = self._mechanism
        if mechanism is None:
            return self.refuse("invalid-mechanism", Reason.NOT_SUPPORTED)
        if mechanism.plaintext and not self._stream.secure:
            return self.refuse("encryption-required", Reason.NOT_ENCRYPTED)
        if not mechanism.fits(self._stream) or (self._offered is not None and self.name not in self._offered):
            return self.refuse("invalid-mechanism", Reason.NOT_SUPPORTED)
        if initial is not None and len(initial) > MAX_MESSAGE:
            return self.refuse("malformed-request")
        origin = replace(self._stream.origin, mechanism=self.name)
        session = Session(self.name, self._stream, self._options, origin, self._offers_binding)
        try:
            self._talk = mechanism.run(session, initial)
        except Exception as bug:
            return self._fail(bug)
        return self._advance(None)

    def respond(self, data: bytes) -> Step:
        """Go on with the client's response to a challenge. One that nobody asked for ends the exchange."""
        if self._awaits != "response":
            return self._misuse()
        if len(data) > MAX_MESSAGE:
            return self.refuse("malformed-request")
        return self._advance(data)

    def resume(self, verdict: Verdict) -> Step:
        """Go on with the authority's verdict on a request."""
        if self._awaits != "verdict":
            return self._misuse()
        if isinstance(verdict, Accept):
            self._accepted = verdict.identity
        elif isinstance(verdict, Unavailable):
            ended = self.refuse("temporary-auth-failure", verdict.reason)
            return replace(ended, temporary=True, text=verdict.detail)
        else:
            self._accepted = None
        return self._advance(verdict)

    def refuse(self, condition: Condition, reason: Reason | None = None) -> Failure:
        """End it from outside: say, by "incorrect-encoding" for a response that is no base64."""
        if self.over:
            return _OVER
        self._awaits = "nothing"
        talk, self._talk = self._talk, None
        bug = None
        if talk is not None:
            try:
                talk.close()
            except Exception as error:
                bug = error
        return Failure(condition, reason or _REASONS.get(condition, Reason.MALFORMED), bug=bug)

    def abort(self) -> Failure:
        """End it because the client gave up or has gone. The mechanism's clean-up runs once, however often this is called."""
        return self.refuse("aborted")

    def _misuse(self) -> Failure:
        """A message out of turn: after the end it changes nothing, before it ends the exchange."""
        return _OVER if self.over else self.refuse("malformed-request")

    def _offers_binding(self) -> bool:
        """Tell whether the client was offered a mechanism with channel binding: as the server says, else as we would."""
        offered = self._stream.advertised or self._offered
        if offered is None:
            offered = self._mechanisms
        known = (self._mechanisms.get(name) for name in offered)
        return any(m is not None and m.name.endswith("-PLUS") and m.fits(self._stream) for m in known)

    def _advance(self, value: bytes | Verdict | None) -> Step:
        try:
            assert self._talk is not None
            step = self._talk.send(value)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as stop:
            return self._finish(stop.value)
        except Exception as error:
            return self._fail(error)
        if isinstance(step, Request):
            self._awaits = "verdict"
        elif isinstance(step, Challenge):  # pyright: ignore[reportUnnecessaryIsInstance]  # other people write mechanisms
            self._awaits = "response"
        else:
            ended = self.refuse("temporary-auth-failure", Reason.BUG)
            return replace(ended, temporary=True, bug=TypeError("a mechanism yielded neither a challenge nor a request"))
        return step

    def _finish(self, step: object) -> Success | Failure:
        """Take a mechanism's last word: a success only for an identity that the authority has accepted."""
        if (isinstance(step, Success) and step.identity == self._accepted) or isinstance(step, Failure):
            self._awaits = "nothing"
            self._talk = None
            return step
        return self._fail(TypeError("a mechanism ended with neither a failure nor an accepted identity"))

    def _fail(self, error: Exception) -> Failure:
        self._awaits = "nothing"
        self._talk = None
        if isinstance(error, Refused):
            return error.failure
        if isinstance(error, InvalidName):
            return Failure("not-authorized", Reason.BAD_NAME, text=str(error))
        return Failure("temporary-auth-failure", Reason.BUG, temporary=True, bug=error)
