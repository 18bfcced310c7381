"""The keys that any backend's table may have, whatever its type."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from extauth.passwords.scram import ADVISED_ITERATIONS, MAX_ITERATIONS, MIN_ITERATIONS
from extauth.templates import Template
from extauth.values import Checked

DAY = 86_400
MAX_GRACE = 7 * DAY
MAX_REPEATS = 3_600


@dataclass(frozen=True)
class CacheRules(Checked):
    """[backend.NAME.cache]: what is remembered of the passwords that the backend has judged; nothing by default."""

    ttl: float = 0.0  # seconds for which an accepted password is accepted again without asking
    grace: float = 0.0  # seconds for which it is accepted while the backend can't tell
    repeats: float = 0.0  # seconds for which a refused password is refused again without asking
    entries: int = 10_000  # of each kind

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        if not 0 <= self.ttl <= DAY:
            yield f"ttl: must be 0 (off) to {DAY}"
        if not 0 <= self.grace <= MAX_GRACE:
            yield f"grace: must be 0 (off) to {MAX_GRACE}"
        if not 0 <= self.repeats <= MAX_REPEATS:
            yield f"repeats: must be 0 (off) to {MAX_REPEATS}"
        yield from self.not_positive("entries")

    @property
    def used(self) -> bool:
        """Whether anything is remembered."""
        return max(self.ttl, self.grace, self.repeats) > 0


@dataclass(frozen=True)
class NameRules(Checked):
    """[backend.NAME.names]: what the backend calls a user."""

    strip_prefix: str = ""  # users without it are not the backend's
    strip_suffix: str = ""
    template: str = "{user}"

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        try:
            Template(self.template)
        except ValueError as error:
            yield f"template: {error}"
        else:
            if self.template.count("{user}") != 1:
                yield "template: must hold {user} once"

    @property
    def used(self) -> bool:
        """Whether names differ at all."""
        return self != NameRules()


@dataclass(frozen=True)
class Layers(Checked):
    """What lies around a backend."""

    cache: CacheRules = field(default_factory=CacheRules)
    names: NameRules = field(default_factory=NameRules)
    learn_scram: Literal["off", "collect", "offer"] = "off"
    learn_days: float = 30.0  # for which learned keys are good after the backend accepted their password
    learn_iterations: int = ADVISED_ITERATIONS
    learn_recheck: bool = True  # whether the backend is asked at each login by them if the user may still log in

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        yield from self.not_positive("learn_days")
        if not MIN_ITERATIONS <= self.learn_iterations <= MAX_ITERATIONS:
            yield f"learn_iterations: must be {MIN_ITERATIONS} to {MAX_ITERATIONS}"
