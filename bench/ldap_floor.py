"""The contender "ldap3 in threads": a search and a bind with the library alone, on connections that each thread keeps.

`python -m bench.ldap_floor URL CA BASE ACCOUNT THREADS SECONDS` reads the account's password from its standard input, and
prints logins a second and the processor time of one in seconds.
"""

import ssl
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import ldap3

from bench.plain_backend import passwords

_LDAP3 = cast("Any", ldap3)
USERS = list(passwords(1000).items())


def logins(url: str, ca: str, base: str, account: tuple[str, str], threads: int, seconds: float) -> tuple[float, float]:
    """Return how many logins a second the threads make together, and the seconds of processor time that one takes."""

    def connect(user: str | None = None, password: str | None = None) -> Any:  # noqa: ANN401 - ldap3 is not typed
        tls = _LDAP3.Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=ca)
        server = _LDAP3.Server(url, tls=tls, get_info=ldap3.NONE)
        return _LDAP3.Connection(server, user, password, auto_bind=True, auto_referrals=False, check_names=False)

    searching = [connect(*account) for _ in range(threads)]
    binding = [connect() for _ in range(threads)]
    begun, used = time.perf_counter(), time.process_time()

    def work(number: int) -> int:
        done = 0
        while time.perf_counter() < begun + seconds:
            user, password = USERS[(number + done * threads) % len(USERS)]
            searching[number].search(base, f"(uid={user})", attributes=["uid"])
            assert binding[number].rebind(searching[number].response[0]["dn"], password)
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(work, range(threads)))
    return done / (time.perf_counter() - begun), (time.process_time() - used) / done


if __name__ == "__main__":
    url, ca, base, name, threads, seconds = sys.argv[1:]
    print(*logins(url, ca, base, (name, sys.stdin.readline().strip()), int(threads), float(seconds)))
