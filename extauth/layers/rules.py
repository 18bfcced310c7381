"""The keys that any backend's table may have, whatever its type."""

from dataclasses import dataclass, field
from typing import Literal

from extauth.passwords.scram import ADVISED_ITERATIONS, MAX_ITERATIONS, MIN_ITERATIONS
from extauth.templates import Template

DAY = 86_400
MAX_GRACE = 7 * DAY
MAX_REPEATS = 3_600


@dataclass(frozen=True)
class CacheRules:
    """[backend.NAME.cache]: what is remembered of the passwords that the backend has judged; nothing by default."""

    ttl: float = 0.0  # seconds for which an accepted password is accepted again without asking
    grace: float = 0.0  # seconds for which it is accepted while the backend can't tell
    repeats: float = 0.0  # seconds for which a refused password is refused again without asking
    entries: int = 10_000  # of each kind

    def __post_init__(self) -> None:
        if not 0 <= self.ttl <= DAY:
            raise ValueError(f"ttl: must be 0 (off) to {DAY}")
        if not 0 <= self.grace <= MAX_GRACE:
            raise ValueError(f"grace: must be 0 (off) to {MAX_GRACE}")
        if not 0 <= self.repeats <= MAX_REPEATS:
            raise ValueError(f"repeats: must be 0 (off) to {MAX_REPEATS}")
        if self.entries < 1:
            raise ValueError("entries: must be at least 1")

    @property
    def used(self) -> bool:
        """Whether anything is remembered."""
        return max(self.ttl, self.grace, self.repeats) > 0


@dataclass(frozen=True)
class NameRules:
    """[backend.NAME.names]: what the backend calls a user."""

    strip_prefix: str = ""  # users without it are not the backend's
    strip_suffix: str = ""
    template: str = "{user}"

    def __post_init__(self) -> None:
        try:
            Template(self.template)
        except ValueError as error:
            raise ValueError(f"template: {error}") from None
        if self.template.count("{user}") != 1:
            raise ValueError("template: must hold {user} once")

    @property
    def used(self) -> bool:
        """Whether names differ at all."""
        return self != NameRules()


@dataclass(frozen=True)
class Layers:
    """What lies around a backend."""

    cache: CacheRules = field(default_factory=CacheRules)
    names: NameRules = field(default_factory=NameRules)
    learn_scram: Literal["off", "collect", "offer"] = "off"
    learn_days: float = 30.0  # for which learned keys are good after the backend accepted their password
    learn_iterations: int = ADVISED_ITERATIONS
    learn_recheck: bool = True  # whether the backend is asked at each login by them if the user may still log in

    def __post_init__(self) -> None:
        if self.learn_days <= 0:
            raise ValueError("learn_days: must be more than 0")
        if not MIN_ITERATIONS <= self.learn_iterations <= MAX_ITERATIONS:
            raise ValueError(f"learn_iterations: must be {MIN_ITERATIONS} to {MAX_ITERATIONS}")
