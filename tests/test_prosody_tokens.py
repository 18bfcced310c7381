"""Debian's Prosody with contrib/prosody/mod_auth_extauth and extauth itself: tokens for native clients, and guests."""

import base64
import json
import shlex
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element
from xml.sax.saxutils import quoteattr

import pytest
import scramp

from extauth.model import Identity
from tests import needs
from tests.certificates import Certificates
from tests.daemons import Daemon, extauth, with_local_accounts
from tests.jwts import write_secret
from tests.rawxmpp import SASL, BoshStream, Stream, TcpStream, WebsocketStream, condition, decode, encode
from tests.servers.process import poll, temporary_folder
from tests.servers.prosody import Prosody
from tests.test_signed import token
from tests.xmppclient import Job, XmppClient

pytestmark = needs.debian("prosody")

SITE = b"fake secret of a site"
_PASSWORD = "fake right"
_TOKENS = "erlang-solutions.com:xmpp:token-auth:0"
_SASL2 = "urn:xmpp:sasl:2"
_DISCO = "http://jabber.org/protocol/disco#info"
_MUC = "http://jabber.org/protocol/muc"
_CLIENT = "{jabber:client}"
_DAEMON = """\
[listener.sasl]
protocol = "dovecot"
address = "unix:{folder}/sasl.sock"
[backend.tokens]
[backend.cloud]
type = "signed"
format = "xcauth"
secret_files = ["{folder}/xcauth.secret"]
[domain."anonymous.xmpp.test"]
backends = []
anonymous = true
"""
_PROSODY = """\
    authentication = "extauth"
    extauth_socket = "{folder}/sasl.sock"
    extauth_accounts_socket = "{folder}/ejabberd.sock"
    allow_registration = true
    """
_PLUGINS = (Path(__file__).parent.parent / "contrib" / "prosody", "/usr/lib/prosody/modules/mod_sasl2")
_HOSTS = """\
    VirtualHost "xmpp.test"
    VirtualHost "anonymous.xmpp.test"
    Component "rooms.xmpp.test" "muc"
    """


@dataclass(frozen=True)
class Site:
    """A Prosody and its daemon, which has the account alice."""

    prosody: Prosody
    daemon: Daemon
    certificates: Certificates

    def run(self, command: str, stdin: str = "") -> str:
        """Run a command of extauth; return what it printed."""
        done = extauth(*shlex.split(command), "-c", self.daemon.config, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stream(self, transport: str = "tcp", domain: str = "xmpp.test") -> Stream:
        """Connect."""
        if transport == "tcp":
            return TcpStream(self.prosody.port, domain, self.certificates.ca)
        if transport == "websocket":
            return WebsocketStream(self.prosody.http_port, domain)
        return BoshStream(self.prosody.http_port, domain)

    def by_token(self, token: str) -> Element:
        """Log in by X-OAUTH; return the server's answer."""
        with self.stream() as stream:
            return stream.auth("X-OAUTH", base64.b64decode(token))

    @contextmanager
    def guest(self) -> Generator[Stream]:
        """Give the stream of a guest who may enter the lobby, and a room that does not exist."""
        rooms = "--room Lobby@rooms.xmpp.test --room missing@rooms.xmpp.test"
        text = self.run(f"token issue visitor@xmpp.test --kind guest {rooms} --json")
        with self.stream() as stream:
            assert stream.auth("X-OAUTH", base64.b64decode(json.loads(text)["guest"])).tag == f"{SASL}success"
            stream.bind()
            yield stream

    @contextmanager
    def alice(self) -> Generator[Stream]:
        """Give a stream of alice."""
        with self.stream() as stream:
            assert scram(stream).tag == f"{SASL}success"
            stream.bind()
            yield stream


@pytest.fixture(scope="module")
def site(certificates: Certificates) -> Iterator[Site]:
    with temporary_folder() as folder, temporary_folder() as here:
        text = with_local_accounts(folder, ejabberd="allow_changes = true") + _DAEMON.format(folder=folder)
        text = text.replace('["local"]', '["tokens", "cloud", "local"]')
        write_secret(folder / "xcauth.secret", SITE)
        server = Prosody(
            here,
            certificates,
            _PROSODY.format(folder=folder),
            plugin_paths=_PLUGINS,
            modules=("sasl2", "vcard", "pep", "carbons", "user_account_management"),
            virtual_hosts=_HOSTS,
        )
        with Daemon(folder, text) as daemon, server:
            site = Site(server, daemon, certificates)
            for user in ("alice", "bob"):
                site.run(f"user add {user}@xmpp.test --password-stdin", stdin=_PASSWORD)
            yield site


def ask(stream: Stream, content: str, *, kind: str = "get", to: str = "", id_: str = "q") -> Element:
    """Put a question; return the answer to it."""
    target = f" to={quoteattr(to)}" if to else ""
    stream.send(f'<iq xmlns="jabber:client" type="{kind}" id="{id_}"{target}>{content}</iq>')
    while True:
        answer = stream.receive()
        if answer.tag == f"{_CLIENT}iq" and answer.get("id") == id_ and answer.get("type") in ("result", "error"):
            return answer


def ask_tokens(stream: Stream, to: str = "alice@xmpp.test", kind: str = "get") -> Element:
    """Ask for tokens as the seed of native clients has it."""
    return ask(stream, f"<query xmlns='{_TOKENS}'/>", to=to, kind=kind)


def tokens_in(answer: Element) -> tuple[str, str]:
    """Return the access and the refresh token of an answer."""
    assert answer.get("type") == "result", refusal(answer)
    (items,) = answer
    assert items.tag == f"{{{_TOKENS}}}items"
    assert [child.tag for child in items] == [f"{{{_TOKENS}}}access_token", f"{{{_TOKENS}}}refresh_token"]
    access, refresh = (child.text or "" for child in items)
    return access, refresh


def refusal(answer: Element) -> tuple[str, str]:
    """Return type and condition of a stanza error."""
    assert answer.get("type") == "error"
    error = answer.find(f"{_CLIENT}error")
    assert error is not None
    return error.get("type", ""), error[0].tag.rpartition("}")[2]


def scram(stream: Stream, password: str = _PASSWORD) -> Element:
    """Log alice in by SCRAM-SHA-256; return the server's answer."""
    client: Any = scramp.ScramClient(["SCRAM-SHA-256"], "alice", password)
    client.set_server_first(decode(stream.auth("SCRAM-SHA-256", client.get_client_first().encode())).decode())
    return stream.respond(client.get_client_final().encode())


def login_and_ask(site: Site, transport: str = "tcp") -> tuple[str, str]:
    with site.stream(transport) as stream:
        assert scram(stream).tag == f"{SASL}success"
        stream.bind()
        return tokens_in(ask_tokens(stream))


@pytest.mark.parametrize("transport", ["tcp", "websocket", "bosh"])
def test_reconnection(site: Site, transport: str) -> None:
    """Log in by SCRAM, ask for tokens, disconnect; come back by each of them, until they are revoked."""
    access, refresh = login_and_ask(site, transport)

    with site.stream(transport) as stream:
        assert "X-OAUTH" in stream.offered()
        success = stream.auth("X-OAUTH", base64.b64decode(access))
        assert (success.tag, decode(success)) == (f"{SASL}success", b"")
        assert stream.bind().startswith("alice@xmpp.test/")
        again = tokens_in(ask_tokens(stream))
        assert again[1] == refresh  # of the same session

    with site.stream(transport) as stream:
        success = stream.auth("X-OAUTH", base64.b64decode(refresh))
        assert success.tag == f"{SASL}success"
        successor = success.text or ""
        assert base64.b64decode(successor).startswith(b"refresh\0alice@xmpp.test/")
        assert successor != refresh
        assert stream.bind().startswith("alice@xmpp.test/")

    assert site.by_token(successor).tag == f"{SASL}success"
    latest = login_and_ask(site, transport)[1]
    site.run("token revoke --domain xmpp.test", stdin=latest)
    assert condition(site.by_token(latest)) == "not-authorized"
    site.daemon.wait_for_log("reason=token-revoked")
    for secret in (access, refresh, successor, latest):
        assert secret not in site.daemon.log()


def test_slixmpp_comes_back_by_an_access_token(site: Site, xmpp: XmppClient) -> None:
    access, refresh = login_and_ask(site)
    job = Job(port=site.prosody.port, jid="alice@xmpp.test", password=access, mechanism="PLAIN")
    assert xmpp.run(job).jid.startswith("alice@xmpp.test/")
    assert xmpp.run(Job(port=site.prosody.port, jid="alice@xmpp.test", password=refresh, mechanism="PLAIN")).ok is False


def test_a_token_of_xcauth(site: Site) -> None:
    now = int(time.time())
    good = token(Identity("alice", "xmpp.test"), now + 600, SITE)

    def login(password: str, user: str = "alice") -> str:
        with site.stream() as stream:
            return stream.auth("PLAIN", f"\0{user}\0{password}".encode()).tag

    assert login(good) == f"{SASL}success"
    assert login(good) == f"{SASL}success"
    assert login(good, "bob") == f"{SASL}failure"
    assert login(token(Identity("alice", "xmpp.test"), now - 1, SITE)) == f"{SASL}failure"
    assert login(good[::-1]) == f"{SASL}failure"


def test_the_request_is_for_ones_own_account(site: Site) -> None:
    with site.alice() as stream:
        features = ask(stream, f"<query xmlns='{_DISCO}'/>", to="xmpp.test")[0]
        assert _TOKENS in [child.get("var") for child in features]
        answer = ask_tokens(stream)
        assert answer.get("from") == "alice@xmpp.test"
        tokens_in(answer)
        tokens_in(ask_tokens(stream, to="", kind="set"))  # MongooseIM takes either type, and no addressee
        for other in ("bob@xmpp.test", "nobody@xmpp.test", "xmpp.test"):
            assert refusal(ask_tokens(stream, to=other))[1] == "service-unavailable"


def test_the_resource_names_the_device(site: Site) -> None:
    def ask_as(resource: str) -> str:
        with site.stream() as stream:
            scram(stream)
            stream.open()
            bind = f'<bind xmlns="urn:ietf:params:xml:ns:xmpp-bind"><resource>{resource}</resource></bind>'
            ask(stream, bind, kind="set")
            return tokens_in(ask_tokens(stream))[1]

    first = ask_as("fake-phone")
    assert " fake-phone since" in site.run("session list alice@xmpp.test")
    ask_as("fake-phone")
    assert condition(site.by_token(first)) == "not-authorized"  # one session a device


def test_the_client_of_sasl2_is_the_device(site: Site) -> None:
    agent = "d4565fa7-4d72-4749-b3d3-740edbf87770"
    with site.stream() as stream:
        response = encode(b"\0alice\0" + _PASSWORD.encode())
        stream.send(
            f'<authenticate xmlns="{_SASL2}" mechanism="PLAIN"><initial-response>{response}</initial-response>'
            f'<user-agent id="{agent}"/></authenticate>'
        )
        assert stream.receive().tag == f"{{{_SASL2}}}success"
        stream.receive()  # the features
        ask(stream, '<bind xmlns="urn:ietf:params:xml:ns:xmpp-bind"/>', kind="set")
        tokens_in(ask_tokens(stream))
    assert f" {agent} since" in site.run("session list alice@xmpp.test")


def test_who_gets_no_tokens(site: Site) -> None:
    with site.stream(domain="anonymous.xmpp.test") as stream:
        assert stream.auth("ANONYMOUS").tag == f"{SASL}success"
        jid = stream.bind().partition("/")[0]
        assert refusal(ask_tokens(stream, to=jid))[1] in ("service-unavailable", "forbidden")
    with site.guest() as guest:
        assert refusal(ask_tokens(guest, to="visitor@xmpp.test")) == ("auth", "forbidden")
    with site.alice() as stream:
        site.run("session end alice@xmpp.test")
        assert refusal(ask_tokens(stream)) == ("auth", "forbidden")


def test_an_outage_is_told_as_one(site: Site) -> None:
    with site.alice() as stream:
        site.daemon.stop()
        try:
            assert refusal(ask_tokens(stream)) == ("wait", "remote-server-timeout")
        finally:
            site.daemon.start()
        poll(lambda: ask_tokens(stream).get("type") == "result", "Prosody has found the daemon again")


# Guests -----------------------------------------------------------------------------------------------------------------------


def enter(stream: Stream, room: str, nick: str) -> Element:
    """Enter a room; return the presence that tells how it went."""
    to = f"{room}@rooms.xmpp.test/{nick}"
    stream.send(f'<presence xmlns="jabber:client" to="{to}"><x xmlns="{_MUC}"/></presence>')
    while True:
        answer = stream.receive()
        own = answer.find(f".//{{{_MUC}#user}}status[@code='110']") is not None
        if answer.tag == f"{_CLIENT}presence" and (own or answer.get("type") == "error"):
            return answer


def say(stream: Stream, to: str, text: str, *, kind: str = "groupchat", content: str = "") -> None:
    """Send a message."""
    body = f"<body>{text}</body>{content}"
    stream.send(f'<message xmlns="jabber:client" type="{kind}" to="{to}">{body}</message>')


def hear(stream: Stream) -> Element:
    """Return the next message with a text, or an error instead of one."""
    while True:
        answer = stream.receive()
        if (answer.tag == f"{_CLIENT}message" and answer.find(f"{_CLIENT}body") is not None) or answer.get("type") == "error":
            return answer


def text_of(message: Element) -> str | None:
    return message.findtext(f"{_CLIENT}body")


def open_room(owner: Stream, room: str) -> None:
    """Make a room that everybody may enter."""
    assert enter(owner, room, "alice").get("type") is None
    form = f'<query xmlns="{_MUC}#owner"><x xmlns="jabber:x:data" type="submit"/></query>'
    assert ask(owner, form, kind="set", to=f"{room}@rooms.xmpp.test").get("type") == "result"


def test_a_guest_in_and_out_of_rooms(site: Site) -> None:
    with site.alice() as alice, site.guest() as guest:
        for room in ("lobby", "office"):
            open_room(alice, room)
        assert enter(guest, "lobby", "visitor").get("type") is None
        say(guest, "lobby@rooms.xmpp.test", "fake hello")
        assert text_of(hear(alice)) == "fake hello"
        assert text_of(hear(guest)) == "fake hello"
        say(guest, "lobby@rooms.xmpp.test/alice", "fake aside", kind="chat")
        assert text_of(hear(alice)) == "fake aside"
        assert ask(guest, f"<query xmlns='{_DISCO}'/>", to="lobby@rooms.xmpp.test").get("type") == "result"
        assert ask(guest, f"<query xmlns='{_DISCO}'/>", to="rooms.xmpp.test").get("type") == "result"

        assert refusal(enter(guest, "office", "visitor")) == ("auth", "forbidden")
        assert refusal(enter(guest, "new", "visitor")) == ("auth", "forbidden")
        assert refusal(enter(guest, "missing", "visitor")) == ("cancel", "item-not-found")  # it would be the owner
        assert refusal(ask(guest, f"<query xmlns='{_DISCO}'/>", to="office@rooms.xmpp.test")) == ("auth", "forbidden")
        owner = f'<query xmlns="{_MUC}#owner"><destroy/></query>'
        assert refusal(ask(guest, owner, kind="set", to="lobby@rooms.xmpp.test")) == ("auth", "forbidden")
        invitation = f'<x xmlns="{_MUC}#user"><invite to="bob@xmpp.test"/></x>'
        say(guest, "lobby@rooms.xmpp.test", "fake", kind="normal", content=invitation)
        assert refusal(hear(guest)) == ("auth", "forbidden")
        for stranger in ("alice@xmpp.test", "somebody@other.test", "office@rooms.xmpp.test"):
            say(guest, stranger, "fake", kind="chat")
            assert refusal(hear(guest)) == ("auth", "forbidden")
        say(guest, "alice@xmpp.test", "fake", kind="error")  # dropped: an error is never answered
        say(guest, "lobby@rooms.xmpp.test", "fake last")
        assert text_of(hear(alice)) == "fake last"


def test_a_guest_changes_no_account(site: Site) -> None:
    register = '<query xmlns="jabber:iq:register"><username>visitor</username><password>fake</password></query>'
    changes = {
        "": '<vCard xmlns="vcard-temp"><FN>fake</FN></vCard>',
        "visitor@xmpp.test": '<pubsub xmlns="http://jabber.org/protocol/pubsub"><publish node="fake"/></pubsub>',
        "xmpp.test": register,
    }
    with site.guest() as guest:
        for to, change in changes.items():
            assert refusal(ask(guest, change, kind="set", to=to)) == ("cancel", "not-allowed")
        assert ask(guest, '<query xmlns="jabber:iq:roster"/>').get("type") == "result"
        assert ask(guest, '<enable xmlns="urn:xmpp:carbons:2"/>', kind="set").get("type") == "result"
        assert ask(guest, '<ping xmlns="urn:xmpp:ping"/>', to="xmpp.test").get("type") == "result"
    with site.alice() as alice:  # others may, as ever
        assert ask(alice, changes[""], kind="set").get("type") == "result"
        assert "bob@xmpp.test" in site.run("user list xmpp.test")
        assert "visitor" not in site.run("user list xmpp.test")
