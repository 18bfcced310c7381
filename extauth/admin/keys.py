"""The verbs about the keys that sign tokens."""

from collections.abc import Awaitable, Callable

from extauth import jid
from extauth.admin.command import Command, Reply, Verb, refusal, result, unavailable
from extauth.errors import BackendDown
from extauth.keystore import Keystore
from extauth.model import Origin, Reason
from extauth.service import Service
from extauth.tokens.kinds import KEYS


def _about_keys(verb: Callable[[Keystore, str, Command], Awaitable[Reply]]) -> Verb:
    """Return a verb about the keys of `domain`. None of them ever tells what a key is."""

    async def checked(service: Service, command: Command, _origin: Origin) -> Reply:
        domain = jid.domain_part(command.domain)
        if domain not in service.settings.domains:
            return refusal(Reason.UNKNOWN_DOMAIN)
        if command.key and command.key not in KEYS:
            return refusal(Reason.BAD_NAME, f"no key {command.key!r}: there are {', '.join(KEYS)}")
        try:
            return await verb(service.keystore, domain, command)
        except BackendDown as down:
            return unavailable(str(down))

    return checked


async def _key_list(keys: Keystore, domain: str, _command: Command) -> Reply:
    return result([key._asdict() for key in await keys.described(domain)])


async def _key_add(keys: Keystore, domain: str, command: Command) -> Reply:
    """A new key `key`: random, or `value`."""
    return result({"key": command.key, "id": await keys.add(domain, command.key, command.value or None)})


async def _key_retire(keys: Keystore, domain: str, command: Command) -> Reply:
    """Forget the key `key` with `key_id`; `force`: whatever it has signed."""
    if await keys.retire(domain, command.key, command.key_id, force=command.force):
        return result({"key": command.key, "id": command.key_id})
    return refusal(Reason.NOT_ALLOWED, "there is no such key, or tokens that it has signed may still be valid")


VERBS: dict[str, Verb] = {
    "key-list": _about_keys(_key_list),
    "key-add": _about_keys(_key_add),
    "key-retire": _about_keys(_key_retire),
}
