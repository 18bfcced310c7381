"""Where the time of one answer goes: `python -m bench.layers` prints microseconds of processor time, layer by layer.

Each layer is called by itself within one process; nothing passes through a socket. The audit lines go to a file.
"""

import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import extauth_local
import trio

from bench import servers
from bench.plain_backend import PlainBackend, passwords
from bench.streams_server import REPLIES
from extauth import jid
from extauth.backend import Backend, Context
from extauth.configuration import load
from extauth.daemon import open_service
from extauth.external import EJABBERD_VERBS, Conversation
from extauth.journal import Journal, Outlet
from extauth.listeners import dovecot
from extauth.listeners.ejabberd import Frames
from extauth.model import CheckPassword, Identity, Origin, Reason, Request, Secret, UserExists
from extauth.plugins import InstalledKinds
from extauth.sasl.exchange import Stream
from extauth.service import Service
from extauth.threads import Threads
from tests.servers.process import temporary_folder

CALLS = 800
TRIES = 50  # of which the quickest counts: it was disturbed least
BATCH = 8  # decisions that are written at once


def main() -> None:
    """Measure and print."""
    with temporary_folder() as folder:
        configuration = servers.configure(folder, "")
        trio.run(servers.fill, configuration)
        trio.run(_measure, configuration, folder)


async def _measure(configuration: Path, folder: Path) -> None:
    origin = Origin("ejabberd", "uid:100/pid:1000", patience=25.0)
    local, plain = jid.identity("u00001", servers.LOCAL[4096]), jid.identity("u00001", servers.PLAIN)
    settings = load(configuration, InstalledKinds())
    print("| µs | framing | question into request, verdict into reply | authority | backend | audit line, counters | sum |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with (folder / "audit").open("wb") as audit:
        journal = Journal(Outlet(audit.fileno()))
        async with open_service(settings.daemon, journal) as service, AsyncExitStack() as stack:
            service.adopt(await service.open_generation(settings, stack))
            conversation = Conversation(service, origin, Frames(), REPLIES, EJABBERD_VERBS, allow_changes=False)
            context = Context("local", service.store, Threads("password", 1, 1.0), time.time)
            accounts = await stack.enter_async_context(extauth_local.open(extauth_local.Config(), context))
            isuser, auth = UserExists(local, origin), CheckPassword(plain, origin, Secret("secret-00001"))
            work: list[tuple[str, str, Backend, Request]] = [
                ("isuser, SQLite", f"isuser:{local.user}:{local.domain}", accounts, isuser),
                ("auth, in memory", f"auth:{plain.user}:{plain.domain}:secret-00001", PlainBackend(passwords(1000)), auth),
            ]
            for name, text, backend, request in work:
                question = text.encode()
                frame = len(question).to_bytes(2, "big") + question
                refusal = (request.operation, request.identity, request.origin, Reason.OK)
                framing = _cost(journal, partial(_all, conversation.requests, frame))
                whole = _cost(journal, partial(conversation.answer, question))
                asking = _cost(journal, partial(service.ask, request))
                answering = _cost(journal, partial(backend.answer, request))
                writing = _cost(journal, partial(service.refuse, *refusal))
                layers = (framing, whole - asking, asking - answering - writing, answering, writing)
                print(f"| {name} | {' | '.join(f'{layer:.1f}' for layer in (*layers, sum(layers)))} |")
            _measure_plain(journal, service, plain)


def _measure_plain(journal: Journal, service: Service, account: Identity) -> None:
    """Print where the time of a PLAIN exchange goes in Dovecot's protocol."""
    origin = Origin("sasl", "uid:100/pid:1000", secure=True)
    conversation = dovecot.Conversation(service, origin, dovecot.Config(domain=account.domain))
    conversation.answer(b"VERSION\t1\t2")
    initial = f"\0{account.user}\0secret-00001".encode()
    line = b"AUTH\t1\tPLAIN\tservice=xmpp\tsecured\tno-penalty\tresp=" + b64encode(initial)
    stream = Stream(domain=account.domain, origin=origin, secure=True)
    terms = service.terms("PLAIN", stream)
    request = CheckPassword(account, origin, Secret("secret-00001"))
    framing = _cost(journal, partial(_all, conversation.requests, line + b"\n"))
    whole = _cost(journal, partial(conversation.answer, line))
    exchanging = _cost(journal, lambda: service.negotiate(terms, 0.0).begin(initial))
    asking = _cost(journal, partial(service.ask, request))
    layers = (framing, whole - exchanging, exchanging - asking, asking)
    print("\n| µs | line | parameters, stream, reply | exchange, mechanism | authority and all below | sum |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(f"| PLAIN, in memory | {' | '.join(f'{layer:.1f}' for layer in (*layers, sum(layers)))} |")


def _all(requests: Callable[[bytes], Iterator[bytes]], frame: bytes) -> list[bytes]:
    return list(requests(frame))


def _cost(journal: Journal, call: Callable[[], object]) -> float:
    """Return the microseconds of processor time that a call takes."""
    taken: list[float] = []
    for _ in range(TRIES):
        begun = time.thread_time()
        for _ in range(CALLS // BATCH):
            with journal:
                for _ in range(BATCH):
                    call()
        taken.append(time.thread_time() - begun)
    return min(taken) / CALLS * 1e6


if __name__ == "__main__":
    main()
