"""The child process of `tests/xmppclient.py`: slixmpp on asyncio.

Run as `python -m tests.xmppworker CA CONCURRENCY`: jobs arrive on standard input, outcomes leave on standard
output, one JSON object a line, until the end of the input.
"""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# slixmpp's annotations are partial.

import asyncio
import json
import logging
import ssl
import sys
import time
from dataclasses import asdict, replace

from slixmpp import JID, ClientXMPP
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.stanza import Iq
from slixmpp.xmlstream import ElementBase

from tests.xmppclient import Job, Outcome


class _Client(ClientXMPP):
    """One connection; `outcome` is settled once, by whatever ends it first."""

    def __init__(self, job: Job, context: ssl.SSLContext) -> None:
        super().__init__(job.jid, job.password, sasl_mech=job.mechanism, ssl_context=context)
        self.job = job
        self.outcome = asyncio.get_running_loop().create_future()
        if job.mechanism == "X-OAUTH2":
            self.credentials["access_token"] = job.password
        self.removing = False
        self.enable_direct_tls = job.tls == "direct"
        self.enable_starttls = job.tls == "starttls"
        self.enable_plaintext = job.tls == "none"
        self.plugin["feature_mechanisms"].unencrypted_plain = job.tls == "none"
        self.plugin["feature_mechanisms"].unencrypted_scram = job.tls == "none"
        self.register_plugin("xep_0077")
        if job.action == "register":
            self.add_event_handler("register", self._register)
        self.add_event_handler("session_start", self._started)
        self.add_event_handler("failed_auth", self._refused)
        self.add_event_handler("no_auth", self._no_mechanism)
        self.add_event_handler("connection_failed", self._not_connected)
        self.add_event_handler("disconnected", self._disconnected)

    async def close(self) -> None:
        """End the stream in an orderly way and stop slixmpp's own task."""
        self.cancel_connection_attempt()
        if self.is_connected():
            await self.disconnect(wait=1)
        assert self._run_out_filters is not None
        self._run_out_filters.cancel()

    def _settle(self, condition: str = "", text: str = "") -> None:
        if self.outcome.done():
            return
        mechanisms = self.plugin["feature_mechanisms"]
        outcome = Outcome(
            ok=not condition,
            condition=condition,
            text=text,
            jid="" if condition else str(self.boundjid),
            mechanism=mechanisms.mech.name if mechanisms.mech else "",
            offered=tuple(sorted(mechanisms.mech_list or mechanisms.attempted_mechs)),
        )
        self.outcome.set_result(outcome)

    def _refused(self, failure: ElementBase) -> None:
        # Read from the XML, since slixmpp turns conditions it does not know into not-authorized.
        names = {child.tag.rpartition("}")[2]: child.text or "" for child in failure.xml}
        text = names.pop("text", "")
        self._settle(next(iter(names), "none"), text)
        self.plugin["feature_mechanisms"].mech_list = set()  # one attempt a job: slixmpp would try the next mechanism

    def _no_mechanism(self, _event: object) -> None:
        self._settle("no-mechanism")

    def _not_connected(self, error: object) -> None:
        self._settle("connection-failed", str(error))

    def _disconnected(self, reason: object) -> None:
        # Closing the stream is one way for the server to say that the account is gone (XEP-0077, 3.2).
        self._settle("" if self.removing else "disconnected", str(reason or ""))

    async def _register(self, _form: Iq) -> None:
        iq = self.Iq(stype="set")
        account = JID(self.job.jid)
        iq["register"]["username"] = account.user
        iq["register"]["password"] = self.job.password
        await self._ask(iq)

    async def _started(self, _event: object) -> None:
        if self.job.action == "login":
            self._settle()
            return
        iq = self.Iq(stype="set", sto=self.boundjid.host)
        if self.job.action == "unregister":
            iq["register"]["remove"] = True
            self.removing = True
        else:
            iq["register"]["username"] = self.boundjid.user
            iq["register"]["password"] = self.job.new_password
        await self._ask(iq)

    async def _ask(self, iq: Iq) -> None:
        try:
            await iq.send(timeout=self.job.timeout)  # type: ignore[no-untyped-call]
        except IqError as error:
            self._settle(error.condition, error.text)
        except IqTimeout:
            self._settle("timeout")
        else:
            self._settle()


def _tls(job: Job, ca: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca)
    if job.tls_1_2:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if job.certificate:
        context.load_cert_chain(job.certificate)
    return context


async def _run(job: Job, ca: str) -> Outcome:
    start = time.monotonic()
    client = _Client(job, _tls(job, ca))
    client.connect("127.0.0.1", job.port)
    try:
        async with asyncio.timeout(job.timeout):
            outcome: Outcome = await client.outcome
    except TimeoutError:
        outcome = Outcome(ok=False, condition="timeout")
    seconds = time.monotonic() - start
    await client.close()
    return replace(outcome, seconds=seconds)


async def _serve(ca: str, concurrency: int) -> None:
    free = asyncio.Semaphore(concurrency)

    async def serve(line: str) -> None:
        fields = json.loads(line)
        number = fields.pop("number")
        async with free:
            outcome = await _run(Job(**fields), ca)
        print(json.dumps({"number": number, **asdict(outcome)}), flush=True)  # noqa: T201 - this is its output

    async with asyncio.TaskGroup() as group:
        while line := await asyncio.to_thread(sys.stdin.readline):
            group.create_task(serve(line))


if __name__ == "__main__":
    logging.disable()  # outcomes say what matters
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
