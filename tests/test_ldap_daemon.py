"""The daemon on two real slapds by ldaps, with Debian's ejabberd and Prosody before it and a real client before those."""

import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import quantiles

import pytest
import trio

from extauth.passwords.stored import make
from tests import needs
from tests.certificates import Certificates
from tests.connector import CONNECT
from tests.crowd import RATE, Crowd
from tests.daemons import ERROR, NO, YES, Daemon, frame, head
from tests.servers.ejabberd import Ejabberd
from tests.servers.process import poll, temporary_folder
from tests.servers.prosody import Prosody
from tests.servers.slapd import Slapd, asking
from tests.xmppclient import Job, XmppClient

pytestmark = needs.debian("slapd")

RIGHT, WRONG = "fake r\u00efght", "fake wr\u00f6ng"
CONFIGURATION = (
    head("{folder}", ejabberd="allow_changes = true\ndeadline = 5.0", sasl=True)
    + """\
[backend.people]
{common}
[backend.keys]
{common}
password_attribute = "userPassword"
password_form = "dovecot-scram-sha-256"
scram = ["SHA-256"]
[domain."xmpp.test"]
backends = ["people"]
[domain."keys.xmpp.test"]
backends = ["keys"]
"""
)


@dataclass
class Site:
    """Two directories and their daemon. Only the first directory knows `early`."""

    first: Slapd
    second: Slapd
    daemon: Daemon


@contextmanager
def serve(certificates: Certificates) -> Generator[Site]:
    """Run them."""
    keys = make("dovecot-scram-sha-256", RIGHT, (4096,))
    with ExitStack() as stack:
        folder, *places = (stack.enter_context(temporary_folder()) for _ in range(3))
        users = {"alice": RIGHT, "sam": keys}
        first = stack.enter_context(Slapd(places[0], certificates, {**users, "early": RIGHT}))
        second = stack.enter_context(Slapd(places[1], certificates, users))
        common = asking(folder, certificates, first, second)
        daemon = stack.enter_context(Daemon(folder, CONFIGURATION.format(folder=folder, common=common)))
        yield Site(first, second, daemon)


@pytest.fixture(scope="module")
def site(certificates: Certificates) -> Iterator[Site]:
    """Give the directories and the daemon."""
    with serve(certificates) as found:
        yield found


# Real servers before it -------------------------------------------------------------------------------------------------------


def log_in_and_change_the_password(client: XmppClient, job: Job, site: Site) -> None:
    """Log in, and change the password by the client; the directory must know the new one at once, and the old one no more."""
    assert client.run(job).ok
    assert client.run(replace(job, password=WRONG)).condition == "not-authorized"
    assert client.run(replace(job, jid=f"nobody@{job.jid.partition('@')[2]}")).condition == "not-authorized"
    changed = replace(job, password="fake new one")
    for before, after in ((job, changed), (changed, job)):
        assert client.run(replace(before, action="change-password", new_password=after.password)).ok
        assert client.run(before).condition == "not-authorized"
        assert client.run(after).ok


@needs.debian("ejabberd")
def test_ejabberd(site: Site, certificates: Certificates, xmpp: XmppClient, tmp: Path) -> None:
    program = f"/usr/bin/python3 -SIE {CONNECT} ejabberd unix:{site.daemon.folder}/ejabberd.sock"
    with Ejabberd(tmp, certificates, program, register=True) as ejabberd:
        log_in_and_change_the_password(xmpp, Job(port=ejabberd.port, jid="alice@xmpp.test", password=RIGHT), site)


@pytest.fixture(scope="module")
def prosody(site: Site, certificates: Certificates) -> Iterator[Prosody]:
    """Give a Prosody with our module."""
    authentication = f"""\
        authentication = "extauth"
        extauth_socket = "{site.daemon.folder}/sasl.sock"
        extauth_accounts_socket = "{site.daemon.folder}/ejabberd.sock"
        allow_registration = true
        """
    with (
        temporary_folder() as folder,
        Prosody(
            folder,
            certificates,
            authentication,
            plugin_paths=(Path(__file__).parent.parent / "contrib" / "prosody",),
            modules=("user_account_management",),
            virtual_hosts='VirtualHost "xmpp.test"\nVirtualHost "keys.xmpp.test"',
        ) as server,
    ):
        yield server


@needs.debian("prosody")
def test_prosody(site: Site, prosody: Prosody, xmpp: XmppClient) -> None:
    job = Job(port=prosody.port, jid="alice@xmpp.test", password=RIGHT)
    outcome = xmpp.run(job)
    assert (outcome.mechanism, set(outcome.offered)) == ("PLAIN", {"PLAIN", "LOGIN"})
    log_in_and_change_the_password(xmpp, job, site)


@needs.debian("prosody")
def test_scram_by_the_keys_in_the_directory(site: Site, prosody: Prosody, xmpp: XmppClient) -> None:
    job = Job(port=prosody.port, jid="sam@keys.xmpp.test", password=RIGHT, mechanism="SCRAM-SHA-256")
    log_in_and_change_the_password(xmpp, job, site)
    assert xmpp.run(replace(job, mechanism="PLAIN")).ok
    assert xmpp.run(replace(job, jid="alice@keys.xmpp.test")).condition == "not-authorized"  # has no keys


# Failover ---------------------------------------------------------------------------------------------------------------------

DEADLINE = 5.0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.proof)])
async def test_the_loss_of_a_server_is_no_wrong_password(
    certificates: Certificates, how: signal.Signals, seconds: int, tell: Callable[[str], None]
) -> None:
    with serve(certificates) as site:
        crowd, probe = (Crowd(site.daemon.folder / "ejabberd.sock", RIGHT, WRONG) for _ in range(2))
        with trio.fail_after(seconds * 4 + 60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(crowd.run)
                await trio.sleep(1)
                assert await probe.log_in("early", RIGHT) == frame(YES)
                os.kill(site.first.pid, how)
                await trio.sleep(seconds)
                assert await probe.log_in("early", RIGHT) == frame(NO)  # the second server doesn't know it
                if how is signal.SIGKILL:
                    site.first.stop()
                    site.first.start()
                else:
                    os.kill(site.first.pid, signal.SIGCONT)
                back = trio.current_time()
                while await probe.log_in("early", RIGHT) != frame(YES):
                    await trio.sleep(0.1)
                back = trio.current_time() - back
                await trio.sleep(seconds / 3)
                crowd.over = True
        replies = {f"{password} {reply[2:].hex() or 'none'}": count for (password, reply), count in crowd.replies.items()}
        cuts = quantiles(crowd.seconds, n=100)
        tell(
            f"{how.name}: {len(crowd.seconds)} logins {replies}, p50 {cuts[49] * 1000:.0f} ms, p99 {cuts[98] * 1000:.0f} ms, "
            f"slowest {max(crowd.seconds):.2f} s; asked again {back:.1f} s after its return"
        )
        assert not {("right", frame(NO)), ("wrong", frame(YES)), ("right", b""), ("wrong", b"")} & set(crowd.replies), replies
        outages = crowd.replies["right", frame(ERROR)] + crowd.replies["wrong", frame(ERROR)]
        assert outages <= RATE, replies  # none, but on a machine that is too busy
        assert max(crowd.seconds) < DEADLINE
        assert "directory_server_down" in site.daemon.log()
        poll(lambda: "directory_server_up" in site.daemon.log(), "the return is in the log")
