"""A stand-in for the daemon, for tests of the Prosody module: both listeners it talks to, with answers to order.

It runs trio in a thread of its own, so that tests may block.
"""

import base64
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import trio

_HANDSHAKE = b"VERSION\t1\t4\nMECH\tPLAIN\tplaintext\textauth\nSPID\t1\nCUID\t1\nCOOKIE\t%032x\nDONE\n" % 0
_STEPS = 3

Parameters = dict[str, str]


class ProsodyStub:
    """The listeners, started and stopped as often as wanted; a context manager.

    Attributes:
        accounts: password by user.
        logins: the parameters of each AUTH, in the order they came; flags have the value "".
        questions: the parameters of each MECHS.
        account_questions: the texts that came to the accounts' listener.
        cancelled: how many exchanges the client ended.
        held: users whose answers wait until they are released by `release`.
        odd: by user, lines to send instead of the answer; `{id}` stands for the id.
        attributes: by user, further fields of OK, already escaped.
        offered: what to answer MECHS with, by its parameters.
    """

    def __init__(self, folder: Path) -> None:
        self.sasl = folder / "sasl.sock"
        self.accounts_socket = folder / "accounts.sock"
        self.accounts: dict[str, str] = {}
        self.logins: list[Parameters] = []
        self.questions: list[Parameters] = []
        self.account_questions: list[str] = []
        self.cancelled = 0
        self.held: set[str] = set()
        self.odd: dict[str, bytes] = {}
        self.attributes: dict[str, str] = {}
        self.offered: Callable[[Parameters], list[str]] = offer
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Serve; returns when both sockets are there."""
        ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._serve, ready))
        self._thread.start()
        assert ready.wait(10)

    def stop(self) -> None:
        """Close all sockets."""
        if self._thread is None:
            return
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join()
        self._thread = None

    def release(self, user: str) -> None:
        """Let the answers for a held user go."""
        self.held.discard(user)
        self._token.run_sync_soon(lambda: self._released.pop(user, trio.Event()).set())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    async def _serve(self, ready: threading.Event) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._released: defaultdict[str, trio.Event] = defaultdict(trio.Event)
        with trio.CancelScope() as self._scope:
            async with trio.open_nursery() as nursery:
                for path, serve in ((self.sasl, self._login), (self.accounts_socket, self._account)):
                    path.unlink(missing_ok=True)
                    listening = trio.socket.socket(trio.socket.AF_UNIX)
                    await listening.bind(str(path))
                    path.chmod(0o666)
                    listening.listen(100)
                    nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listening)])
                ready.set()

    async def _login(self, stream: trio.SocketStream) -> None:
        connection = _Connection(self, stream)
        try:
            async with trio.open_nursery() as nursery:
                await connection.send(_HANDSHAKE)
                buffer = b""
                async for data in stream:
                    *lines, buffer = (buffer + data).split(b"\n")
                    for line in lines:
                        nursery.start_soon(connection.answer, line.decode())
                nursery.cancel_scope.cancel()
        except* trio.BrokenResourceError:
            pass

    async def _account(self, stream: trio.SocketStream) -> None:
        buffer = b""
        async for data in stream:
            buffer += data
            while len(buffer) > 1 and len(buffer) >= (end := 2 + int.from_bytes(buffer[:2])):
                text, buffer = buffer[2:end].decode(), buffer[end:]
                self.account_questions.append(text)
                await stream.send_all(self._decide(text))

    def _decide(self, text: str) -> bytes:
        verb, user, _domain, *rest = text.split(":", 3)
        password = "".join(rest)
        if user == "outage":
            return b"\0\1\0"
        if user == "twice":
            return b"\0\2\0\1" * 2
        match verb:
            case "auth":
                yes = self.accounts.get(user) == password
            case "isuser":
                yes = user in self.accounts
            case "tryregister":
                yes = user not in self.accounts
                self.accounts.setdefault(user, password)
            case "setpass":
                yes = user in self.accounts and password != "refuse this"
                if yes:
                    self.accounts[user] = password
            case _:
                yes = self.accounts.pop(user, None) is not None
        return b"\0\2\0\1" if yes else b"\0\2\0\0"

    async def wait(self, user: str) -> None:
        """Wait until a user is released, if held."""
        if user in self.held:
            await self._released[user].wait()


class _Connection:
    """One connection of the login listener."""

    def __init__(self, stub: ProsodyStub, stream: trio.SocketStream) -> None:
        self._stub = stub
        self._stream = stream
        self._sending = trio.Lock()
        self._steps: dict[str, int] = {}

    async def send(self, data: bytes) -> None:
        async with self._sending:
            await self._stream.send_all(data)

    async def answer(self, line: str) -> None:
        verb, *fields = line.split("\t")
        match verb:
            case "VERSION" | "CPID":
                return
            case "CANCEL":
                self._stub.cancelled += 1
                return
            case "MECHS":
                answer = self._mechanisms(fields[0], fields[1:]).encode()
            case "AUTH":
                answer = await self._auth(fields[0], fields[1], fields[2:])
            case "CONT":
                answer = self._step(*fields).encode()
            case _:
                message = f"unknown command {verb}"
                raise AssertionError(message)
        await self.send(answer + b"\n")

    def _mechanisms(self, number: str, fields: list[str]) -> str:
        parameters = _parameters(fields)
        self._stub.questions.append(parameters)
        return "\t".join(["MECHS", number, *self._stub.offered(parameters)])

    async def _auth(self, number: str, mechanism: str, fields: list[str]) -> bytes:
        parameters = _parameters(fields) | {"mechanism": mechanism}
        assert "service" in parameters
        assert all(not field.startswith("resp=") for field in fields[:-1])
        self._stub.logins.append(parameters)
        match mechanism:
            case "EXTERNAL":
                assert "valid-client-cert" in parameters
                return f"OK\t{number}\tuser={parameters['cert_username']}".encode()
            case "ANONYMOUS":
                return f"OK\t{number}\tuser=anonymous-{len(self._stub.logins)}".encode()
            case "X-STEPS":
                self._steps[number] = 0
                return self._step(number, parameters.get("resp", "")).encode()
            case _:
                return await self._plain(number, _decoded(parameters["resp"]))

    async def _plain(self, number: str, response: bytes) -> bytes:
        _, user, password = response.decode().split("\0")
        await self._stub.wait(user)
        if user in self._stub.odd:
            return self._stub.odd[user].replace(b"{id}", number.encode())
        if self._stub.accounts.get(user) != password:
            return f"FAIL\t{number}\tuser={user}".encode()
        return f"OK\t{number}\tuser={user}{self._stub.attributes.get(user, '')}".encode()

    def _step(self, number: str, response: str) -> str:
        """Challenge with what came, reversed, three times; the last has no data. The last answer is the user."""
        got = _decoded(response)
        step = self._steps[number]
        self._steps[number] += 1
        if step < _STEPS - 1:
            return f"CONT\t{number}\t{base64.b64encode(got[::-1]).decode()}"
        if step == _STEPS - 1:
            return f"CONT\t{number}\t="
        del self._steps[number]
        return f"OK\t{number}\tuser={got.decode()}\tresp={base64.b64encode(b'done').decode()}"


def offer(parameters: Parameters) -> list[str]:
    """Return what the stub offers by default."""
    if parameters["domain"].startswith("anonymous."):
        return ["ANONYMOUS"]
    names = ["X-STEPS"]
    if "secured" in parameters:
        names.append("PLAIN")
    if "cb" in parameters:
        names.append("SCRAM-SHA-256-PLUS")
    if "cert" in parameters:
        names.append("EXTERNAL")
    return names


def _parameters(fields: list[str]) -> Parameters:
    return {key: value for key, _, value in (field.partition("=") for field in fields)}


def _decoded(text: str) -> bytes:
    return b"" if text == "=" else base64.b64decode(text)
