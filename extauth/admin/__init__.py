"""What administrators ask of the daemon: the verbs behind the CLI's commands.

The `admin` listener performs them for other processes; where no daemon runs, the CLI performs those on accounts itself.
"""

from extauth import jid
from extauth.admin import accounts, daemon, keys, tokens
from extauth.admin.command import Command, ImportedAccount, Reply, Verb, refusal
from extauth.model import Origin, Reason
from extauth.service import Service
from extauth.values import nearest

__all__ = ["Command", "ImportedAccount", "perform"]

_VERBS: dict[str, Verb] = {**accounts.VERBS, **tokens.VERBS, **keys.VERBS, **daemon.VERBS}


async def perform(service: Service, command: Command, origin: Origin) -> Reply:
    """Perform a command. Returns {"ok": true, "result": ...} or {"ok": false, "reason": code, "detail": text}."""
    verb = _VERBS.get(command.verb)
    if verb is None:
        return refusal(Reason.MALFORMED, f"no verb {command.verb!r}")
    try:
        answer = await verb(service, command, origin)
    except jid.InvalidName as error:
        return refusal(Reason.BAD_NAME, str(error))
    if answer.get("reason") == Reason.UNKNOWN_DOMAIN:
        asked = command.domain or command.jid.rpartition("@")[2]
        answer["detail"] = nearest(asked, service.settings.domains).strip(" ()")
    return answer
