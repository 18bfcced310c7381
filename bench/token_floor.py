"""The contender "bare epoll" for tokens: the least Python that makes the same checks. No audit, no counters, no limits.

python -m bench.token_floor FORMAT SECRET_FILE SOCKET
"""

import base64
import binascii
import hmac
import struct
import sys
import time
from functools import cache
from hashlib import sha256
from pathlib import Path

from bench.bare_server import NO, YES, loop

YEAR_ZERO = 62_167_219_200


def x_oauth(secret: bytes, user: str, host: str, text: str) -> bool:
    """Check an access token of X-OAUTH."""
    body, _, mac = base64.b64decode(text, validate=True).rpartition(b"\0")
    kind, jid, expires = body.split(b"\0")
    return (
        hmac.compare_digest(hmac.digest(secret, body, "sha384").hex().encode(), mac)
        and kind == b"access"
        and jid.decode() == f"{user}@{host}"
        and time.time() < int(expires) - YEAR_ZERO
    )


@cache
def key_id(secret: bytes) -> bytes:
    """Return by what xcauth's tokens name the secret: derived once, as anybody would."""
    return sha256(secret).digest()[:2]


def xcauth(secret: bytes, user: str, host: str, text: str) -> bool:
    """Check a time-limited token of xcauth."""
    data = base64.b64decode(text.replace("-", "O").replace("$", "I").replace("%", "l") + "=", validate=True)
    mac, key, expires = data[1:17], data[17:19], data[19:]
    signed = b"\0" + key + expires + f"{user}@{host}".encode()
    return (
        data[0] == 0
        and len(data) == 23
        and key == key_id(secret)
        and time.time() <= struct.unpack(">I", expires)[0]
        and hmac.compare_digest(hmac.digest(secret, signed, "sha256")[:16], mac)
    )


def serve(name: str, secret_file: str, path: str) -> None:
    """Serve until ended."""
    secret = Path(secret_file).read_bytes()
    check = {"x-oauth": x_oauth, "xcauth": xcauth}[name]

    def answer(question: str) -> bytes:
        _, user, host, text = question.split(":", 3)
        try:
            return YES if check(secret, user, host, text) else NO
        except (ValueError, binascii.Error):
            return NO

    loop(path, answer)


if __name__ == "__main__":
    serve(*sys.argv[1:])
