"""The contender "cryptography's PBKDF2": the primitive alone, in as many threads as there are processors.

`python -m bench.primitive ITERATIONS SECONDS` prints derivations a second, and the processor time of one in seconds.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC


def derivations(iterations: int, seconds: float) -> tuple[float, float]:
    """Return how many a second all processors make together, and the seconds of processor time that one takes."""
    count = os.cpu_count() or 1
    begun, used = time.perf_counter(), time.process_time()

    def work(_: int) -> int:
        done = 0
        while time.perf_counter() < begun + seconds:
            PBKDF2HMAC(SHA256(), 32, b"0123456789abcdef", iterations).derive(b"secret-00000")
            done += 1
        return done

    with ThreadPoolExecutor(count) as threads:
        done = sum(threads.map(work, range(count)))
    return done / (time.perf_counter() - begun), (time.process_time() - used) / done


if __name__ == "__main__":
    print(*derivations(int(sys.argv[1]), float(sys.argv[2])))
