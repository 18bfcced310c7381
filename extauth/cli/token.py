"""`extauth token ...` and `extauth session ...`: what the `tokens` backend has issued."""

from collections.abc import Callable

import click

from extauth.admin import Command
from extauth.cli.client import perform_anyhow
from extauth.cli.common import Choices, options, read_secret, show, utc

PAGE = 1000
KINDS = ("temporary", "fast", "guest", "provision")

domain_option = click.option("--domain", metavar="DOMAIN", default="", help="Needed if several domains are configured.")


def only_domain(choices: Choices, domain: str) -> str:
    """Return `domain`, or the one that there is."""
    domains = list(choices.settings().domains)
    if not domain and len(domains) != 1:
        raise click.UsageError(f"--domain is needed: there are {', '.join(domains)}")
    return domain or domains[0]


@click.group()
def token() -> None:
    """Issue, inspect and revoke tokens.

    By the running daemon, or on its store when none runs.
    """


@token.command()
@click.argument("jid")
@click.option("--device", metavar="NAME", default="", help="Whose tokens they are: a device has one session.")
@click.option(
    "--kind", type=click.Choice(KINDS), default=None, help="A token of this kind, instead of an access and a refresh token."
)
@click.option(
    "--room", "rooms", metavar="JID", multiple=True, help="A room that a guest may enter; may be given several times."
)
@click.option("--vcard", metavar="XML", default=None, help="What a provision token carries.")
@click.option("--lifetime", metavar="SECONDS", type=click.IntRange(min=1), help="Of a temporary, guest or provision token.")
@click.option("--one-time", is_flag=True, help="A temporary token that logs in once.")
@click.option(
    "--mechanism", metavar="NAME", default="", help="The only SASL mechanism that a temporary or FAST token is good for."
)
@options
@click.pass_obj
def issue(
    choices: Choices,
    jid: str,
    device: str,
    kind: str | None,
    rooms: tuple[str, ...],
    vcard: str | None,
    lifetime: int | None,
    mechanism: str,
    *,
    one_time: bool,
) -> None:
    """Issue tokens to JID, as after a login by password."""
    for option, given, kinds in (
        ("--room", rooms, ("guest",)),
        ("--vcard", vcard is not None, ("provision",)),
        ("--one-time", one_time, ("temporary",)),
        ("--mechanism", mechanism, ("temporary", "fast")),
        ("--lifetime", lifetime, ("temporary", "guest", "provision")),
    ):
        if given and kind not in kinds:
            raise click.UsageError(f"{option} needs --kind {' or '.join(kinds)}")
    if kind == "fast" and not (device and mechanism):
        raise click.UsageError("--kind fast needs --device and --mechanism")
    fields = ({"rooms": ",".join(rooms)} if rooms else {}) | ({"vcard": vcard} if vcard is not None else {})
    command = Command(
        "token-issue",
        jid=jid,
        device=device,
        kind=kind or "",
        fields=fields,
        lifetime=lifetime or 0,
        one_time=one_time,
        mechanism=mechanism,
    )
    show(choices, perform_anyhow(choices, command), _described)


@token.command()
@domain_option
@options
@click.pass_obj
def inspect(choices: Choices, domain: str) -> None:
    """Tell what a token is.

    It is read from a prompt or standard input, and not used up.
    """
    command = Command("token-inspect", domain=only_domain(choices, domain), token=read_secret("Token"))
    show(choices, perform_anyhow(choices, command), _described)


@token.command()
@domain_option
@options
@click.pass_obj
def revoke(choices: Choices, domain: str) -> None:
    """Revoke a token, and its whole session.

    It is read from a prompt or standard input.
    """
    command = Command("session-end", domain=only_domain(choices, domain), token=read_secret("Token"))
    show(choices, perform_anyhow(choices, command), _ended)


@token.command(name="list")
@click.argument("jid", required=False, default="")
@domain_option
@options
@click.pass_obj
def list_tokens(choices: Choices, jid: str, domain: str) -> None:
    """List the valid refresh tokens of JID, or of the domain."""
    show(choices, _sessions(choices, jid, domain), _lines(lambda s: f"refresh {s['number']} of {s['session']}"))


@click.group()
def session() -> None:
    """Start, list and end sessions of devices.

    By the running daemon, or on its store when none runs.
    """


@session.command(name="list")
@click.argument("jid", required=False, default="")
@domain_option
@options
@click.pass_obj
def list_sessions(choices: Choices, jid: str, domain: str) -> None:
    """List the sessions of JID, or of the domain."""
    show(choices, _sessions(choices, jid, domain), _lines(lambda s: f"{s['session']} {s['device'] or '-'}"))


@session.command()
@click.argument("jid", required=False, default="")
@click.option("--session", "family", metavar="ID", default="", help="Only this one.")
@click.option("--device", metavar="NAME", default="", help="Only those of this device.")
@click.option("--all", "everybody", is_flag=True, help="Of everybody in the domain.")
@domain_option
@options
@click.pass_obj
def end(choices: Choices, jid: str, family: str, device: str, domain: str, *, everybody: bool) -> None:
    """End the sessions of JID and revoke its tokens."""
    if bool(jid) == everybody:
        raise click.UsageError("either JID or --all is needed")
    if everybody:
        domain = only_domain(choices, domain)
    command = Command("session-end", jid=jid, domain=domain, session=family, device=device)
    show(choices, perform_anyhow(choices, command), _ended)


@session.command()
@click.argument("jid")
@click.option("--device", metavar="NAME", default="", help="Whose session it is: a device has one.")
@click.option("--cookie", "bound", is_flag=True, help="Bind it to a cookie, read from a prompt or standard input.")
@options
@click.pass_obj
def start(choices: Choices, jid: str, device: str, *, bound: bool) -> None:
    """Begin a session and show its first relogin key.

    As after a login of JID by password.
    """
    cookie = read_secret("Cookie") if bound else None
    command = Command("session-start", jid=jid, device=device, cookie=cookie)
    show(choices, perform_anyhow(choices, command), _described)


def _sessions(choices: Choices, jid: str, domain: str) -> list[dict[str, str]]:
    if not jid:
        domain = only_domain(choices, domain)
    found: list[dict[str, str]] = []
    after = ""
    while page := perform_anyhow(choices, Command("session-list", jid=jid, domain=domain, after=after, limit=PAGE)):
        found += page
        after = page[-1]["session"]
        if len(page) < PAGE:
            break
    return found


def _lines(what: Callable[[dict[str, str]], str]) -> Callable[[list[dict[str, str]]], str]:
    def text(sessions: list[dict[str, str]]) -> str:
        return "\n".join(
            f"{s['jid']} {what(s)} since {utc(s['made'])}, used {utc(s['used'])}, ends {utc(s['ends'])}" for s in sessions
        )

    return text


def _ended(result: dict[str, str]) -> str:
    return f"{result['jid'].removeprefix('@')}: {result['ended']} sessions ended"


def _described(result: dict[str, str]) -> str:
    return "\n".join(f"{key}: {utc(value) if key.endswith('expires') else value}" for key, value in result.items())
