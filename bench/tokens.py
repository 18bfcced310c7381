"""The servers that check tokens, and the tokens that are shown to them."""

import base64
import hashlib
import hmac
import os
import sys
import time
from pathlib import Path

from bench.servers import Process
from extauth.tokens import xoauth
from extauth.tokens.kinds import ACCESS
from extauth.tokens.xoauth import Token

HOSTS = {"x-oauth": "x-oauth.example.org", "xcauth": "xcauth.example.org"}
SECRET = b"a fake secret of the measurement"
LIFETIME = 86_400  # seconds
USERS = 1000

CONFIGURATION = """
    [backend.x-oauth]
    type = "tokens"
    mode = "mongooseim"
    token_secret_file = "{secret}"
    [backend.xcauth]
    type = "signed"
    format = "xcauth"
    secret_files = ["{secret}"]
    [domain."x-oauth.example.org"]
    backends = ["x-oauth"]
    [domain."xcauth.example.org"]
    backends = ["xcauth"]
"""


def prepare(folder: Path) -> tuple[str, dict[str, Path]]:
    """Write the secret and, by format, a file of users and their tokens. Return what the daemon is configured with, too."""
    secret = folder / "secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    files: dict[str, Path] = {}
    expires = int(time.time()) + LIFETIME
    for name, make in (("x-oauth", _x_oauth), ("xcauth", _xcauth)):
        files[name] = folder / f"{name}.users"
        lines = [f"u{number:05}:{make(f'u{number:05}@{HOSTS[name]}', expires)}\n" for number in range(USERS)]
        files[name].write_text("".join(lines))
    return CONFIGURATION.format(secret=secret), files


def floor(folder: Path, name: str) -> Process:
    """Return the least that checks tokens of a format."""
    path = folder / f"{name}.sock"
    command = [sys.executable, "-m", "bench.token_floor", name, str(folder / "secret"), str(path)]
    return Process(folder / f"bare-{name}", path, command)


def peer(folder: Path) -> Process | None:
    """Return xcauth, if the variable XCAUTH names the folder of its source; systemd-socket-activate hands it its socket."""
    source = os.environ.get("XCAUTH")
    if source is None:
        return None
    path = folder / "xcauth-itself.sock"
    logs = folder / "xcauth"
    command = ["systemd-socket-activate", f"--listen={path}", "--fdname=ejabberd", "/usr/bin/python3", f"{source}/xcauth.py"]
    options = ["-t", "ejabberd", "-u", "http://127.0.0.1:9/", "-s", SECRET.decode(), "-l", str(logs), "--db", f"{logs}/db"]
    return Process(logs, path, [*command, *options])


def _x_oauth(jid: str, expires: int) -> str:
    return xoauth.encode(xoauth.seal(Token(ACCESS.name, jid, expires, {}), SECRET))


def _xcauth(jid: str, expires: int) -> str:
    """Make a token as Nextcloud's JSXC does."""
    key, until = hashlib.sha256(SECRET).digest()[:2], expires.to_bytes(4)
    mac = hmac.digest(SECRET, b"\0" + key + until + jid.encode(), "sha256")[:16]
    text = base64.b64encode(b"\0" + mac + key + until).decode().rstrip("=")
    return text.replace("O", "-").replace("I", "$").replace("l", "%")
