"""The running daemon: opens what a configuration names, follows signals, reloads, drains."""

import gc
import os
import resource
import secrets
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import NamedTuple

import structlog
import trio

from extauth import plugins
from extauth.errors import BackendDown, ConfigError
from extauth.journal import Journal
from extauth.metrics import Metrics
from extauth.revocation import Revocations
from extauth.secretfile import read_secret
from extauth.server import Server
from extauth.service import Service, Surroundings
from extauth.settings import Daemon as DaemonSettings
from extauth.settings import Listener, Settings
from extauth.sockets import Listening, listen
from extauth.soon import settle
from extauth.store import Store, open_store
from extauth.supervisor import notify, notify_reloading, watchdog_interval
from extauth.threads import Threads

_log = structlog.get_logger("daemon")

NICE = 10  # of the threads for key derivation: whoever needs none is answered first
SPARE_FILES = 64  # beside the connections: the store, backends, logs


@asynccontextmanager
async def open_service(settings: DaemonSettings, journal: Journal) -> AsyncGenerator[Service, None]:
    """Open what all generations share, and a service that has none yet.

    Raises:
        ConfigError: the state store can't be used.
        BackendDown: its database does not answer.
    """
    size = settings.hash_threads or os.cpu_count() or 1
    file = settings.state_password_file
    password = read_secret(file, "daemon.state_password_file") if file else None
    with Threads("password", size, settings.hash_patience, NICE) as threads:
        async with open_store(settings.state, password) as store, Revocations.open() as revocations:
            keys = [await _shared_secret(store, name) for name in ("decoy", "grant")]
            yield Service(Surroundings(store, journal, Metrics(), None, threads, revocations, time.time, *keys))


@asynccontextmanager
async def open_without_listeners(settings: Settings) -> AsyncGenerator[Service, None]:
    """Open a whole configuration but for its listeners.

    Raises:
        ConfigError: something can't be opened.
    """
    async with open_service(settings.daemon, Journal(None)) as service, AsyncExitStack() as stack:
        service.adopt(await service.open_generation(settings, stack))
        yield service


async def _shared_secret(store: Store, name: str) -> bytes:
    """Return the random key of this name, the same for every process that ever uses this store."""
    fresh = secrets.token_bytes(32)
    await store.write(("INSERT INTO secret (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING", (name, fresh)))
    [[value]] = await settle(store.read("SELECT value FROM secret WHERE name = $1", name))
    assert isinstance(value, bytes)
    return value


class _Running(NamedTuple):
    listener: Listener
    server: Server
    listening: Listening
    stop: trio.CancelScope


class Daemon:
    """Runs the listeners of the configuration in force."""

    def __init__(self, service: Service, nursery: trio.Nursery) -> None:
        self._service = service
        self._nursery = nursery
        self._running: dict[str, _Running] = {}

    async def apply(self, settings: Settings) -> None:
        """Open a configuration, and only when all of it is open retire the one before.

        Raises:
            ConfigError: something can't be opened; nothing has changed.
        """
        if self._service.settings.domains and settings.daemon != self._service.settings.daemon:
            raise ConfigError(["daemon: changes of this table take effect only when the daemon is started anew"])
        generation = await self._nursery.start(self._service.run_generation, settings)
        try:
            fresh = self._open(settings)
        except BaseException:
            generation.retired.set()
            raise
        self._service.adopt(generation)
        kept = {listener.name for listener in settings.listeners} - fresh.keys()
        retired = [running for name, running in self._running.items() if name not in kept]
        self._running = {name: running for name, running in self._running.items() if name in kept} | fresh
        for running in fresh.values():
            await self._nursery.start(self._run, running)
        in_use = {running.listening for running in self._running.values()}
        for running in retired:
            running.server.stop_accepting()
            if running.listening not in in_use:
                running.listening.close()
            self._nursery.start_soon(self._retire, running, settings.daemon.drain)
        self._service.servers = {name: running.server for name, running in self._running.items()}
        _check_file_limit(settings)
        for problem in self._service.advice():
            _log.warning("somebody may be locked out", problem=problem)

    async def drain(self) -> None:
        """Answer what has been asked, within the configured time, and close everything."""
        for running in self._running.values():
            running.server.stop_accepting()
            running.listening.close()
        async with trio.open_nursery() as nursery:
            for running in self._running.values():
                nursery.start_soon(self._retire, running, self._service.settings.daemon.drain)

    def _open(self, settings: Settings) -> dict[str, _Running]:
        """Make the servers that are new or changed, and the sockets that are not open yet."""
        fresh: dict[str, _Running] = {}
        opened: list[Listening] = []
        problems: list[str] = []
        by_address = {running.listening.address: running.listening for running in self._running.values()}
        for listener in settings.listeners:
            running = self._running.get(listener.name)
            if running is not None and running.listener == listener:
                continue
            place = f"listener.{listener.name}"
            server = None
            try:
                server = plugins.listener(listener.protocol).server(listener.name, listener.config, self._service)
            except ValueError as error:
                problems += [f"{place}.{problem}" for problem in error.args]
            try:
                listening = by_address.get(listener.config.address)
                if listening is None:
                    listening = listen(place, listener.config)
                    opened.append(listening)
                else:
                    listening.adjust(place, listener.config)
                if server is not None:
                    fresh[listener.name] = _Running(listener, server, listening, trio.CancelScope())
            except ConfigError as error:
                problems += error.problems
        if problems:
            for listening in opened:
                listening.close()
            for running in self._running.values():
                with suppress(ConfigError):
                    running.listening.adjust(running.listener.name, running.listener.config)  # as it was
            raise ConfigError(problems)
        return fresh

    async def _run(self, running: _Running, task_status: trio.TaskStatus[None]) -> None:
        with running.stop:
            await running.server.run(running.listening, task_status=task_status)

    async def _retire(self, running: _Running, patience: float) -> None:
        with trio.move_on_after(patience):
            await running.server.drain()
        running.stop.cancel()


async def serve(settings: Settings, read_again: Callable[[], Settings], started: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; read the configuration again on SIGHUP. Calls `started` when all is open.

    Raises:
        ConfigError: the configuration can't be opened.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # passwords are in memory
    unusable: ConfigError | None = None
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with open_service(settings.daemon, Journal()) as service, trio.open_nursery() as nursery:
            daemon = Daemon(service, nursery)
            try:
                await daemon.apply(settings)
            except ConfigError as error:
                unusable = error
            else:
                gc.collect()
                gc.freeze()  # what is open now stays: to look through it for garbage now and then would hold up everybody
                nursery.start_soon(_watchdog, service)
                notify("READY=1", _status(service))
                _log.info("serving", **_counts(service))
                started()
                async for number in signals:
                    if number != signal.SIGHUP:
                        break
                    await _reload(daemon, service, read_again)
                notify("STOPPING=1")
                _log.info("stopping", drain=settings.daemon.drain)
                nursery.start_soon(_hurry, signals, nursery.cancel_scope)
                await daemon.drain()
            nursery.cancel_scope.cancel()
    if unusable is not None:
        raise unusable


async def _reload(daemon: Daemon, service: Service, read_again: Callable[[], Settings]) -> None:
    notify_reloading()
    try:
        await daemon.apply(read_again())
    except ConfigError as error:
        service.metrics.failed_reloads += 1
        for problem in error.problems:
            _log.error("configuration not usable: the one before stays in force", problem=problem)
    except BackendDown as error:
        service.metrics.failed_reloads += 1
        _log.error("configuration not opened: the one before stays in force", problem=str(error))
    except Exception:
        service.metrics.failed_reloads += 1
        _log.exception("bug: the configuration before stays in force")
    else:
        service.metrics.reloads += 1
        _log.info("configuration reloaded", **_counts(service))
    notify("READY=1", _status(service))


async def _hurry(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    """A second signal ends the drain."""
    async for number in signals:
        if number != signal.SIGHUP:
            scope.cancel()


async def _watchdog(service: Service) -> None:
    """Tell systemd that we live, but only while the loop and the store's writer do."""
    interval = watchdog_interval()
    if interval is None:
        return
    while True:
        with trio.move_on_after(interval):
            with suppress(BackendDown):  # an answer, too: while a database is away, to be started anew would mend nothing
                await service.store.write()
            notify("WATCHDOG=1", _status(service))
        await trio.sleep(interval / 2)


def _counts(service: Service) -> dict[str, int]:
    settings = service.settings
    return {"listeners": len(settings.listeners), "backends": len(settings.backends), "domains": len(settings.domains)}


def _status(service: Service) -> str:
    return f"STATUS={', '.join(f'{count} {what}' for what, count in _counts(service).items())}"


def _check_file_limit(settings: Settings) -> None:
    """Compare the limit of open files with what the listeners' caps allow, and raise or tell it."""
    needed = SPARE_FILES + sum(listener.config.max_connections for listener in settings.listeners)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed and (hard == resource.RLIM_INFINITY or soft < hard):
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < needed:
        _log.warning("the limit of open files is below what max_connections allows", limit=soft, needed=needed)
