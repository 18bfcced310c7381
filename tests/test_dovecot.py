"""The dovecot listener on the wire: the dialogues of its peers, and what must never happen to them."""

import base64
import hashlib
import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scramp
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from extauth.daemon import open_without_listeners
from extauth.errors import ProtocolError
from extauth.journal import audit_line
from extauth.lines import Lines
from extauth.listeners import dovecot
from extauth.model import Accept, CreateUser, Identity, Origin, RemoveUser, Request, Secret, SetEnabled, SetPassword
from extauth.service import Service
from extauth.soon import settle
from extauth.store import sqlite
from tests import needs
from tests.daemons import Daemon, configuration, read, serve_here, with_local_accounts

SASL = """
[listener.sasl]
protocol = "dovecot"
address = "unix:{folder}/sasl.sock"
max_pending = 256
{more}
"""
GOOD = base64.b64encode(b"\0alice\0fake right").decode()
BAD = base64.b64encode(b"\0alice\0fake wrong").decode()
SLOW = base64.b64encode(b"\0slow\0fake slow").decode()
DOWN = base64.b64encode(b"\0down\0fake").decode()
REFUSED = "reason=Authentication failed"
ALICE = Identity("alice", "xmpp.test")
ADMIN = Origin("test")


class Peer:
    """A server that speaks the protocol to us."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._rest = b""

    async def line(self) -> str:
        while b"\n" not in self._rest:
            chunk = await self._stream.receive_some()
            if not chunk:
                return "closed"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def say(self, *lines: str) -> None:
        await self._stream.send_all("".join(f"{line}\n" for line in lines).encode())

    async def ask(self, line: str) -> str:
        await self.say(line)
        return await self.line()

    async def handshake(self, minor: int = 1) -> list[str]:
        lines: list[str] = []
        while not lines or lines[-1] != "DONE":
            lines.append(await self.line())
        await self.say(f"VERSION\t1\t{minor}", "CPID\t5")
        return lines


@asynccontextmanager
async def peer_of(folder: Path, more: str = "", minor: int = 1) -> AsyncGenerator[tuple[Peer, Service], None]:
    async with serve_here(folder, configuration(folder) + SASL.format(folder=folder, more=more)) as served:
        async with await served.connect("sasl") as stream:
            peer = Peer(stream)
            await peer.handshake(minor)
            yield peer, served.service


async def test_the_handshake_comes_at_once_and_in_the_order_that_postfix_and_exim_need(tmp: Path) -> None:
    async with serve_here(tmp, configuration(tmp) + SASL.format(folder=tmp, more="")) as served:
        async with await served.connect("sasl") as stream:
            lines = await Peer(stream).handshake()
    verbs = [line.split("\t")[0] for line in lines]
    assert verbs == ["VERSION", "MECH", "MECH", "SPID", "CUID", "COOKIE", "DONE"]
    assert lines[1:3] == ["MECH\tPLAIN\tplaintext\textauth", "MECH\tLOGIN\tplaintext\textauth"]  # passwords alone: no SCRAM
    assert lines[0].startswith("VERSION\t1\t")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (f"AUTH\t1\tPLAIN\tservice=xmpp\tresp={GOOD}", "OK\t1\tuser=alice"),
        (f"AUTH\t1\tplain\tservice=xmpp\tresp={GOOD}", "OK\t1\tuser=alice"),
        (f"AUTH\t1\tPLAIN\tservice=smtp\tnologin\tlip=127.0.0.1\trip=192.0.2.1\tsecured\tresp={GOOD}", "OK\t1\tuser=alice"),
        (f"AUTH\t7\tPLAIN\tservice=xmpp\tresp={BAD}", f"FAIL\t7\t{REFUSED}"),
        (f"AUTH\t7\tPLAIN\tservice=xmpp\tdomain=other.test\tresp={GOOD}", f"FAIL\t7\t{REFUSED}"),
        (f"AUTH\t7\tPLAIN\tservice=xmpp\tdomain=a b\tresp={GOOD}", f"FAIL\t7\t{REFUSED}"),
        (f"AUTH\t7\tPLAIN\tservice=xmpp\tcb-tls-exporter=%\tresp={GOOD}", f"FAIL\t7\t{REFUSED}"),
        ("AUTH\t7\tPLAIN\tservice=xmpp\tresp=AAAA", f"FAIL\t7\t{REFUSED}"),
        (f"AUTH\t7\tWHATEVER\tservice=xmpp\tresp={GOOD}", f"FAIL\t7\t{REFUSED}"),
        (f"AUTH\t7\tSCRAM-SHA-256\tservice=xmpp\tresp={GOOD}", f"FAIL\t7\t{REFUSED}"),
        (
            f"AUTH\t9\tPLAIN\tservice=xmpp\tresp={DOWN}",
            "FAIL\t9\ttemp\tcode=temp_fail\treason=Temporary authentication failure",
        ),
        ("CONT\t3\tAAAA", "FAIL\t3\treason=Authentication request timed out"),
        ("AUTH\t1\tLOGIN\tservice=xmpp", "CONT\t1\tVXNlcm5hbWU6"),
        ("AUTH\t1\tPLAIN\tservice=xmpp\tresp=", "CONT\t1\t="),  # to a peer of version 1.1 that is no response at all
    ],
)
async def test_a_question_and_its_answer(tmp: Path, question: str, answer: str) -> None:
    async with peer_of(tmp) as (peer, _):
        assert await peer.ask(question) == answer


@pytest.mark.parametrize(
    "line",
    [
        "WHATEVER\t1",
        "VERSION\t1\t1",  # again
        "AUTH",
        "AUTH\t1",
        "AUTH\t0\tPLAIN\tservice=xmpp",
        "AUTH\t4294967296\tPLAIN\tservice=xmpp",
        "AUTH\tx\tPLAIN\tservice=xmpp",
        "AUTH\t" + "9" * 5000 + "\tPLAIN\tservice=xmpp",
        f"AUTH\t1\tPLAIN\tresp={GOOD}",  # without service=
        f"AUTH\t1\tPLAIN\tservice=xmpp\tresp={GOOD}\tsecured",  # resp= is not last: somebody forges parameters
        "AUTH\t1\tPLAIN\tservice=xmpp\tresp=%%%",
        "CONT\t1",
        "CONT\tx\tAAAA",
        "CANCEL",
        "MECHS",
        "A" * 70000,
    ],
)
async def test_a_line_that_breaks_the_protocol_closes_the_connection(tmp: Path, line: str) -> None:
    async with peer_of(tmp) as (peer, _):
        assert await peer.ask(line) == "closed"


async def test_the_wrong_version_closes_the_connection(tmp: Path) -> None:
    async with serve_here(tmp, configuration(tmp) + SASL.format(folder=tmp, more="")) as served:
        for line in (
            "VERSION\t2\t0",
            "VERSION\t1\tx",
            "VERSION\t1\t" + "9" * 5000,
            f"AUTH\t1\tPLAIN\tservice=xmpp\tresp={GOOD}",
        ):
            async with await served.connect("sasl") as stream:
                peer = Peer(stream)
                while await peer.line() != "DONE":
                    pass
                assert await peer.ask(line) == "closed"


async def test_an_id_in_use_closes_the_connection(tmp: Path) -> None:
    async with peer_of(tmp) as (peer, _):
        assert (await peer.ask("AUTH\t1\tLOGIN\tservice=xmpp")).startswith("CONT")
        assert await peer.ask("AUTH\t1\tLOGIN\tservice=xmpp") == "closed"


async def test_an_exchange_of_several_steps(tmp: Path) -> None:
    async with peer_of(tmp) as (peer, _):
        await peer.ask("AUTH\t1\tLOGIN\tservice=smtp")
        assert await peer.ask(f"CONT\t1\t{base64.b64encode(b'alice').decode()}") == "CONT\t1\tUGFzc3dvcmQ6"
        assert await peer.ask(f"CONT\t1\t{base64.b64encode(b'fake right').decode()}") == "OK\t1\tuser=alice"
        assert (await peer.ask("CONT\t1\tAAAA")).startswith("FAIL\t1")


async def test_a_response_that_is_no_base64_ends_its_exchange_alone(tmp: Path) -> None:
    async with peer_of(tmp) as (peer, _):
        await peer.ask("AUTH\t1\tLOGIN\tservice=smtp")
        await peer.ask("AUTH\t2\tLOGIN\tservice=smtp")
        assert await peer.ask("CONT\t1\t%") == f"FAIL\t1\tcode=invalid_base64\t{REFUSED}"
        assert await peer.ask(f"CONT\t2\t{base64.b64encode(b'alice').decode()}") == "CONT\t2\tUGFzc3dvcmQ6"


async def test_a_cancelled_exchange_is_never_heard_of_again(tmp: Path, autojump_clock: object) -> None:
    async with peer_of(tmp) as (peer, _):
        await peer.say(f"AUTH\t1\tPLAIN\tservice=xmpp\tresp={SLOW}", "CANCEL\t1")
        await trio.sleep(5)
        assert await peer.ask(f"AUTH\t2\tPLAIN\tservice=xmpp\tresp={GOOD}") == "OK\t2\tuser=alice"
    async with peer_of(tmp, minor=4) as (peer, _):
        assert await peer.ask("CANCEL\t8") == "CANCELLED\t8"


async def test_a_response_that_nobody_asked_for_ends_its_exchange_once(tmp: Path, autojump_clock: object) -> None:
    async with peer_of(tmp) as (peer, _):
        await peer.say(f"AUTH\t1\tPLAIN\tservice=xmpp\tresp={SLOW}", "CONT\t1\tAAAA")
        assert await peer.line() == f"FAIL\t1\t{REFUSED}"
        await trio.sleep(5)
        assert await peer.ask(f"AUTH\t2\tPLAIN\tservice=xmpp\tresp={GOOD}") == "OK\t2\tuser=alice"


async def test_a_hundred_in_flight_where_some_are_wrong_slow_cancelled_and_malformed(tmp: Path, autojump_clock: object) -> None:
    async with peer_of(tmp) as (peer, _):
        special = {10: BAD, 20: SLOW, 30: SLOW, 40: "AAAA", 50: DOWN}
        lines = [f"AUTH\t{n}\tPLAIN\tservice=xmpp\tresp={special.get(n, GOOD)}" for n in range(1, 101)]
        await peer.say(*lines, "CANCEL\t30")
        answers = [await peer.line() for _ in range(99)]
    by_id = {int(answer.split("\t")[1]): answer.split("\t")[0] for answer in answers}
    assert len(by_id) == 99
    assert {n for n, verb in by_id.items() if verb == "FAIL"} == {10, 40, 50}
    assert 30 not in by_id


async def test_abandoned_exchanges_are_given_up(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dovecot, "MAX_EXCHANGES", 3)
    async with peer_of(tmp) as (peer, _):
        for number in range(1, 6):
            assert (await peer.ask(f"AUTH\t{number}\tLOGIN\tservice=xmpp")).startswith("CONT")
        assert await peer.ask("CONT\t1\tAAAA") == "FAIL\t1\treason=Authentication request timed out"
        assert (await peer.ask("CONT\t5\tAAAA")).startswith("CONT\t5")


async def test_plaintext_needs_encryption_where_the_server_tells_of_it(tmp: Path) -> None:
    async with peer_of(tmp, more="require_secured = true") as (peer, _):
        assert await peer.ask("MECHS\t1\tdomain=xmpp.test") == "MECHS\t1"
        assert await peer.ask("MECHS\t2\tdomain=xmpp.test\tsecured=tls") == "MECHS\t2\tPLAIN\tLOGIN"
        assert await peer.ask("MECHS\t2\tdomain=other.test\tsecured=tls") == "MECHS\t2"
        assert await peer.ask(f"AUTH\t1\tPLAIN\tservice=xmpp\tresp={GOOD}") == f"FAIL\t1\t{REFUSED}"
        assert await peer.ask(f"AUTH\t2\tPLAIN\tservice=xmpp\tsecured\tresp={GOOD}") == "OK\t2\tuser=alice"


async def test_the_same_parameters_are_understood_anew_when_the_server_begins_to_tell_of_encryption(
    tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dovecot, "MAX_TOLD", 1)
    plain = f"PLAIN\tservice=xmpp\tresp={GOOD}"
    async with peer_of(tmp) as (peer, _):
        for number in (1, 2):
            assert await peer.ask(f"AUTH\t{number}\t{plain}") == f"OK\t{number}\tuser=alice"
        assert (await peer.ask(f"AUTH\t3\tPLAIN\tservice=xmpp\tdomain=other.test\tresp={GOOD}")).startswith("FAIL")
        await peer.ask("MECHS\t4\tdomain=xmpp.test")
        assert await peer.ask(f"AUTH\t5\t{plain}") == f"FAIL\t5\t{REFUSED}"


async def test_a_reload_holds_for_connections_that_are_open(tmp: Path) -> None:
    question = f"PLAIN\tservice=xmpp\tresp={GOOD}"
    async with peer_of(tmp) as (peer, service), AsyncExitStack() as stack:
        assert await peer.ask(f"AUTH\t1\t{question}") == "OK\t1\tuser=alice"
        domains = {name: replace(domain, mechanisms=("LOGIN",)) for name, domain in service.settings.domains.items()}
        service.adopt(await service.open_generation(replace(service.settings, domains=domains), stack))
        assert await peer.ask(f"AUTH\t2\t{question}") == f"FAIL\t2\t{REFUSED}"


async def test_every_refusal_is_written_down_once_with_where_it_came_from(tmp: Path) -> None:
    async with peer_of(tmp) as (peer, service):
        await peer.ask(f"AUTH\t1\tPLAIN\tservice=xmpp\trip=192.0.2.7\tresp={BAD}")
        await peer.ask("AUTH\t2\tPLAIN\tservice=xmpp\trip=192.0.2.7\tresp=AAAA")
        await peer.ask(f"AUTH\t3\tWHATEVER\tservice=xmpp\trip=192.0.2.7\tresp={BAD}")
        await peer.ask(f"AUTH\t4\tPLAIN\tservice=xmpp\tdomain=other.test\trip=192.0.2.7\tresp={BAD}")
        _, decisions = await service.journal.tail(0, 0)
    told = [(d.operation, d.result, d.reason, d.client, d.mechanism) for d in decisions]
    assert told == [
        ("check-password", "reject", "bad-password", "192.0.2.7", "PLAIN"),
        ("authenticate", "reject", "malformed-request", "192.0.2.7", "PLAIN"),
        ("authenticate", "reject", "not-supported", "192.0.2.7", "WHATEVER"),
        ("authenticate", "reject", "unknown-domain", "192.0.2.7", "PLAIN"),
    ]


async def test_a_client_can_not_forge_a_line_by_the_name_of_a_mechanism(tmp: Path) -> None:
    async with peer_of(tmp) as (peer, service):
        name = "X ms=0.01\x1b[2J result=accept " + "A" * 5000
        assert await peer.ask(f"AUTH\t1\t{name}\tservice=xmpp\tresp={GOOD}") == f"FAIL\t1\t{REFUSED}"
        _, (decision,) = await service.journal.tail(0, 0)
    line = audit_line(decision)
    assert line.split(" ")[1:5] == ["op=authenticate", "user=@xmpp.test", "result=reject", "reason=not-supported"]
    assert line.count("=") == 11  # of its own fields
    assert line.isprintable()
    assert len(line) < 1000


async def test_an_exchange_is_not_continued_when_it_is_too_old(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with peer_of(tmp) as (peer, _):
        with monkeypatch.context() as context:
            context.setattr(dovecot, "MAX_AGE", -1.0)
            assert (await peer.ask("AUTH\t1\tLOGIN\tservice=xmpp")).startswith("CONT")
        assert await peer.ask("CONT\t1\tAAAA") == "FAIL\t1\treason=Authentication request timed out"
        assert (await peer.ask("AUTH\t2\tLOGIN\tservice=xmpp")).startswith("CONT")
        assert (await peer.ask("CONT\t2\tAAAA")).startswith("CONT\t2")


async def test_channel_binding_data_that_is_empty_binds_nothing(tmp: Path) -> None:
    text = with_local_accounts(tmp) + SASL.format(folder=tmp, more="")
    async with serve_here(tmp, text) as served, await served.connect("sasl") as stream:
        peer = Peer(stream)
        await peer.handshake()
        first = base64.b64encode(b"p=tls-exporter,,n=alice,r=abc").decode()
        question = f"AUTH\t{{}}\tSCRAM-SHA-256-PLUS\tservice=xmpp\tcb-tls-exporter={{}}\tresp={first}"
        assert (await peer.ask(question.format(1, "AAAA"))).startswith("CONT")
        assert await peer.ask(question.format(2, "")) == f"FAIL\t2\t{REFUSED}"


@pytest.mark.parametrize("user_format", ["local", "jid"])
async def test_the_name_in_the_answer(tmp: Path, user_format: str) -> None:
    async with peer_of(tmp, more=f'user_format = "{user_format}"') as (peer, _):
        answer = await peer.ask(f"AUTH\t1\tPLAIN\tservice=smtp\tresp={GOOD}")
    assert answer == ("OK\t1\tuser=alice" if user_format == "local" else "OK\t1\tuser=alice@xmpp.test")


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("service", ["xmpp", "smtp", "smtp\tfinal-resp-ok"])
async def test_scram_by_a_client_of_somebody_else(tmp: Path, mechanism: str, service: str) -> None:
    text = with_local_accounts(tmp) + SASL.format(folder=tmp, more="")
    async with serve_here(tmp, text) as served, await served.connect("sasl") as stream:
        created = CreateUser(Identity("alice", "xmpp.test"), Origin("test"), Secret("fake right"))
        await settle(served.service.ask(created))
        peer = Peer(stream)
        assert "MECH\tSCRAM-SHA-512\textauth" in await peer.handshake()
        for password, number in (("fake right", 1), ("fake wrong", 2)):
            client: Any = scramp.ScramClient([mechanism], "alice", password)
            first = base64.b64encode(client.get_client_first().encode()).decode()
            answer = await peer.ask(f"AUTH\t{number}\t{mechanism}\tservice={service}\tresp={first}")
            client.set_server_first(base64.b64decode(answer.split("\t")[2]).decode())
            final = base64.b64encode(client.get_client_final().encode()).decode()
            answer = await peer.ask(f"CONT\t{number}\t{final}")
            if number == 2:
                assert answer == f"FAIL\t2\t{REFUSED}"
            elif service == "smtp":
                client.set_server_final(base64.b64decode(answer.split("\t")[2]).decode())
                assert await peer.ask("CONT\t1\t=") == "OK\t1\tuser=alice"
            else:
                verb, _, user, data = answer.split("\t")
                assert (verb, user) == ("OK", "user=alice")
                client.set_server_final(base64.b64decode(data.removeprefix("resp=")).decode())


@pytest.mark.parametrize(
    "change",
    [
        SetPassword(ALICE, ADMIN, Secret("fake new one")),
        SetEnabled(ALICE, ADMIN, enabled=False),
        RemoveUser(ALICE, ADMIN),
        SetPassword(Identity("bob", "xmpp.test"), ADMIN, Secret("fake new one")),
    ],
    ids=["password", "disabled", "removed", "somebody else"],
)
@pytest.mark.parametrize("here", [True, False], ids=["here", "elsewhere"])
async def test_an_exchange_from_before_a_change_of_the_account_ends_in_a_refusal(
    tmp: Path,
    change: Request,
    here: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sqlite, "LOOK", 0.01)
    text = with_local_accounts(tmp) + SASL.format(folder=tmp, more="")
    async with serve_here(tmp, text) as served, await served.connect("sasl") as stream:
        for user in (ALICE, Identity("bob", "xmpp.test")):
            await settle(served.service.ask(CreateUser(user, ADMIN, Secret("fake right"))))
        peer = Peer(stream)
        await peer.handshake()
        client: Any = scramp.ScramClient(["SCRAM-SHA-256"], "alice", "fake right")
        first = base64.b64encode(client.get_client_first().encode()).decode()
        answer = await peer.ask(f"AUTH\t1\tSCRAM-SHA-256\tservice=xmpp\tresp={first}")
        client.set_server_first(base64.b64decode(answer.split("\t")[2]).decode())
        final = base64.b64encode(client.get_client_final().encode()).decode()
        before = time.monotonic()
        if here:
            assert isinstance(await settle(served.service.ask(change)), Accept)
        else:
            async with open_without_listeners(read(text)) as other:
                assert isinstance(await settle(other.ask(change)), Accept)
            with trio.fail_after(30):
                while not served.service.caches.changed_since(change.identity, before):
                    await trio.sleep(0.01)
        answer = await peer.ask(f"CONT\t1\t{final}")
        if change.identity != ALICE:
            assert answer.startswith("OK\t1\tuser=alice")
        else:
            assert answer == f"FAIL\t1\t{REFUSED}"
            served.service.journal.flush()
            assert (await served.decisions())[-1].reason == "bad-password"


async def test_what_the_stream_was_offered_is_bound_into_scram(tmp: Path) -> None:
    text = with_local_accounts(tmp) + SASL.format(folder=tmp, more="")
    async with serve_here(tmp, text) as served, await served.connect("sasl") as stream:
        peer = Peer(stream)
        await peer.handshake()
        first = base64.b64encode(b"n,,n=alice,r=abc").decode()
        offered = "offered=SCRAM-SHA-256,PLAIN\toffered-cb=tls-exporter"
        answer = await peer.ask(f"AUTH\t1\tSCRAM-SHA-256\tservice=xmpp\t{offered}\tresp={first}")
    server_first = base64.b64decode(answer.split("\t")[2]).decode()
    digest = hashlib.sha256(b"PLAIN\x1eSCRAM-SHA-256\x1ftls-exporter").digest()
    assert server_first.split(",")[-1] == f"h={base64.b64encode(digest).decode()}"


# The dialogues of real peers --------------------------------------------------------------------------------------------------


async def test_postfix(tmp: Path) -> None:
    """Postfix says version 1.0, needs user= in OK and shows the reason (src/xsasl/xsasl_dovecot_server.c)."""
    async with serve_here(tmp, configuration(tmp) + SASL.format(folder=tmp, more="")) as served:
        async with await served.connect("sasl") as stream:
            peer = Peer(stream)
            await peer.handshake(minor=0)
            start = "service=smtp\tnologin\tlip=127.0.0.1\trip=192.0.2.1\tsecured"
            assert await peer.ask(f"AUTH\t1\tPLAIN\t{start}\tresp={GOOD}") == "OK\t1\tuser=alice"
            assert await peer.ask(f"AUTH\t2\tPLAIN\t{start}\tresp={BAD}") == f"FAIL\t2\t{REFUSED}"
            assert await peer.ask(f"AUTH\t3\tLOGIN\t{start}") == "CONT\t3\tVXNlcm5hbWU6"
            assert await peer.ask("CONT\t3\tYWxpY2U=") == "CONT\t3\tUGFzc3dvcmQ6"
            assert await peer.ask("CONT\t3\tZmFrZSByaWdodA==") == "OK\t3\tuser=alice"


async def test_exim(tmp: Path) -> None:
    """Exim connects anew for each login, always with id 1, and says its version only after ours (src/auths/dovecot.c)."""
    async with serve_here(tmp, configuration(tmp) + SASL.format(folder=tmp, more="")) as served:
        for response, answer in ((GOOD, "OK\t1\tuser=alice"), (BAD, f"FAIL\t1\t{REFUSED}"), ("", "CONT\t1\t=")):
            async with await served.connect("sasl") as stream:
                peer = Peer(stream)
                await peer.handshake(minor=0)
                start = "service=smtp\tsecured\trip=192.0.2.1\tlip=127.0.0.1\tnologin"
                assert await peer.ask(f"AUTH\t1\tPLAIN\t{start}\tresp={response}") == answer


@needs.debian("dovecot")
def test_doveadm(tmp: Path) -> None:
    with Daemon(tmp, configuration(tmp) + SASL.format(folder=tmp, more="")):
        for user, password, status in (
            ("alice", "fake right", 0),
            ("alice", "fake wrong", 77),
            ("nobody", "fake right", 77),
            ("down", "fake right", 77),
        ):
            command = ["doveadm", "-c", "/dev/null", "auth", "test", "-a", str(tmp / "sasl.sock"), "-x", "service=xmpp"]
            ended = subprocess.run([*command, user, password], check=False, capture_output=True, text=True)
            assert ended.returncode == status, ended
            assert (f"user={user}" in ended.stdout) is (status == 0)
            assert ("code=temp_fail" in ended.stdout) is (user == "down")


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(st.binary(max_size=40), st.sampled_from([b"AUTH\t1\tPLAIN\tservice=xmpp\tresp=", b"\n", b"\t", b"CONT\t1\t"]))
    )
)
def test_any_bytes_are_lines_or_break_the_protocol(chunks: list[bytes]) -> None:
    lines = Lines(dovecot.MAX_LINE)
    try:
        found = [line for chunk in chunks for line in lines.feed(chunk)]
    except ProtocolError:
        return
    assert len(found) == b"".join(chunks).count(b"\n")
