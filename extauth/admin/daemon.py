"""The verbs about the daemon itself."""

from msgspec import to_builtins

from extauth.admin.command import Command, Reply, Verb, result, unavailable
from extauth.errors import BackendDown
from extauth.layers.compose import Layered
from extauth.model import Origin
from extauth.service import Service

MAX_WAIT = 30.0  # seconds that `audit-tail` waits at most


async def _status(service: Service, _command: Command, _origin: Origin) -> Reply:
    """What the daemon is doing."""
    settings, metrics = service.settings, service.metrics
    protocols = {listener.name: listener for listener in settings.listeners}
    return result(
        {
            "uptime": round(service.uptime, 1),
            "reloads": metrics.reloads,
            "failed_reloads": metrics.failed_reloads,
            "audit_lines_lost": service.journal.lost,
            "listeners": {
                name: {
                    "protocol": protocols[name].protocol,
                    "address": protocols[name].config.address,
                    "connections": server.connections,
                }
                for name, server in service.servers.items()
            },
            "backends": {name: table.type for name, table in settings.backends.items()},
            "conditions": {name: _condition(entry) for name, entry in service.layered.items()},
            "state_problem": await _state_problem(service),
            "password_threads": service.hashing.load._asdict(),
            "remembered": {name: len(entry.remembered) for name, entry in service.layered.items()},
            "learned": await _learned(service),
            "domains": {name: list(domain.backends) for name, domain in settings.domains.items()},
            "decisions": [{**key._asdict(), "count": count} for key, count in metrics.outcomes()],
        }
    )


async def _state_problem(service: Service) -> str:
    """Why the state store does not answer; "": it does."""
    try:
        await service.store.write()
    except BackendDown as down:
        return str(down)
    return ""


def _condition(entry: Layered) -> Reply:
    """Whether a backend answers, as far as that was seen."""
    seen, insight = entry.condition, entry.insight()
    return {
        "state": seen.state,
        "since": round(seen.since, 1),
        "failures": seen.failures,
        "last_failure": {"at": round(seen.failed, 1), "problem": seen.problem} if seen.failures else None,
        "servers_down": {url: {"problem": down.problem, "since": round(down.since, 1)} for url, down in insight.down.items()},
        "threads": insight.load._asdict() if insight.load else None,
    }


async def _learned(service: Service) -> list[Reply]:
    """How many of the users who have logged in lately have SCRAM keys, by backend and domain."""
    found: list[Reply] = []
    for name, entry in service.layered.items():
        if entry.learning is not None:
            try:
                shares = await entry.learning.share()
            except BackendDown:
                continue  # the rest of the status is worth having
            found += [{"backend": name, "domain": domain, **share._asdict()} for domain, share in sorted(shares.items())]
    return found


async def _cache_flush(service: Service, command: Command, _origin: Origin) -> Reply:
    """Forget what caches remember of the users whose JID matches the shell pattern `mask`, in all daemons on this store."""
    try:
        return result({"forgotten": await service.caches.forget_matching(command.mask.casefold())})
    except BackendDown as down:
        return unavailable(str(down))


async def _audit_tail(service: Service, command: Command, _origin: Origin) -> Reply:
    """The decisions after number `seen`; waits up to `wait` seconds for one. A negative `seen`: the last that many."""
    journal = service.journal
    seen = command.seen if command.seen >= 0 else max(journal.decided + command.seen, 0)
    last, decisions = await journal.tail(seen, min(command.wait, MAX_WAIT))
    return result({"seen": last, "decisions": to_builtins(decisions)})


VERBS: dict[str, Verb] = {
    "cache-flush": _cache_flush,
    "status": _status,
    "audit-tail": _audit_tail,
}
