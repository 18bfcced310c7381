"""A small web application by https, as sites have them: accounts, and the three kinds of API that `extauth_http` asks."""

import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

SECRET = "fake-shared-secret"
AUTHORIZATION = "Bearer fake-application-token"

Reply = tuple[int, str]


class _Server(ThreadingHTTPServer):
    request_queue_size = 128


class WebApp:
    """A context manager that serves while it is entered.

    `requests` holds method and path of what came; `fault`, where set, answers everything in place of the application.
    """

    def __init__(self, pem: Path, accounts: Mapping[tuple[str, str], str]) -> None:
        self.accounts = dict(accounts)
        self.requests: list[str] = []
        self.fault: Reply | None = None
        app = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65536  # a response is one packet

            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"] or 0)))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

            def _answer(self, body: bytes) -> None:
                app.requests.append(f"{self.command} {urlsplit(self.path).path}")
                status, text = app.fault or app.answer(self.command, self.path, dict(self.headers), body)
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = _Server(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def port(self) -> int:
        """The port of 127.0.0.1."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer one request."""
        path, query = urlsplit(target).path, urlsplit(target).query
        form = {name: values[0] for name, values in parse_qs(query or body.decode(), keep_blank_values=True).items()}
        if path == "/jsxc":
            return self._jsxc(form, headers, body)
        if headers.get("Authorization") != AUTHORIZATION:
            return 407, ""
        if path == "/check":
            return self._check(json.loads(body) if headers["Content-Type"] == "application/json" else form)
        return self._mongooseim(method, path.removeprefix("/mi/"), form)

    def _jsxc(self, form: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Reply:
        algorithm, _, signature = headers.get("X-JSXC-SIGNATURE", "").partition("=")
        if not hmac.compare_digest(signature, hmac.new(SECRET.encode(), body, getattr(hashlib, algorithm)).hexdigest()):
            return 200, '{"result":"error","data":{"msg":"signature invalid"}}'
        key = (form["username"], form["domain"])
        if form["operation"] == "isuser":
            return 200, json.dumps({"result": "success", "data": {"isUser": key in self.accounts}})
        if self.accounts.get(key) != form["password"]:
            return 200, '{"result":"noauth"}'
        return 200, json.dumps({"result": "success", "data": {"uid": form["username"]}})

    def _check(self, form: Mapping[str, str]) -> Reply:
        key = (form["username"], form["domain"])
        if key not in self.accounts:
            return 404, "{}"
        right = self.accounts[key] == form["password"]
        return 200, json.dumps({"ok": right, "account": {"name": form["username"], "role": "staff"}})

    def _mongooseim(self, method: str, endpoint: str, form: Mapping[str, str]) -> Reply:
        key, password = (form["user"], form["server"]), form["pass"]
        known = key in self.accounts
        if (method, endpoint) == ("GET", "check_password"):
            return 200, str(known and self.accounts[key] == password).lower()
        if (method, endpoint) == ("GET", "user_exists"):
            return 200, str(known).lower()
        if (method, endpoint) == ("POST", "register"):
            if known:
                return 409, "user exists"
            self.accounts[key] = password
            return 201, ""
        if not known:
            return 404, ""
        if (method, endpoint) == ("POST", "set_password"):
            self.accounts[key] = password
            return 204, ""
        if (method, endpoint) == ("POST", "remove_user"):
            del self.accounts[key]
            return 204, ""
        return 400, ""
