"""The saslauthd listener, by its own strings and by Cyrus SASL's client."""

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from extauth.errors import ProtocolError
from extauth.listeners.saslauthd import Config, Conversation
from extauth.model import Origin
from extauth.service import Service
from tests import needs
from tests.daemons import Daemon, configuration, serve_here

SASLAUTHD = """
[listener.saslauthd]
protocol = "saslauthd"
address = "unix:{folder}/mux"
domain = "xmpp.test"
"""


def strings(*values: bytes) -> bytes:
    return b"".join(len(value).to_bytes(2) + value for value in values)


async def ask(folder: Path, data: bytes) -> bytes:
    stream = await trio.open_unix_socket(str(folder / "mux"))
    async with stream:
        await stream.send_all(data)
        reply = b""
        while chunk := await stream.receive_some():
            reply += chunk
    return reply


@pytest.mark.parametrize(
    ("question", "reply"),
    [
        (strings(b"alice", b"fake right", b"imap", b""), b"OK"),
        (strings(b"alice@xmpp.test", b"fake right", b"imap", b""), b"OK"),
        (strings(b"alice", b"fake right", b"imap", b"xmpp.test"), b"OK"),
        (strings(b"slow", b"fake slow", b"imap", b"xmpp.test"), b"OK"),
        (strings(b"alice", b"fake right", b"imap", b"xmpp.test", b"192.0.2.1"), b"OK"),  # a client that tells its address
        (strings(b"alice", b"fake wrong", b"imap", b""), b"NO authentication failed"),
        (strings(b"bob", b"fake right", b"imap", b""), b"NO authentication failed"),
        (strings(b"alice", b"fake right", b"imap", b"other.test"), b"NO authentication failed"),
        (strings(b"alice", b"", b"imap", b""), b"NO authentication failed"),
        (strings(b"", b"fake right", b"imap", b""), b"NO authentication failed"),
        (strings(b"\xff", b"fake right", b"imap", b""), b"NO authentication failed"),
        (strings(b"alice", b"\xff", b"imap", b""), b"NO authentication failed"),
        (strings(b"down", b"fake right", b"imap", b""), b"NO temporary failure"),
    ],
)
async def test_one_question_one_answer(tmp: Path, autojump_clock: object, question: bytes, reply: bytes) -> None:
    async with serve_here(tmp, configuration(tmp) + SASLAUTHD.format(folder=tmp)):
        assert await ask(tmp, question) == strings(reply)


async def test_a_question_that_comes_byte_by_byte(tmp: Path) -> None:
    async with serve_here(tmp, configuration(tmp) + SASLAUTHD.format(folder=tmp)):
        stream = await trio.open_unix_socket(str(tmp / "mux"))
        async with stream:
            for byte in strings(b"alice", b"fake right", b"imap", b""):
                await stream.send_all(bytes([byte]))
                await trio.lowlevel.checkpoint()
            assert await stream.receive_some() == strings(b"OK")


async def test_a_string_of_too_many_bytes_closes_the_connection(tmp: Path) -> None:
    async with serve_here(tmp, configuration(tmp) + SASLAUTHD.format(folder=tmp)) as served:
        assert await ask(tmp, b"\xff\xff" + b"a" * 70000) == b""
        assert await served.decisions() == []


async def test_who_says_nothing_is_hung_up_on(tmp: Path, autojump_clock: object) -> None:
    async with serve_here(tmp, configuration(tmp) + SASLAUTHD.format(folder=tmp)):
        stream = await trio.open_unix_socket(str(tmp / "mux"))
        async with stream:
            with trio.fail_after(Config().request_timeout + 2):
                assert await stream.receive_some() == b""


@given(st.lists(st.binary(max_size=2000), max_size=8))
def test_any_bytes_are_a_question_of_four_strings_or_close(chunks: list[bytes]) -> None:
    conversation = Conversation(cast("Service", None), Origin("test"), Config())
    with suppress(ProtocolError):
        for chunk in chunks:
            for question in conversation.requests(chunk):
                assert strings(*question) in b"".join(chunks)
                assert len(question) == 4


@needs.debian("saslauthd")
def test_cyrus_own_client(tmp: Path) -> None:
    with Daemon(tmp, configuration(tmp) + SASLAUTHD.format(folder=tmp)):
        assert _testsaslauthd(tmp, "fake right") == 0
        assert _testsaslauthd(tmp, "fake wrong") != 0


def _testsaslauthd(folder: Path, password: str) -> int:
    program = shutil.which("testsaslauthd", path="/usr/sbin:/usr/bin") or "testsaslauthd"
    command = [program, "-u", "alice", "-p", password, "-f", str(folder / "mux"), "-s", "imap"]
    return subprocess.run(command, check=False, capture_output=True).returncode
