"""The keys of a `tokens` backend."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

from extauth.tokens.kinds import ACCESS, DAY, GUEST, REFRESH
from extauth.values import Checked

LONGEST_GRACE = 10  # seconds: as long as a successor may be asked for again, a thief may, too
MOST_SESSIONS = 1000
MOST_APP_PASSWORDS = 12  # with the password itself and some temporary tokens they are candidates of SCRAM

_IN_ORDER = (("access_lifetime", "refresh_lifetime", "session_lifetime"), ("relogin_lifetime", "session_lifetime"))


@dataclass(frozen=True)
class Config(Checked):
    """[backend.tokens]: lifetimes are in seconds."""

    mode: Literal["rotating", "mongooseim"] = "rotating"
    access_lifetime: int = ACCESS.lifetime
    refresh_lifetime: int = REFRESH.lifetime
    session_lifetime: int = 90 * DAY  # after which a device has to log in by a password again, whatever it did meanwhile
    guest_lifetime: int = GUEST.lifetime
    grace: int = LONGEST_GRACE  # for a refresh token whose successor got lost on its way
    max_sessions: int = 20  # of one user, and devices with FAST tokens; one more ends the oldest
    revocable_access: bool = False  # whether access tokens end with their session, for a look into the store at each login
    relogin_lifetime: int = 120  # of a session of relogin keys, from its last use
    relogin_key: Literal["opaque", "jwt"] = "opaque"
    bind_cookie: bool = False  # whether sessions of relogin keys have to be bound to a cookie
    temporary_lifetime: int = 60
    fast_lifetime: int = 21 * DAY  # of FAST tokens
    max_app_passwords: int = 10  # of one user
    scram_credentials: bool = True  # whether app passwords and temporary tokens are good for SCRAM, too
    refresh_returns: Literal["access", "refresh"] = "access"  # mode "mongooseim": what a login by a refresh token gives
    token_secret_file: str | None = None  # mode "mongooseim": a key shared with MongooseIM
    provision_pre_shared_file: str | None = None  # the key of whoever makes provision tokens

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, each with its keys."""
        lifetimes = {field.name: getattr(self, field.name) for field in fields(self) if field.name.endswith("_lifetime")}
        off = {key for key, lifetime in lifetimes.items() if not 0 < lifetime <= 10_000 * DAY}
        yield from (f"{key}: must be 1 second to 10000 days" for key in lifetimes if key in off)
        for keys in _IN_ORDER:
            chosen = [lifetimes[key] for key in keys]
            if chosen != sorted(chosen) and off.isdisjoint(keys):
                yield f"{', '.join(keys)}: must be in order"
        if not 0 <= self.grace <= LONGEST_GRACE:
            yield f"grace: must be 0 to {LONGEST_GRACE} seconds"
        if not 1 <= self.max_sessions <= MOST_SESSIONS:
            yield f"max_sessions: must be 1 to {MOST_SESSIONS}"
        if not 0 <= self.max_app_passwords <= MOST_APP_PASSWORDS:
            yield f"max_app_passwords: must be 0 to {MOST_APP_PASSWORDS}"
        if self.mode == "rotating" and self.token_secret_file is not None:
            yield 'token_secret_file: another server\'s tokens know no families; it needs mode = "mongooseim"'
