"""Backend `ldap`: the contract on a real slapd, and what else may go wrong between it and a directory."""

import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import extauth_ldap
import ldap3
import pytest
import trio
from extauth_ldap import Config, diagnosis, wire
from extauth_ldap.answers import Answered, Outcome, parse_policy
from extauth_ldap.desk import Desk
from extauth_ldap.groups import normal
from extauth_ldap.messages import Check, Setup, Told
from extauth_ldap.process import LdapProcess
from extauth_ldap.templates import bind_name_template, dn_value, filter_value
from hypothesis import given
from hypothesis import strategies as st

from extauth.backend import Backend, Context
from extauth.errors import BackendDown, ConfigError
from extauth.layers.names import Naming
from extauth.layers.rules import NameRules
from extauth.model import (
    Accept,
    Answer,
    CheckCertificate,
    CheckPassword,
    Decoy,
    Identity,
    Reason,
    Reject,
    Secret,
    SetPassword,
    UserExists,
)
from extauth.store import Store
from extauth.templates import Template
from extauth.threads import Threads
from tests import needs
from tests.certificates import Certificates, make_certificates
from tests.contract import ACCOUNTS, ALICE, DOMAIN, ORIGIN, BackendContract, ask, is_yes, login
from tests.servers.process import free_port
from tests.servers.slapd import ADMIN, ADMIN_PASSWORD, GROUPS, PEOPLE, POLICY, Slapd, dn_of

pytestmark = needs.debian("slapd")

LDAP3 = cast("Any", ldap3)  # its parsers are not typed
MANAGER = f"dn: cn=manager,{PEOPLE}\nchangetype: add\nobjectClass: inetOrgPerson\nsn: x\nuserPassword: fake manager\n"
FAR = f"ou=far,{PEOPLE}"
PATIENT: dict[str, Any] = {"queue_patience": 20.0, "timeout": 20.0, "server_timeout": 20.0}  # a busy machine is no outage
HOSTILE = [
    "*",
    "a*",
    "alice)(uid=*",
    "*)(|(uid=*",
    "alice\\",
    "{domain}",
    "{0.__class__}",
    "$(id)",
    "a,b=c+d",
    "a\0b",
    " ",
    "é",
]


class Site:
    """A folder with the searching account's password, and what opens backends."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self.folder = folder
        self.certificates = certificates
        self.secret = folder / "secret"
        self.secret.write_text(f"{ADMIN_PASSWORD}\n")
        self.secret.chmod(0o600)

    def config(self, *urls: str, **keys: Any) -> Config:  # noqa: ANN401
        """Return a configuration that searches as the administrator."""
        usual: dict[str, Any] = {
            "servers": urls,
            "ca_file": str(self.certificates.ca),
            "bind_dn": ADMIN,
            "bind_password_file": str(self.secret),
            "base": PEOPLE,
            "filter": "(&(uid={user})(o={domain}))",
            **PATIENT,
        }
        return Config(**{**usual, **keys})

    def direct(self, url: str, template: str, **keys: Any) -> Config:  # noqa: ANN401
        """Return a configuration that binds without a search."""
        return Config(servers=(url,), ca_file=str(self.certificates.ca), bind_dn_template=template, **{**PATIENT, **keys})


def context() -> Context:
    """Return what a backend is opened with; this one stores and derives nothing."""
    return Context("people", cast("Store", None), Threads("hash", 1, 20), time.time)


def here(config: Config) -> Told:
    """Log alice in within this process, where a test can look at what happens, or change it."""
    with closing(Desk(Setup("people", config, Secret(ADMIN_PASSWORD)))) as desk:
        return desk.answer(Check(ALICE, Secret(ACCOUNTS["alice"])), time.monotonic() + config.timeout)


@pytest.fixture
def site(tmp: Path, certificates: Certificates) -> Site:
    """Give a place for configurations."""
    return Site(tmp, certificates)


@pytest.fixture
def slapd(tmp: Path, certificates: Certificates) -> Iterator[Slapd]:
    """Give a directory with the contract's accounts."""
    folder = tmp / "slapd"
    folder.mkdir()
    with Slapd(folder, certificates, ACCOUNTS) as server:
        yield server


@pytest.fixture
async def backend(site: Site, slapd: Slapd) -> AsyncIterator[Backend]:
    """Give a backend by ldaps."""
    async with extauth_ldap.open(site.config(slapd.tls_url), context()) as opened:
        yield opened


class TestContract(BackendContract):
    """The contract, by ldaps."""

    handles = frozenset({CheckPassword, CheckCertificate, UserExists, SetPassword, Decoy})


async def login_by(config: Config, user: str = "alice", password: str = ACCOUNTS["alice"]) -> Answer | None:
    async with extauth_ldap.open(config, context()) as opened:
        return await login(opened, user, password)


# Connections ------------------------------------------------------------------------------------------------------------------


async def test_start_tls_and_plain_text_log_in(site: Site, slapd: Slapd) -> None:
    assert is_yes(await login_by(site.config(slapd.url, start_tls=True)), "alice")
    assert is_yes(await login_by(site.config(slapd.url, allow_plaintext=True)), "alice")


async def test_a_direct_bind_logs_in(site: Site, slapd: Slapd) -> None:
    slapd.modify(f"dn: cn=dora,{PEOPLE}\nchangetype: add\nobjectClass: inetOrgPerson\nsn: x\nuserPassword: fake right\n")
    config = site.direct(slapd.tls_url, template=f"cn={{user}},{PEOPLE}")
    assert is_yes(await login_by(config, "dora", "fake right"), "dora")
    assert await login_by(config, "dora", "fake wrong") == Reject(Reason.BAD_PASSWORD)
    for name in HOSTILE:
        answer = await login_by(config, name, "fake right")
        assert answer == Reject(Reason.BAD_PASSWORD), name


@pytest.mark.parametrize("start_tls", [False, True], ids=["ldaps", "StartTLS"])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("other host", "mismatch"),
        ("expired", "expired"),
        ("self-signed", "self-signed certificate"),
        ("another authority", "unable to get local issuer certificate|signature failure"),
    ],
)
async def test_a_certificate_that_proves_nothing_is_refused(
    tmp: Path,
    site: Site,
    certificates: Certificates,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    reason: str,
    *,
    start_tls: bool,
) -> None:
    (tmp / "elsewhere").mkdir()
    certificate = {
        "other host": lambda: certificates.impostor("other-host", ["ldap.example.org"]),
        "expired": lambda: certificates.impostor("expired", ["127.0.0.1", "localhost"], expired=True),
        "self-signed": lambda: self_signed(tmp / "self-signed.pem"),
        "another authority": lambda: make_certificates(tmp / "elsewhere", ["localhost"]).server,
    }[kind]()
    (tmp / "slapd").mkdir()
    with Slapd(tmp / "slapd", certificates, ACCOUNTS, certificate=certificate) as server:
        port = server.port if start_tls else server.tls_port
        url = f"{'ldap' if start_tls else 'ldaps'}://localhost:{port}"
        with pytest.raises(BackendDown, match=f"(?i){reason}") as caught:
            await login_by(site.config(url, start_tls=start_tls))
    logged = capsys.readouterr().out
    assert re.search(f"(?i)directory_server_down.*({reason})", logged)
    for told in (str(caught.value), logged):
        assert ACCOUNTS["alice"] not in told
        assert ADMIN_PASSWORD not in told


@pytest.mark.parametrize("start_tls", [False, True], ids=["ldaps", "StartTLS"])
async def test_a_server_may_ask_for_a_certificate(
    tmp: Path, site: Site, certificates: Certificates, *, start_tls: bool
) -> None:
    (tmp / "slapd").mkdir()
    (tmp / "elsewhere").mkdir()
    own = certificates.client("extauth@xmpp.test")
    key = tmp / "key.pem"
    key.write_text(own.read_text().partition("-----END CERTIFICATE-----\n")[2])
    others = make_certificates(tmp / "elsewhere", ["localhost"]).server
    with Slapd(tmp / "slapd", certificates, ACCOUNTS, demanding=True) as server:
        url = server.url if start_tls else server.tls_url
        for keys in ({"client_certificate": str(own)}, {"client_certificate": str(own), "client_key": str(key)}):
            assert is_yes(await login_by(site.config(url, start_tls=start_tls, **keys)), "alice")
        for keys in ({}, {"client_certificate": str(others)}):
            with pytest.raises(BackendDown):
                await login_by(site.config(url, start_tls=start_tls, **keys))


def self_signed(path: Path) -> Path:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(path), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return path


async def test_the_searching_account_refused_is_an_outage(site: Site, slapd: Slapd) -> None:
    site.secret.write_text("fake wrong")
    with pytest.raises(BackendDown, match="bind_dn: invalidCredentials"):
        await login_by(site.config(slapd.tls_url))


def test_a_connection_is_kept_for_one_purpose(site: Site, slapd: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    done: dict[int, set[str]] = {}
    alive: list[wire.Connection] = []
    plain_search, plain_bind = wire.Connection.search, wire.Connection.bind

    def search(self: wire.Connection, *arguments: Any, **keys: Any) -> Answered:  # noqa: ANN401
        alive.append(self)
        done.setdefault(id(self), set()).add("search")
        return plain_search(self, *arguments, **keys)

    def bind(self: wire.Connection, name: str, password: Secret, deadline: float) -> Outcome:
        alive.append(self)
        done.setdefault(id(self), set()).add("service" if name == ADMIN else "user")
        return plain_bind(self, name, password, deadline)

    monkeypatch.setattr(wire.Connection, "search", search)
    monkeypatch.setattr(wire.Connection, "bind", bind)
    with closing(Desk(Setup("people", site.config(slapd.tls_url), Secret(ADMIN_PASSWORD)))) as desk:
        for _ in range(3):
            assert desk.answer(Check(ALICE, Secret(ACCOUNTS["alice"])), time.monotonic() + 20) == Told(Reason.OK)
    assert sorted(map(sorted, done.values())) == [["search", "service"], ["user"]]


async def test_a_restarted_server_is_used_again(backend: Backend, slapd: Slapd) -> None:
    assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")
    slapd.stop()
    slapd.start()
    assert is_yes(await login(backend, "alice", ACCOUNTS["alice"]), "alice")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_another_server_takes_over_and_gives_back(
    tmp: Path, site: Site, slapd: Slapd, certificates: Certificates, how: signal.Signals
) -> None:
    (tmp / "second").mkdir()
    with ExitStack() as stack:
        second = stack.enter_context(Slapd(tmp / "second", certificates, {"alice": "fake second"}))
        config = site.config(slapd.tls_url, second.tls_url, server_timeout=1.0, queue_patience=5.0, timeout=8.0)
        async with extauth_ldap.open(config, context()) as opened:
            assert is_yes(await login(opened, "alice", ACCOUNTS["alice"]), "alice")
            os.kill(slapd.pid, how)
            answers: list[Answer | None] = []

            async def one() -> None:
                answers.append(await login(opened, "alice", "fake second"))

            async with trio.open_nursery() as nursery:
                for _ in range(40):
                    nursery.start_soon(one)
            assert answers == 40 * [Accept(ALICE)]
            if how is signal.SIGSTOP:
                os.kill(slapd.pid, signal.SIGCONT)
            else:
                slapd.stop()
                slapd.start()
            with trio.fail_after(20):
                while not is_yes(await login(opened, "alice", ACCOUNTS["alice"]), "alice"):
                    await trio.sleep(0.05)


async def test_a_server_that_is_down_is_not_waited_for_twice(site: Site) -> None:
    with socket.socket() as hole:  # takes connections and says nothing
        hole.bind(("127.0.0.1", 0))
        hole.listen()
        url = f"ldaps://127.0.0.1:{hole.getsockname()[1]}"
        async with extauth_ldap.open(site.config(url, server_timeout=0.3), context()) as opened:
            with pytest.raises(BackendDown, match="timed out"):
                await login(opened, "alice", "fake")
            hole.setblocking(False)
            hole.accept()[0].close()
            with pytest.raises(BackendDown, match="timed out"):
                await login(opened, "alice", "fake")
            with pytest.raises(BlockingIOError):  # nobody came again
                hole.accept()


def test_a_look_up_of_a_name_that_takes_long_is_an_outage_in_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def silent(*_arguments: object, **_keys: object) -> list[Any]:
        over.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    deadline = time.monotonic() + 10
    try:
        with pytest.raises(BackendDown, match=r"address of ldap\.example\.com was not found in time"):
            here(site.config("ldaps://ldap.example.com", server_timeout=0.3))
        assert time.monotonic() < deadline
    finally:
        over.set()


async def test_a_name_without_an_address_is_an_outage(site: Site) -> None:
    for host, problem in (("ldap.invalid", "known|resolution"), ("x" * 70 + ".invalid", "no host name")):
        with pytest.raises(BackendDown, match=problem):
            await login_by(site.config(f"ldaps://{host}"))


def test_all_addresses_of_a_name_are_tried_within_the_time_of_one(
    site: Site, slapd: Slapd, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: Any = socket.getaddrinfo

    def two(host: str, port: int, *arguments: Any, **keys: Any) -> list[Any]:  # noqa: ANN401
        if host != "localhost":
            return cast("list[Any]", plain(host, port, *arguments, **keys))
        return [(2, 1, 6, "", (address, port)) for address in ("127.0.0.9", "127.0.0.1")]

    with socket.create_server(("127.0.0.9", slapd.tls_port)):  # takes connections and says nothing
        monkeypatch.setattr(socket, "getaddrinfo", two)
        config = site.config(slapd.tls_url.replace("127.0.0.1", "localhost"), server_timeout=2.0)
        assert here(config) == Told(Reason.OK)


async def test_nobody_there_is_an_outage(site: Site) -> None:
    with pytest.raises(BackendDown, match="refused"):
        await login_by(site.config(f"ldaps://127.0.0.1:{free_port()}"))


async def test_what_is_said_before_start_tls_is_not_heard_after_it(site: Site) -> None:
    success = bytes.fromhex("0a010004000400")

    def answer(number: int, kind: int) -> bytes:
        return bytes([0x30, 12, 2, 1, number, kind, 7]) + success

    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_context.load_cert_chain(site.certificates.server)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            """Answer StartTLS and, still in plain text, the bind that will come; then nothing."""
            with listening.accept()[0] as plain:
                plain.settimeout(10)
                number = plain.recv(4096)[4]
                plain.sendall(answer(number, 0x78) + answer(number + 1, 0x61))
                with suppress(OSError), server_context.wrap_socket(plain, server_side=True) as encrypted:
                    encrypted.recv(4096)

        config = site.direct(f"ldap://127.0.0.1:{listening.getsockname()[1]}", template=f"cn={{user}},{PEOPLE}", start_tls=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, serve)
            with pytest.raises(BackendDown, match=r"multiple extended responses|invalid messageId"):
                await login_by(config)


# Users ------------------------------------------------------------------------------------------------------------------------


async def test_a_blank_password_is_never_bound(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LdapProcess, "ask", None)  # would be a bug
    for blank in ("", " ", "\0", "\u00ad", "x\0"):
        assert await login(backend, "alice", blank) == Reject(Reason.MALFORMED)


async def test_two_entries_of_one_name_are_refused(backend: Backend, slapd: Slapd) -> None:
    slapd.modify(f"dn: cn=twin,{PEOPLE}\nchangetype: add\nobjectClass: inetOrgPerson\nsn: x\nuid: alice\no: {DOMAIN}\n")
    assert await login(backend, "alice", ACCOUNTS["alice"]) == Reject(Reason.AMBIGUOUS)


async def test_the_entry_must_have_the_name(site: Site, slapd: Slapd) -> None:
    config = site.config(slapd.tls_url, filter="(|(uid={user})(uid=alice))")
    assert await login_by(config, "mallory", ACCOUNTS["alice"]) is None


async def test_principal_names_may_have_another_domain(tmp: Path, site: Site, certificates: Certificates) -> None:
    (tmp / "corp").mkdir()
    accounts = {"Alice@corp.example": "fake right", "bob": "fake right"}
    with Slapd(tmp / "corp", certificates, accounts) as server:
        async with extauth_ldap.open(site.config(server.tls_url), context()) as opened:
            backend = Naming(opened, NameRules(template="{user}@corp.example"))
            assert is_yes(await login(backend, "alice", "fake right"), "alice")
            assert await login(backend, "alice", "fake wrong") == Reject(Reason.BAD_PASSWORD)
            assert await login(backend, "bob", "fake right") is None


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_name_is_a_stranger(backend: Backend, name: str) -> None:
    assert await ask(backend, UserExists(Identity(name, DOMAIN), ORIGIN)) is None


@given(st.text(min_size=1))
def test_a_filter_holds_the_name_as_one_value(name: str) -> None:
    filter_ = Template("(&(uid={user})(o=x))", filter_value).fill(Identity(name, DOMAIN))
    parsed: Any = LDAP3.operation.search.parse_filter(filter_, None, True, True, None, False)
    uid, other = parsed.elements[0].elements
    assert (uid.assertion["attr"], LDAP3.protocol.convert.prepare_filter_for_sending(uid.assertion["value"])) == (
        "uid",
        name.encode(),
    )
    assert other.assertion["attr"] == "o"


@given(st.text(min_size=1))
def test_a_dn_holds_the_name_as_one_value(name: str) -> None:
    dn = bind_name_template("uid={user},ou=people").fill(Identity(name, DOMAIN))
    parts: Any = LDAP3.utils.dn.parse_dn(dn)
    assert [part[0] for part in parts] == ["uid", "ou"]
    assert dn_value(name) == parts[0][1]


def test_a_principal_name_takes_no_sign_of_its_own() -> None:
    template = bind_name_template("EXAMPLE\\{user}")
    assert template.fill(ALICE) == "EXAMPLE\\alice"
    for name in ("a\\b", "a@b", "a b", 'a"', "a\0", ""):
        with pytest.raises(ValueError, match="principal"):
            template.fill(Identity(name, DOMAIN))


# Referrals --------------------------------------------------------------------------------------------------------------------


def add_referral(slapd: Slapd, url: str) -> None:
    lines = f"objectClass: referral\nobjectClass: extensibleObject\nou: far\nref: {url}\n"
    slapd.modify(f"dn: {FAR}\nchangetype: add\n{lines}")


async def test_a_referral_is_not_followed_unless_its_host_is_named(site: Site, slapd: Slapd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        add_referral(slapd, f"ldap://localhost:{elsewhere.getsockname()[1]}/{PEOPLE}")
        for referrals in ((), ("ldaps://other.example.com",)):
            config = site.config(slapd.tls_url, referrals=referrals)
            assert is_yes(await login_by(config), "alice")
            assert await login_by(config, "carol") is None
            with pytest.raises(BackendDown, match=r"referred to ldap://localhost:.*, which is not followed"):
                await login_by(replace(config, base=f"ou=deep,{FAR}"))
        with pytest.raises(BlockingIOError):  # nobody went there
            elsewhere.accept()


async def test_a_referral_is_followed_in_the_way_that_is_configured(
    tmp: Path, site: Site, slapd: Slapd, certificates: Certificates
) -> None:
    (tmp / "second").mkdir()
    with Slapd(tmp / "second", certificates, {"carol": "fake right"}) as second:
        add_group(second, "far", dn_of("carol"))
        # The referral says plain LDAP on a port that nobody listens on.
        add_referral(slapd, f"ldap://localhost:1/{PEOPLE.replace(',', '%2c')}??sub")
        url = second.tls_url.replace("127.0.0.1", "localhost")
        config = site.config(slapd.tls_url, referrals=(url,), required_group=f"cn=far,{GROUPS}")
        for base in (PEOPLE, FAR):
            async with extauth_ldap.open(replace(config, base=base), context()) as opened:
                assert is_yes(await login(opened, "carol", "fake right"), "carol")
                assert await login(opened, "carol", "fake wrong") == Reject(Reason.BAD_PASSWORD)
        async with extauth_ldap.open(config, context()) as opened:
            assert is_yes(await ask(opened, SetPassword(Identity("carol", DOMAIN), ORIGIN, Secret("fake new"))), "carol")
            assert is_yes(await login(opened, "carol", "fake new"), "carol")
            assert await login(opened, "alice", ACCOUNTS["alice"]) == Reject(Reason.NOT_IN_GROUP)


async def test_referrals_in_a_circle_come_to_an_end(site: Site, slapd: Slapd) -> None:
    add_referral(slapd, f"ldap://localhost/ou=deep,{FAR}")
    url = slapd.tls_url.replace("127.0.0.1", "localhost")
    with pytest.raises(BackendDown, match="which is not followed"):
        await login_by(site.config(slapd.tls_url, referrals=(url,), base=f"ou=deep,{FAR}"))


# Diagnosis --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("52e", Reason.BAD_PASSWORD),
        ("525", Reason.NO_USER),
        ("530", Reason.LOGON_RESTRICTED),
        ("531", Reason.LOGON_RESTRICTED),
        ("532", Reason.CREDENTIALS_EXPIRED),
        ("533", Reason.DISABLED),
        ("701", Reason.ACCOUNT_EXPIRED),
        ("773", Reason.MUST_CHANGE_PASSWORD),
        ("775", Reason.ACCOUNT_LOCKED),
        ("52f", Reason.LOGON_RESTRICTED),
        ("569", Reason.LOGON_RESTRICTED),
    ],
)
def test_a_sub_code_of_active_directory_is_a_reason(code: str, reason: Reason) -> None:
    message = f"80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data {code}, v3839"
    assert diagnosis.of_bind(Outcome(49, "invalidCredentials", message, None)) is reason


@pytest.mark.parametrize("code", ["51f", "568", "6ba", "57", "80090346"])
def test_a_sub_code_that_does_not_judge_the_user_is_an_outage(code: str) -> None:
    message = f"80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data {code}, v3839"
    with pytest.raises(BackendDown, match=f"code {code}"):
        diagnosis.of_bind(Outcome(49, "invalidCredentials", message))


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome(49, "invalidCredentials", "Invalid credentials"), Reason.BAD_PASSWORD),
        (Outcome(48, "inappropriateAuthentication"), Reason.BAD_PASSWORD),
        (Outcome(49, "invalidCredentials", "password expired!", expired=True), Reason.CREDENTIALS_EXPIRED),
        (Outcome(0, "success", expired=True), Reason.MUST_CHANGE_PASSWORD),
        (Outcome(19, "constraintViolation", "Exceed password retry limit. Please try later."), Reason.ACCOUNT_LOCKED),
        (Outcome(53, "unwillingToPerform", "Account inactivated. Contact system administrator."), Reason.DISABLED),
        (Outcome(53, "unwillingToPerform", "Account (Kerberos principal) is expired"), Reason.ACCOUNT_EXPIRED),
        (Outcome(53, "unwillingToPerform", "Account inactivated.", 1), Reason.DISABLED),
    ],
)
def test_389_and_freeipa_have_words_for_their_reasons(outcome: Outcome, reason: Reason) -> None:
    assert diagnosis.of_bind(outcome) is reason


@pytest.mark.parametrize(
    ("code", "down"), [(1, True), (51, True), (52, True), (80, True), (49, False), (53, False), (32, False)]
)
def test_a_server_that_can_not_tell_is_told_from_one_that_refuses(code: int, *, down: bool) -> None:
    assert Outcome(code, "any").is_outage is down


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome(19, "constraintViolation", "", None), Reason.PASSWORD_REFUSED),
        (Outcome(53, "unwillingToPerform", "", None), Reason.PASSWORD_REFUSED),
        (Outcome(19, "constraintViolation", "", 6), Reason.PASSWORD_TOO_SHORT),
        (Outcome(50, "insufficientAccessRights", "", None), Reason.NOT_SUPPORTED),
    ],
)
def test_a_refused_change_has_its_reason(outcome: Outcome, reason: Reason) -> None:
    assert diagnosis.of_change(outcome) is reason


def test_an_answer_that_is_neither_yes_nor_no_is_an_outage() -> None:
    with pytest.raises(BackendDown, match="operationsError"):
        diagnosis.of_change(Outcome(1, "operationsError", "", None))
    with pytest.raises(BackendDown, match="unwillingToPerform"):
        diagnosis.of_bind(Outcome(53, "unwillingToPerform", "", None))


@given(st.binary(max_size=64))
def test_any_octets_may_be_a_policy_answer(value: bytes) -> None:
    error = parse_policy(value)
    assert error is None or error >= 0


@pytest.mark.parametrize(
    ("value", "error"), [("3000", None), ("3003810101", 1), ("3008a00381010581 0102", 2), ("3005a003800101", None)]
)
def test_a_policy_answer_is_read(value: str, error: int | None) -> None:
    assert parse_policy(bytes.fromhex(value)) == error


async def test_a_locked_account_is_told(backend: Backend, slapd: Slapd) -> None:
    slapd.modify(
        f"dn: {dn_of('alice')}\nchangetype: modify\nreplace: pwdAccountLockedTime\npwdAccountLockedTime: 000001010000Z\n"
    )
    assert await login(backend, "alice", ACCOUNTS["alice"]) == Reject(Reason.ACCOUNT_LOCKED)


async def test_a_password_that_must_be_changed_is_no_login(backend: Backend, slapd: Slapd) -> None:
    slapd.modify(f"dn: {POLICY}\nchangetype: modify\nreplace: pwdMustChange\npwdMustChange: TRUE\n")
    slapd.modify(f"dn: {dn_of('alice')}\nchangetype: modify\nreplace: pwdReset\npwdReset: TRUE\n")
    assert await login(backend, "alice", ACCOUNTS["alice"]) == Reject(Reason.MUST_CHANGE_PASSWORD)


async def test_an_expired_password_is_told(backend: Backend, slapd: Slapd) -> None:
    slapd.modify(f"dn: {POLICY}\nchangetype: modify\nreplace: pwdMaxAge\npwdMaxAge: 1\n")
    changed = "pwdChangedTime: 20200101000000Z"
    slapd.modify(f"dn: {dn_of('alice')}\nchangetype: modify\nreplace: pwdChangedTime\n{changed}\n", relaxed=True)
    assert await login(backend, "alice", ACCOUNTS["alice"]) == Reject(Reason.CREDENTIALS_EXPIRED)


async def test_a_password_that_the_policy_forbids_is_refused(site: Site, slapd: Slapd) -> None:
    slapd.modify(f"dn: {POLICY}\nchangetype: modify\nreplace: pwdMinLength\npwdMinLength: 30\n")
    slapd.modify(MANAGER)
    site.secret.write_text("fake manager")
    config = site.config(slapd.tls_url, bind_dn=f"cn=manager,{PEOPLE}")
    async with extauth_ldap.open(config, context()) as opened:
        answer = await ask(opened, SetPassword(ALICE, ORIGIN, Secret("too short")))
        assert answer == Reject(Reason.PASSWORD_TOO_SHORT)


async def test_an_account_without_the_right_can_not_set_passwords(site: Site, slapd: Slapd) -> None:
    site.secret.write_text(ACCOUNTS["alice"])
    config = site.config(slapd.tls_url, bind_dn=dn_of("alice"))
    async with extauth_ldap.open(config, context()) as opened:
        change = SetPassword(Identity("bob", DOMAIN), ORIGIN, Secret("battery staple"))
        assert await ask(opened, change) == Reject(Reason.NOT_SUPPORTED)


# Groups -----------------------------------------------------------------------------------------------------------------------


def add_group(slapd: Slapd, name: str, *members: str) -> None:
    lines = "".join(f"member: {member}\n" for member in members)
    slapd.modify(f"dn: cn={name},{GROUPS}\nchangetype: add\nobjectClass: groupOfNames\n{lines}")


@pytest.mark.parametrize("groups_by", ["memberOf", "search"])
async def test_a_required_group_lets_in_its_members_alone(site: Site, slapd: Slapd, groups_by: str) -> None:
    inner, outer = f"cn=inner,{GROUPS}", f"cn=outer,{GROUPS}"
    add_group(slapd, "inner", dn_of("alice"))
    add_group(slapd, "outer", inner, dn_of("gr\u00fcn"))
    slapd.modify(f"dn: {inner}\nchangetype: modify\nadd: member\nmember: {outer}\n")  # a cycle
    roles = (f"staff:{inner}", f"chief:{outer.upper()}", f"nobody:cn=none,{GROUPS}")
    config = site.config(
        slapd.tls_url, required_group=outer.replace(",", ", "), groups_by=groups_by, group_base=GROUPS, roles=roles
    )
    assert await login_by(config) == Reject(Reason.NOT_IN_GROUP)
    assert await login_by(config, "gr\u00fcn", ACCOUNTS["gr\u00fcn"]) == Accept(
        Identity("gr\u00fcn", DOMAIN), {"role": "chief"}
    )
    async with extauth_ldap.open(replace(config, nested=True), context()) as opened:
        assert await login(opened, "alice", ACCOUNTS["alice"]) == Accept(ALICE, {"role": "chief,staff"})
        assert await login(opened, "alice", "fake wrong") == Reject(Reason.BAD_PASSWORD)
        assert await login(opened, "bob", ACCOUNTS["bob"]) == Reject(Reason.NOT_IN_GROUP)
        assert await ask(opened, CheckCertificate(Identity("bob", DOMAIN), ORIGIN)) == Reject(Reason.NOT_IN_GROUP)
        assert await ask(opened, UserExists(Identity("bob", DOMAIN), ORIGIN)) is None


def test_equal_names_of_groups_are_one_text() -> None:
    assert normal("CN = Staff, DC=example") == normal("cn=staff,dc=example")


# Configuration ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"servers": ()}, "servers: name at least one"),
        ({"servers": ("ldap://a",)}, "needs start_tls = true, or allow_plaintext = true"),
        ({"servers": ("https://a",)}, "must be ldaps://HOST"),
        ({"servers": ("ldaps://a/dc=x",)}, "must end after host and port"),
        ({"servers": ("ldaps://a:x",)}, "servers: ldaps://a:x"),
        ({"base": ""}, "base: missing"),
        ({"filter": "(uid=x)"}, "filter: must hold {user}"),
        ({"filter": "(uid={user})(x={other})"}, "filter: {other} is no place"),
        ({"base": "dc={"}, "base: a brace"),
        ({"bind_dn_template": "uid={user}"}, "leave out base and bind_dn"),
        ({"bind_dn_template": "uid=x"}, "bind_dn_template: must hold {user}"),
        ({"bind_password_file": None}, "give both or none"),
        ({"client_key": "x"}, "needs client_certificate"),
        ({"roles": ("staff",)}, "must be role:DN"),
        ({"groups_by": "search"}, "group_base: missing"),
        ({"threads": 0}, "threads: must be more than 0"),
        ({"timeout": 0.0}, "must be more than 0"),
    ],
)
def test_what_is_wrong_is_told(site: Site, keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        site.config(**{"servers": ("ldaps://a",), **keys})
    assert problem in str(caught.value)


async def test_files_that_can_not_be_used_are_told(site: Site) -> None:
    async def opened(**keys: str) -> None:
        async with extauth_ldap.open(site.config("ldaps://a", **keys), context()):
            pass

    site.secret.chmod(0o644)
    with pytest.raises(ConfigError, match="others can read it"):
        await opened()
    site.secret.chmod(0o600)
    site.secret.write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        await opened()
    site.secret.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        await opened()
    with pytest.raises(ConfigError, match=r"(?s)bind_password_file: .*ca_file"):  # all at once
        await opened(ca_file="/nonexistent")
    site.secret.write_text("fake")
    site.secret.chmod(0o600)
    with pytest.raises(ConfigError, match="ca_file"):
        await opened(ca_file="/nonexistent")
