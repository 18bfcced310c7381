"""Strophe.js in Node.js, over the websocket of Debian's Prosody with mod_auth_dovecot, against the daemon."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests import needs
from tests.certificates import Certificates
from tests.relay import PASSWORD, TOKEN, Relay, relay
from tests.strophe import AUTHENTICATING, AUTHFAIL, CONNECTING, CONNFAIL, LOGGED_IN, REFUSED, Job, Outcome, Strophe

pytestmark = [needs.debian("prosody"), needs.node()]

HOST = "xmpp.test"  # a domain whose mechanisms follow from its backends
# What Strophe.js can log in by, as it chooses, and with what.
LADDER = {
    "SCRAM-SHA-512": PASSWORD,
    "SCRAM-SHA-384": PASSWORD,
    "SCRAM-SHA-256": PASSWORD,
    "SCRAM-SHA-1": PASSWORD,
    "PLAIN": PASSWORD,
    "OAUTHBEARER": TOKEN,
    "X-OAUTH2": TOKEN,
}
EVERYTHING = (*LADDER, "ANONYMOUS", "EXTERNAL")  # all that it has
RUNGS = {mechanism: f"without{number}.xmpp.test" for number, mechanism in enumerate(LADDER)}
SCRAM = tuple(name for name in LADDER if name.startswith("SCRAM-"))


def _hosts() -> dict[str, str]:
    backends = 'backends = ["tokens", "local"]\n'
    hosts = {
        HOST: backends,
        "certificates.xmpp.test": f'{backends}mechanisms = ["EXTERNAL", "PLAIN"]',
        "guests.xmpp.test": "anonymous = true",
        "away.xmpp.test": 'backends = ["away"]',
        "none.xmpp.test": f'{backends}mechanisms = ["XOAUTH2"]',
    }
    names = list(LADDER)
    for mechanism, host in RUNGS.items():
        offered = names[names.index(mechanism) :]
        hosts[host] = f"{backends}mechanisms = {offered}"
    return hosts


@pytest.fixture(scope="module")
def site(certificates: Certificates) -> Iterator[Relay]:
    with relay(certificates, _hosts()) as running:
        for host in (HOST, "certificates.xmpp.test", *RUNGS.values()):
            running.register("alice", host)
        yield running


@pytest.fixture(scope="module")
def strophe() -> Iterator[Strophe]:
    with Strophe() as running:
        yield running


def _job(site: Relay, host: str = HOST, password: str | None = PASSWORD) -> Job:
    return Job(url=site.url, jid=f"alice@{host}", password=password)


def _is_login(outcome: Outcome, mechanism: str) -> bool:
    return (outcome.statuses, outcome.mechanism) == (LOGGED_IN, mechanism) and outcome.jid.startswith("alice@")


def test_right_and_wrong_passwords(site: Relay, strophe: Strophe) -> None:
    job = _job(site)
    wrong, right, unknown = strophe.log_in(replace(job, password="fake wrong"), job, replace(job, jid=f"nobody@{HOST}"))
    for refused in (wrong, unknown):
        assert (refused.statuses, refused.mechanism, refused.condition) == (REFUSED, "SCRAM-SHA-512", "not-authorized")
        assert refused.elements == ("auth", "challenge", "response", "failure")
        assert refused.keys is None
    assert _is_login(right, "SCRAM-SHA-512")
    assert right.elements == ("auth", "challenge", "response", "success")


def test_mechanisms_taken_away_from_the_top(site: Relay, strophe: Strophe) -> None:
    jobs = [_job(site, RUNGS[mechanism], secret) for mechanism, secret in LADDER.items()]
    for mechanism, outcome in zip(LADDER, strophe.log_in(*jobs), strict=True):
        assert _is_login(outcome, mechanism), outcome
    wrong = [replace(job, password="fake-wrong") for job in jobs]
    for mechanism, outcome in zip(LADDER, strophe.log_in(*wrong), strict=True):
        assert (outcome.statuses, outcome.mechanism, outcome.condition) == (REFUSED, mechanism, "not-authorized")


def test_a_page_restricts_itself(site: Relay, strophe: Strophe) -> None:
    names = tuple(LADDER)
    restricted = [replace(_job(site, password=LADDER[name]), mechanisms=(name,)) for name in names]
    disabled = [replace(_job(site, password=LADDER[name]), disabled=names[: names.index(name)]) for name in names]
    for name, outcome in zip((*names, *names), strophe.log_in(*restricted, *disabled), strict=True):
        assert _is_login(outcome, name), outcome


def test_nothing_that_strophe_knows(site: Relay, strophe: Strophe) -> None:
    (outcome,) = strophe.log_in(_job(site, "none.xmpp.test"))
    assert (outcome.statuses, outcome.error) == ((CONNECTING, CONNFAIL), "no-auth-mech")


def test_a_page_that_forbids_every_mechanism_falls_back_to_what_nobody_offers(site: Relay, strophe: Strophe) -> None:
    (outcome,) = strophe.log_in(replace(_job(site), disabled=EVERYTHING))
    assert (outcome.statuses, outcome.elements) == ((CONNECTING, AUTHENTICATING, AUTHFAIL), ())  # jabber:iq:auth


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_names_and_passwords_beyond_ascii(site: Relay, strophe: Strophe, mechanism: str) -> None:
    password = "fake pässwörd \N{GRINNING FACE}"
    user = f"jörg-{mechanism.lower()}"
    site.register(user, HOST, password)
    job = Job(url=site.url, jid=f"{user}@{HOST}", password=password, mechanisms=(mechanism,))
    right, wrong = strophe.log_in(job, replace(job, password=f"{password}!"))
    assert (right.statuses, right.mechanism, right.jid.partition("@")[0]) == (LOGGED_IN, mechanism, user)
    assert (wrong.statuses, wrong.condition) == (REFUSED, "not-authorized")


@pytest.mark.parametrize(
    ("user", "password"), [("b=c", PASSWORD), ("b,c", PASSWORD), ("roman", "fake number \N{ROMAN NUMERAL NINE}")]
)
def test_what_strophe_neither_escapes_nor_prepares_needs_plain(site: Relay, strophe: Strophe, user: str, password: str) -> None:
    site.register(user, HOST, password)
    job = Job(url=site.url, jid=f"{user}@{HOST}", password=password)
    scram, plain = strophe.log_in(job, replace(job, mechanisms=("PLAIN",)))
    assert (scram.statuses, scram.mechanism) == (REFUSED, "SCRAM-SHA-512")
    assert plain.statuses == LOGGED_IN


def test_guests(site: Relay, strophe: Strophe) -> None:
    guest = Job(url=site.url, jid="guests.xmpp.test")
    first, second = strophe.log_in(guest, guest)
    for outcome in (first, second):
        assert (outcome.statuses, outcome.mechanism) == (LOGGED_IN, "ANONYMOUS")
        assert outcome.elements == ("auth", "success")
    names = {outcome.jid.partition("@")[0] for outcome in (first, second)}
    assert len(names) == 2


def test_external_is_not_offered_by_a_module_that_tells_of_no_certificate(site: Relay, strophe: Strophe) -> None:
    job = _job(site, "certificates.xmpp.test")
    (outcome,) = strophe.log_in(replace(job, mechanisms=("EXTERNAL", "PLAIN")))
    assert _is_login(outcome, "PLAIN")
    (outcome,) = strophe.log_in(replace(job, mechanisms=("EXTERNAL",)))
    assert outcome.error == "no-auth-mech"


def test_an_outage_is_no_refusal(site: Relay, strophe: Strophe) -> None:
    job = _job(site, "away.xmpp.test", TOKEN)
    outcomes = strophe.log_in(job, replace(job, mechanisms=("PLAIN",)), replace(job, mechanisms=("OAUTHBEARER",)))
    assert [outcome.mechanism for outcome in outcomes] == ["SCRAM-SHA-512", "PLAIN", "OAUTHBEARER"]
    for outcome in outcomes:
        assert (outcome.statuses, outcome.condition) == (REFUSED, "temporary-auth-failure")


def test_kept_keys_log_in_until_the_password_changes(site: Relay, strophe: Strophe) -> None:
    site.register("keeper", HOST)
    typed = [Job(url=site.url, jid=f"keeper@{HOST}", password=PASSWORD, mechanisms=(name,)) for name in SCRAM]
    first = strophe.log_in(*typed)
    for name, outcome in zip(SCRAM, first, strict=True):
        assert outcome.keys is not None
        assert f"SCRAM-{outcome.keys['name']}" == name
    kept = [replace(job, password=outcome.keys) for job, outcome in zip(typed, first, strict=True)]
    for name, before, again in zip(SCRAM, first, strophe.log_in(*kept), strict=True):
        assert (again.statuses, again.mechanism, again.keys) == (LOGGED_IN, name, before.keys)

    site.set_password("keeper", HOST, f"{PASSWORD} 2")
    *refused, typed_again = strophe.log_in(*kept, replace(typed[0], password=f"{PASSWORD} 2"))
    for outcome in refused:
        # Strophe.js sees that the salt is another one, and answers the challenge by nothing.
        assert (outcome.statuses, outcome.elements) == (REFUSED, ("auth", "challenge", "response", "failure"))
        assert outcome.dialogue[2] == ("response", "")
    assert typed_again.statuses == LOGGED_IN


def test_kept_keys_are_for_their_user_and_mechanism_alone(site: Relay, strophe: Strophe) -> None:
    site.register("other", HOST)
    job = _job(site)
    (first,) = strophe.log_in(job)
    kept = replace(job, password=first.keys)
    stranger = replace(kept, jid=f"other@{HOST}")
    for outcome in strophe.log_in(stranger, replace(kept, mechanisms=("SCRAM-SHA-256",)), replace(kept, mechanisms=("PLAIN",))):
        assert (outcome.statuses, outcome.elements[-1]) == (REFUSED, "failure")


def test_a_mechanism_of_ones_own(site: Relay, strophe: Strophe) -> None:
    job = replace(_job(site, password=TOKEN), custom=True)
    right, wrong = strophe.log_in(job, replace(job, password="fake-wrong"))
    assert _is_login(right, "X-MY-MECHANISM")
    assert (wrong.statuses, wrong.mechanism, wrong.condition) == (REFUSED, "X-MY-MECHANISM", "not-authorized")


def test_oauthbearer_refused_is_told_once(site: Relay, strophe: Strophe) -> None:
    job = replace(_job(site, password=TOKEN), mechanisms=("OAUTHBEARER",))
    refused, after = strophe.log_in(replace(job, password="fake-wrong"), job)
    assert refused.statuses == REFUSED
    # It does not know the error that the challenge is, and sends its first message again.
    assert refused.elements == ("auth", "challenge", "response", "failure")
    assert refused.dialogue[0][1] == refused.dialogue[2][1]
    assert _is_login(after, "OAUTHBEARER")
