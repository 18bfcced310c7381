"""The contender "asyncpg on uvloop": the look-ups of a login alone, by 32 callers in asyncpg's own loop.

`python -m bench.postgres_floor URL DOMAIN isuser|scram SECONDS` prints logins a second, and the seconds of
processor time that one takes here.
"""

import asyncio
import random
import sys
import time

import asyncpg
import uvloop

from extauth.store.connections import CONNECTIONS

CALLERS = 32
ACCOUNT = "SELECT disabled FROM account WHERE domain = $1 AND name = $2"
KEYS = (
    "SELECT u.iterations, s.salt, k.credential, k.stored_key, k.server_key FROM scram_user u "
    "JOIN scram_salt s ON s.domain = u.domain AND s.name = u.name AND s.hash = $3 "
    "JOIN scram_key k ON k.domain = u.domain AND k.name = u.name AND k.hash = $3 WHERE u.domain = $1 AND u.name = $2"
)


async def logins(url: str, domain: str, work: str, seconds: float) -> tuple[float, float]:
    """Return how many a second were looked up, and the seconds of processor time that one took here."""
    done = 0
    async with asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        begun, used = time.perf_counter(), time.process_time()

        async def call() -> None:
            nonlocal done
            while time.perf_counter() < begun + seconds:
                user = f"u{random.randrange(20):05}"  # noqa: S311
                assert await pool.fetch(ACCOUNT, domain, user)
                if work == "scram":
                    assert await pool.fetch(KEYS, domain, user, "SHA-256")
                done += 1

        await asyncio.gather(*(call() for _ in range(CALLERS)))
        return done / (time.perf_counter() - begun), (time.process_time() - used) / done


if __name__ == "__main__":
    print(*uvloop.run(logins(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))))
