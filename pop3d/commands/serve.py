"""`pop3d serve`: run in the foreground until told to end."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pop3d.assembly import assemble
from pop3d.auth import AuthError
from pop3d.commands.configured import configured, reread
from pop3d.config import Config, is_loopback
from pop3d.control.listener import ControlSocket
from pop3d.control.requests import Requests
from pop3d.control.socket_file import make
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.health import Health
from pop3d.net.listening import bound
from pop3d.observe.log import configure, unraisable
from pop3d.observe.log_thread import LogWriter, beside
from pop3d.observe.totals import Totals
from pop3d.reload import Reload
from pop3d.renewal import Renewal
from pop3d.server import ListenError, Server
from pop3d.system.ownership import acting
from pop3d.system.privileges import Identity, IdentityDoubt, become, process_identity
from pop3d.system.process import no_core, no_new_privileges, tune
from pop3d.system.state_folder import prepare
from pop3d.system.systemd import ActivationError, Notifier, activated, matched

if TYPE_CHECKING:
    from pop3d.observe.http import Exposition
    from pop3d.observe.metrics import Metrics

__all__ = ["Ending", "serve"]

log = logging.getLogger("pop3d.serve")

_LOG_MODE = 0o640  # of a log's file: names and addresses are not for everybody


def serve(path: Path | None) -> None:
    """Serve the configuration at ``path``, or the one found. Returns when SIGTERM or SIGINT has ended it."""
    _leave_alone()
    config, again = configured(path, serves=True), reread(path)
    place = str(config.file and config.file.absolute())
    os.chdir("/")  # processes that are started import from where they start, and there is nobody else's file
    configure(config.log.level, config.log.format)
    sys.unraisablehook = unraisable
    notifier = Notifier(os.environ)
    try:
        sockets = matched(activated(os.environ), config.listen)
    except ActivationError as fault:
        raise CommandError(str(fault), ExitStatus.CONFIG) from None
    identity = _identity(config)
    metrics = _metrics(config)
    totals = Totals(metrics)
    renewal = Renewal(config, totals)
    try:
        tls = renewal.begin()
        _prepare_state(config, identity)
        server = assemble(config, totals, tls)
    except (AuthError, OSError) as fault:
        raise CommandError(str(fault), ExitStatus.CONFIG) from None
    tune()
    # imported by name: the extra is there only where the configuration wants it
    factory = importlib.import_module("uvloop").new_event_loop if config.loop == "uvloop" else None
    with beside(_log_file(config, identity)) as writer, asyncio.Runner(loop_factory=factory) as runner:
        if metrics is not None and writer is not None:
            metrics.watch_log(lambda: writer.lost, lambda: writer.works)
        reload = Reload(config, again, server, renewal, totals)
        service = _Service(server, config, renewal, reload, metrics, totals, notifier, place, writer)
        runner.run(_serve(service, identity, sockets))


def _leave_alone() -> None:
    """Signals that mean nothing to us, or nothing yet, and would end a process that does not know them.

    SIGUSR1 comes from who rotates logs, SIGHUP from who has changed something. SIGPIPE is Python's to ignore.
    """
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # a nohup stays in force
            signal.signal(number, lambda *_: None)  # not SIG_IGN, which programs that are started would inherit


def _log_file(config: Config, identity: Identity | None) -> Callable[[], int] | None:
    """Opens the log's file, always with the rights of the user that the process becomes: no link leads further.

    The first time it raises `CommandError`, later OSError.
    """
    path = config.log.file
    if path is None:
        return None
    owner = config.owner if identity is None else (identity.uid, identity.gid)
    opened: list[Path] = []

    def open_file() -> int:
        # a FIFO that nobody reads is an error, and does not wait
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        if opened:
            return os.open(path, flags, _LOG_MODE)
        try:
            with acting(owner):
                descriptor = os.open(path, flags, _LOG_MODE)
        except OSError as fault:
            remedy = f"{config.user or 'whoever starts pop3d'} must be able to write there"
            raise CommandError(f"`log.file` {path}: {fault.strerror}; {remedy}", ExitStatus.CONFIG) from None
        opened.append(path)
        return descriptor

    return open_file


def _metrics(config: Config) -> Metrics | None:
    """What counts, where it is wanted."""
    if config.metrics is None:
        return None
    from pop3d.observe.metrics import Metrics  # of an extra, which the configuration has looked for

    if not is_loopback(config.metrics.host):
        log.warning("`metrics.listen` %s is off loopback: who can reach it can read it", config.metrics.listen)
    return Metrics()


def _identity(config: Config) -> Identity | None:
    """ProcessIdentity to become; None to stay who we are."""
    try:
        found = process_identity(config.user, config.group)
    except LookupError as fault:
        raise CommandError(f"`user` or `group` in the configuration: {fault}", ExitStatus.CONFIG) from None
    match found.doubt:
        case IdentityDoubt.NOBODY:
            raise CommandError(
                'started as root, but the configuration names no `user` to become: add user = "vmail" '
                "(whoever owns the mail), or start as that user",
                ExitStatus.CONFIG,
            )
        case IdentityDoubt.ROOT:
            log.warning('user = "root": every fault would have all rights; give the mail a user of its own')
    if found.doubt is not None and found.becomes is None:
        raise CommandError(f"only root can become {config.user!r}: start as root, or as that user", ExitStatus.CONFIG)
    return found.becomes


@dataclass(frozen=True)
class _Service:
    """What runs, and with what."""

    server: Server
    config: Config
    renewal: Renewal
    reload: Reload
    metrics: Metrics | None
    totals: Totals
    notifier: Notifier
    place: str
    """Where the configuration is."""
    writer: LogWriter | None


async def _serve(service: _Service, identity: Identity | None, sockets: Mapping[int, Sequence[socket.socket]]) -> None:
    server, config, notifier = service.server, service.config, service.notifier
    ending = Ending()
    reloading: set[asyncio.Future[None]] = set()  # keeps the tasks alive
    started = asyncio.Event()

    def reload() -> None:
        reloading.add(task := asyncio.ensure_future(_reload(service, started)))
        task.add_done_callback(reloading.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    health = Health(server, service.metrics)
    try:
        exposition = await _exposed(config, health, service.metrics)
        await server.bind(sockets)
        if identity is not None:
            become(identity)
            no_core()  # a change of user takes it back
        if service.writer is not None:  # not the loop's own handler: see `Ending`
            reopen = service.writer.reopen
            signal.signal(signal.SIGUSR1, lambda *_: reopen())
        if config.auth.backend != "pam":  # whose modules may need helpers that have more, such as unix_chkpwd
            no_new_privileges()
        await server.serve()  # nobody is let in before
    except ListenError as fault:
        raise CommandError(str(fault), ExitStatus.UNAVAILABLE) from None
    control = await _controlled(service)
    for host, port in server.addresses:
        log.info("listening on %s port %d", host, port)
    for unix in server.paths:
        log.info("listening on %s", unix)

    notifier.ready()
    started.set()
    beside = [
        asyncio.create_task(service.renewal.watch(server)),
        asyncio.create_task(notifier.keep_telling(lambda: f"{server.sessions} sessions")),
    ]
    if exposition is not None:
        beside.append(asyncio.create_task(health.watch()))
    await ending.wait_and_drain(server, told=notifier.stopping)
    for task in beside:
        task.cancel()
    notifier.close()
    if control is not None:
        await control.close()
    if exposition is not None:
        await exposition.close()


async def _exposed(config: Config, health: Health, metrics: Metrics | None) -> Exposition | None:
    """Metrics and health over HTTP, where they are wanted. Raises `ListenError`."""
    if config.metrics is None or metrics is None:
        return None
    from pop3d.observe.http import Exposition

    exposition = Exposition(metrics.registry, health.troubles)
    try:
        await exposition.start(await asyncio.to_thread(bound, config.metrics.host, config.metrics.port))
    except OSError as fault:
        raise ListenError(config.metrics.host, config.metrics.port, fault) from None
    for host, port in exposition.addresses:
        log.info("metrics on http://%s:%d/metrics", f"[{host}]" if ":" in host else host, port)
    return exposition


async def _controlled(service: _Service) -> ControlSocket | None:
    """The control socket, which the daemon can do without."""
    config = service.config
    try:
        file = make(config.state)
    except OSError as fault:
        lacking = "`pop3d who`, `kick` and `status` do not reach this daemon"
        log.warning("no control socket in %s: %s; %s", config.state, fault.strerror, lacking)
        return None
    if file.others and not any(listen.reuse_port for listen in config.listen):
        log.warning("another pop3d runs with the state folder %s; give each its own `state`", config.state)
    writer = service.writer
    more: dict[str, Callable[[], Any]] = {
        "configuration": lambda: service.place,
        "reload": service.reload.told,
        "log": lambda: {"works": writer is None or writer.works, "lost": 0 if writer is None else writer.lost},
    }
    control = ControlSocket(file, Requests(service.server, service.totals, more).answers)
    await control.start()
    return control


def _prepare_state(config: Config, identity: Identity | None) -> None:
    """The state folder belongs to whom we become. Only root can see to that, but gives nothing away at his own word."""
    try:
        with acting(config.owner):
            prepare(config.state, None if identity is None or config.owner else (identity.uid, identity.gid))
    except OSError as fault:
        log.warning("state folder %s: %s; nothing is cached or remembered", config.state, fault.strerror)


class Ending:
    """Told to end: SIGTERM or SIGINT means in good order, a second one at once.

    Made before anybody can know that the server runs, for a signal may come as soon as it says so.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told = asyncio.Event()
        self._at_once = asyncio.Event()
        for number in self._SIGNALS:
            # not the loop's own handlers: whoever takes those away leaves, for an instant, the one that kills
            signal.signal(number, lambda *_: self._loop.call_soon_threadsafe(self._end))

    def _end(self) -> None:
        (self._at_once if self._told.is_set() else self._told).set()

    async def wait_and_drain(
        self, server: Server, drain_timeout: float | None = None, told: Callable[[], None] | None = None
    ) -> None:
        """Wait until told, then end the server. ``drain_timeout``: seconds, in place of what is configured then;
        ``told``: called between the two.
        """
        await self._told.wait()
        if told is not None:
            told()
        log.info("ending: no new connections, %d open", server.sessions)
        drain = asyncio.ensure_future(server.drain(server.drain_timeout if drain_timeout is None else drain_timeout))
        hurry = asyncio.ensure_future(self._at_once.wait())
        await asyncio.wait((drain, hurry), return_when=asyncio.FIRST_COMPLETED)
        for number in self._SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # we are going; one more must not make it look like a crash
        hurry.cancel()
        if drain.done():
            drain.result()
        else:
            drain.cancel()
            server.abort()  # or a client that takes nothing would hold us up for ever
        log.info("ended")


async def _reload(service: _Service, started: asyncio.Event) -> None:
    """SIGHUP: what can be read again is; systemd hears of begin and end. ``started``: root was given up by then."""
    await started.wait()
    async with service.reload.one_at_a_time:
        service.notifier.reloading()
        try:
            await service.reload.run()
        finally:
            service.notifier.ready()
