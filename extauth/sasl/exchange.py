"""One SASL exchange: drives a mechanism between a client and a court, and does no I/O.

    turn = exchange.begin(initial)
    Challenge    send its data to the client; turn = exchange.respond(response)
    Success      the end
    Failure      the end

Where the court takes its time, a turn is one to be awaited. `abort` ends it from outside at any time. A mechanism is told of
every end once, and whatever it raises stays in its exchange.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from extauth.jid import InvalidName
from extauth.model import VERDICTS, Accept, Keys, Proof, Reason, Request, Unavailable, Verdict
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
from extauth.soon import Soon

__all__ = [
    "TURNS",
    "Challenge",
    "Condition",
    "Court",
    "Exchange",
    "Failure",
    "Options",
    "Stream",
    "Success",
    "Terms",
    "Turn",
    "terms",
]

Turn: TypeAlias = Challenge | Success | Failure
TURNS = (Challenge, Success, Failure)

MAX_MESSAGE = 65536  # bytes of one message of a client

_OVER = Failure("aborted", Reason.ABORTED, text="the exchange is over")
_REASONS: Mapping[Condition, Reason] = {"aborted": Reason.ABORTED, "temporary-auth-failure": Reason.BACKEND_DOWN}


# What an exchange waits for. No enumeration: Python 3.11 takes 0.7 us for each look at one.
_Awaits: TypeAlias = Literal["begin", "initial", "response", "verdict", "nothing"]


class Court(Protocol):
    """Decides what mechanisms ask, and hears how their exchanges fail."""

    def ask(self, request: Request, /) -> Soon[Verdict]:
        """Decide a request. Never raises."""
        ...

    def ask_proven(self, proof: Proof, finding: Request, found: Keys, began: float) -> Soon[Verdict]:
        """Decide a proof by what was `found` by a request of an exchange that began then. Never raises."""
        ...

    def failed(self, terms: "Terms", failure: Failure, last: tuple[Request, Verdict] | None) -> None:
        """Take note of a failure; `last` is what was decided last."""
        ...


class Terms(Struct, frozen=True):
    """On what terms a stream's exchanges by one mechanism are held: the same for streams of which the server tells the same.

    `start` takes the client's first message; or it is why there can be no exchange. `client_first`: see `Mechanism`.
    """

    name: str
    stream: Stream
    start: Callable[[bytes], Talk[Success | Failure]] | Failure
    client_first: bool = True


def terms(
    name: str, stream: Stream, options: Options | None, mechanisms: Mapping[str, Mechanism], offered: Collection[str] | None
) -> Terms:
    """Return the terms of exchanges by the mechanism `name` (upper case).

    `options` are None if the stream's domain is none of ours. `mechanisms` are those that exist (`registry.find`); `offered`
    the names that this stream was offered (None: all that it can have): what is not among them fails.
    """
    mechanism = mechanisms.get(name)
    if options is None:
        return Terms(name, stream, Failure("not-authorized", Reason.UNKNOWN_DOMAIN))
    if mechanism is None:
        return Terms(name, stream, Failure("invalid-mechanism", Reason.NOT_SUPPORTED))
    if mechanism.plaintext and not stream.secure:
        return Terms(name, stream, Failure("encryption-required", Reason.NOT_ENCRYPTED))
    if not mechanism.fits(stream) or (offered is not None and name not in offered):
        return Terms(name, stream, Failure("invalid-mechanism", Reason.NOT_SUPPORTED))
    # Whether the client was offered a mechanism with channel binding: as the server says, else as we would.
    known = [mechanisms.get(other) for other in stream.advertised or (mechanisms if offered is None else offered)]
    binding = any(other is not None and other.name.endswith("-PLUS") and other.fits(stream) for other in known)
    session = Session(name, stream, options, replace(stream.origin, mechanism=name), binding)
    return Terms(name, stream, partial(mechanism.run, session), mechanism.client_first)


class Exchange:
    """One client's run of a mechanism. `began` is in the court's time."""

    __slots__ = ("_awaits", "_began", "_court", "_found", "_last", "_talk", "_terms")

    def __init__(self, terms: Terms, court: Court, began: float = 0.0) -> None:
        self._terms = terms
        self._court = court
        self._began = began
        self._talk: Talk[Success | Failure] | None = None
        self._awaits: _Awaits = "begin"
        self._last: tuple[Request, Verdict] | None = None
        self._found: tuple[Request, Keys] | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._awaits == "nothing"

    def begin(self, initial: bytes | None) -> Soon[Turn]:
        """Start with the client's initial response (None: it sent none; b"": it sent an empty one)."""
        if self._awaits != "begin":
            return self._misuse()
        if initial is None and self._terms.client_first and not isinstance(self._terms.start, Failure):
            self._awaits = "initial"
            return Challenge(b"")  # RFC 4422 section 5
        return self._start(initial or b"")

    def respond(self, data: bytes) -> Soon[Turn]:
        """Go on with the client's response to a challenge. One that nobody asked for ends the exchange."""
        if self._awaits == "initial":
            return self._start(data)
        if self._awaits != "response" or len(data) > MAX_MESSAGE:
            return self._misuse()
        return self._go_on(data)

    def refuse(self, condition: Condition, reason: Reason | None = None) -> Failure:
        """End it from outside: say, by "incorrect-encoding" for a response that is no base64."""
        return self._end(Failure(condition, reason or _REASONS.get(condition, Reason.MALFORMED)))

    def abort(self) -> Failure:
        """End it because the client gave up or has gone. The mechanism's clean-up runs once, however often this is called."""
        return self.refuse("aborted")

    # Between the client and the court -------------------------------------------------------------------------------------

    def _start(self, initial: bytes) -> Soon[Turn]:
        start = self._terms.start
        if isinstance(start, Failure):
            return self._end(start)
        if len(initial) > MAX_MESSAGE:
            return self.refuse("malformed-request")
        try:
            self._talk = start(initial)
        except Exception as error:
            return self._fail(error)
        return self._go_on(None)

    def _go_on(self, value: bytes | Verdict | None) -> Soon[Turn]:
        """Let the mechanism go on until the client or the court has to be waited for."""
        try:
            assert self._talk is not None
            send = self._talk.send
            while True:
                step = send(value)
                if isinstance(step, Challenge):
                    self._awaits = "response"
                    return step
                if not isinstance(step, Request):  # pyright: ignore[reportUnnecessaryIsInstance]  # other people write mechanisms
                    raise TypeError("a mechanism yielded neither a challenge nor a request")
                if self._found is not None and isinstance(step, Proof):
                    verdict = self._court.ask_proven(step, *self._found, self._began)
                else:
                    verdict = self._court.ask(step)
                if not isinstance(verdict, VERDICTS):
                    self._awaits = "verdict"
                    return self._go_on_later(step, verdict)
                if (failure := self._hear(step, verdict)) is not None:
                    return failure
                value = verdict
        except StopIteration as stop:
            return self._finish(stop.value)
        except Exception as error:
            return self._fail(error)

    async def _go_on_later(self, request: Request, awaited: Awaitable[Verdict]) -> Turn:
        verdict = await awaited
        if self.over:
            return _OVER
        turn = self._hear(request, verdict) or self._go_on(verdict)
        return turn if isinstance(turn, TURNS) else await turn

    def _hear(self, request: Request, verdict: Verdict) -> Failure | None:
        """Take note of a verdict. An outage ends the exchange: no mechanism has to know of it."""
        self._last = request, verdict
        if isinstance(verdict, Keys):
            self._found = request, verdict
        if isinstance(verdict, Unavailable):
            return self._end(Failure("temporary-auth-failure", verdict.reason, temporary=True, text=verdict.detail))
        return None

    def _finish(self, word: object) -> Success | Failure:
        """Take a mechanism's last word: a success only for an identity that the court has accepted."""
        if isinstance(word, Failure):
            return self._end(word)
        accepted = self._last[1] if self._last is not None else None
        if isinstance(word, Success) and isinstance(accepted, Accept) and word.identity == accepted.identity:
            self._awaits = "nothing"
            self._talk = None
            return word
        return self._fail(TypeError("a mechanism ended with neither a failure nor an accepted identity"))

    def _fail(self, error: Exception) -> Failure:
        if isinstance(error, Refused):
            return self._end(error.failure)
        if isinstance(error, InvalidName):
            return self._end(Failure("not-authorized", Reason.BAD_NAME, text=str(error)))
        return self._end(Failure("temporary-auth-failure", Reason.BUG, temporary=True, bug=error))

    def _end(self, failure: Failure) -> Failure:
        if self.over:
            return _OVER
        self._awaits = "nothing"
        talk, self._talk = self._talk, None
        if talk is not None:
            try:
                talk.close()
            except Exception as error:
                failure = replace(failure, bug=error)
        self._court.failed(self._terms, failure, self._last)
        return failure

    def _misuse(self) -> Failure:
        """A message out of turn: after the end it changes nothing, before it ends the exchange."""
        return self.refuse("malformed-request")
