"""Listeners, the registry of sessions, deadlines, signals and the orderly end."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import resource
import secrets
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pop3core.limits import Limits as ProtocolLimits
from pop3core.server import ServerConfig
from pop3d.abuse.addresses import Trusted, is_within
from pop3d.abuse.connection_limits import ConnectionLimits
from pop3d.abuse.known_users import KnownUsers
from pop3d.abuse.login_delays import LoginDelays
from pop3d.abuse.login_throttle import LoginThrottle
from pop3d.auth import Authenticator, KnowsUsers
from pop3d.auth.names import UserNames
from pop3d.config import Config, Limits, Listen
from pop3d.expiry import SteadyClock
from pop3d.lmtp.listener import LmtpConnections
from pop3d.lmtp.session import LmtpSession
from pop3d.net.certificates import ClientName
from pop3d.net.channel import Channel
from pop3d.net.listening import ListenError, bound, give_up_lost_clients
from pop3d.net.tls import ServerTls
from pop3d.net.transport import Transport
from pop3d.observe.log import refused_connection
from pop3d.observe.report import Observer
from pop3d.policy import Policy
from pop3d.registry import Registry
from pop3d.session import ServerSession, Services
from pop3d.stores import Closes, Store
from pop3d.system.ownership import acting
from pop3d.system.privileges import group_id, process_identity
from pop3d.system.unix_socket import UnixListener

__all__ = ["ListenError", "Server"]

log = logging.getLogger("pop3d.server")

_SWEEP = 1.0  # seconds between two looks at all deadlines
_KEPT_EACH = 60.0  # seconds between two writings of who is known
_ENDED_AT_ONCE = 16  # sessions whose deadline has passed, before others have their turn: some 2 ms
_COMMANDS_AT_ONCE = 16  # of one session, before it looks at its clock: some 0.3 ms
_CUT = 5.0  # seconds for a session that was cut to free what it holds: a removal under way runs to its end
_BACKLOG = 1024  # connections the system holds while we are busy
_ACCEPTED_AT_ONCE = 16  # before any of them is looked at, and perhaps refused; within the spare descriptors
_DESCRIPTORS_SPARE = 64  # for listeners, logs, threads, libraries
_DESCRIPTORS_EACH = 3  # a session's socket, its Maildir, the message it reads


class Server:
    """Serves a configuration: `start`, or `bind` and `serve`; then `drain` when it is to end.

    ``tls``: of the listeners that have it; may be exchanged at any time, for the connections that follow. ``known``:
    keeps who is known across restarts, by hashes with ``secret``; None: that is forgotten.
    """

    def __init__(
        self,
        config: Config,
        authenticator: Authenticator,
        store: Store,
        tls: ServerTls | None,
        observer: Observer | None = None,
        known: KnownUsers | None = None,
        secret: bytes = b"",
    ) -> None:
        self._observer = observer or Observer()
        self.tls = tls
        self.authenticator, self.store = authenticator, store
        self._configure(config)
        trusted = Trusted(config.auth.trusted_networks)
        self._connection_limits = ConnectionLimits(self._limits, trusted)
        self._throttle = LoginThrottle(self._limits, trusted, secret)
        self._known = known
        if known is not None:
            self._throttle.remember(known.load())
        self._delays, self._clock = LoginDelays(), SteadyClock()
        self.registry = Registry()
        """Who is logged in."""
        self._lmtp: LmtpConnections | None = None
        if config.has_lmtp:
            assert isinstance(authenticator, KnowsUsers)  # who made it has seen to that
            self._lmtp = LmtpConnections(config, authenticator, self._observer)
        self._unix: list[UnixListener] = []
        self._listeners: list[asyncio.Server] = []
        self._sessions: dict[ServerSession, asyncio.Task[None]] = {}
        self._beside: list[asyncio.Task[None]] = []
        self._retired: list[Authenticator | Store] = []  # sessions that began with them are still there
        self._retiring: set[asyncio.Task[None]] = set()
        self._draining = False
        self._made: dict[int, tuple[ServerTls | None, Services]] = {}  # by the identity of a listener's configuration

    def _configure(self, config: Config) -> None:
        """What sessions that begin now go by."""
        self._config = config
        others = config.limits.lmtp_connections if config.has_lmtp else 0
        possible = _connections_possible(config.limits.connections, others)
        self._limits = limits = config.limits.model_copy(update={"connections": possible})
        self._names = UserNames.of(config.auth)
        engine_limits = ProtocolLimits(
            turn_commands=_COMMANDS_AT_ONCE,
            bad_commands_max=limits.bad_commands,
            auth_failures_max=limits.max_auth_failures,
        )
        names = config.auth.mechanisms
        self._engine = ServerConfig(
            config.hostname,
            mechanisms=tuple(name.upper() for name in names if name != "apop"),
            limits=engine_limits,
        )
        self._client_name: ClientName = config.tls.client_name if config.tls is not None else "email"
        self._timestamp = self._new_timestamp if "apop" in names else None
        self._policy = self._new_policy()

    # --- start ---

    async def start(self) -> None:
        """Bind all listeners, and let connections in. Raises `ListenError`."""
        await self.bind()
        await self.serve()

    async def bind(self, activated: Mapping[int, Sequence[socket.socket]] | None = None) -> None:
        """Bind all listeners; nobody is let in yet. Raises `ListenError`; nothing is left open then.

        ``activated``: sockets that listen already, by the index of their ``[[listen]]``.
        """
        for index, listen in enumerate(self._config.listen):
            try:
                self._listeners += await self._bound(index, listen, (activated or {}).get(index, ()))
            except OSError as fault:
                self._close_listeners()
                if listen.path is not None:
                    raise ListenError(str(listen.path), None, fault) from None
                raise ListenError(listen.host, listen.port, fault) from None

    async def serve(self) -> None:
        """Let connections in."""
        for server in self._listeners:
            await server.start_serving()
            for sock in server.sockets:
                with sock.dup() as same:
                    same.listen(_BACKLOG)
        self._beside = [asyncio.create_task(self._sweep()), asyncio.create_task(self._keep_known())]

    async def _bound(self, index: int, listen: Listen, activated: Sequence[socket.socket]) -> list[asyncio.Server]:
        def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._lmtp is not None and listen.protocol == "lmtp":
                self._lmtp.accept(Transport(writer), local=listen.path is not None)
            else:
                self._accepted(Transport(writer), self._config.listen[index])

        start = functools.partial(asyncio.start_server, accepted, backlog=_ACCEPTED_AT_ONCE, start_serving=False)
        if listen.path is not None:
            sockets = activated or [self._bound_unix(listen, listen.path)]
            keep: dict[str, Any] = {}  # asyncio of Python 3.13 would remove the file, and systemd's is not ours
            if sys.version_info >= (3, 13) and isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
                keep = {"cleanup_socket": False}
            start = functools.partial(
                asyncio.start_unix_server, accepted, backlog=_ACCEPTED_AT_ONCE, start_serving=False, **keep
            )
        else:
            host, port, shared = listen.host, listen.port, listen.reuse_port
            sockets = activated or await asyncio.to_thread(bound, host, port, reuse_port=shared)
            for sock in sockets:
                give_up_lost_clients(sock, self._limits.lost_after, self._limits.write_timeout)
        return [await start(sock=sock) for sock in sockets]

    def _bound_unix(self, listen: Listen, path: Path) -> socket.socket:
        """Root gives the socket to whom it will become. Raises OSError."""
        try:
            group = -1 if listen.group is None else group_id(listen.group)
            becomes = process_identity(self._config.user, self._config.group).becomes if os.geteuid() == 0 else None
        except LookupError as fault:
            raise OSError(str(fault)) from None
        owner = (-1, group) if becomes is None else (becomes.uid, becomes.gid if group == -1 else group)
        with acting(self._config.owner):
            unix = UnixListener.bound(path, int(listen.mode, 8), (-1, group) if self._config.owner else owner)
        self._unix.append(unix)
        return unix.sock

    @property
    def addresses(self) -> Sequence[tuple[str, int]]:
        """Where it listens, as bound: host and port."""
        names = [sock.getsockname() for server in self._listeners for sock in server.sockets]
        return [name[:2] for name in names if not isinstance(name, str)]

    @property
    def paths(self) -> Sequence[str]:
        """The Unix sockets at which it listens."""
        names = [sock.getsockname() for server in self._listeners for sock in server.sockets]
        return [name for name in names if isinstance(name, str)]

    @property
    def drain_timeout(self) -> float:
        """Seconds that `drain` should grant."""
        return self._config.drain_timeout

    @property
    def sessions(self) -> int:
        """How many connections are open, those of LMTP too."""
        return len(self._open)

    @property
    def _open(self) -> dict[ServerSession | LmtpSession, asyncio.Task[None]]:
        """All that runs now."""
        lmtp = self._lmtp.sessions.items() if self._lmtp is not None else ()
        return dict((*self._sessions.items(), *lmtp))

    @property
    def names(self) -> UserNames:
        """What is made of a name that a client says."""
        return self._names

    @property
    def limits(self) -> Limits:
        """What holds, which may be less than what is configured."""
        return self._limits

    @property
    def unauthenticated(self) -> int:
        """How many connections have not logged in."""
        return self._connection_limits.unauthenticated

    def open_sessions(self) -> list[ServerSession]:
        """All that are open now, also those that have not logged in; the oldest first."""
        return list(self._sessions)

    async def end(self, sessions: Sequence[ServerSession], reason: str) -> None:
        """End sessions now, and wait until what they hold is free; nothing is deleted but by an UPDATE under way."""
        for number, session in enumerate(sessions, 1):
            session.abort(reason)
            if number % _ENDED_AT_ONCE == 0:
                await asyncio.sleep(0)
        until = time.monotonic() + _CUT
        for start in range(0, len(sessions), _ENDED_AT_ONCE):
            tasks = [self._sessions.get(session) for session in sessions[start : start + _ENDED_AT_ONCE]]
            if left := [task for task in tasks if task is not None]:
                await asyncio.wait(left, timeout=max(0.0, until - time.monotonic()))

    @property
    def draining(self) -> bool:
        """True from `drain` on."""
        return self._draining

    @property
    def serving(self) -> bool:
        """True while new connections are let in: from `start` to `drain`."""
        return any(server.is_serving() for server in self._listeners)

    # --- run ---

    def _services(self, listen: Listen) -> Services:
        """What a session that begins now at this listener works with: the same for all, until TLS is exchanged."""
        made = self._made.get(id(listen))
        if made is None or made[0] is not self.tls:
            made = self._made[id(listen)] = self.tls, self._new_services(listen)
        return made[1]

    def _new_services(self, listen: Listen) -> Services:
        stls = listen.tls == "starttls"
        # behind a proxy clear text is what the client spoke only if the proxy does not say otherwise
        engine = replace(
            self._engine,
            allow_plaintext=listen.tls == "none" and not listen.proxy_protocol,
            stls=stls,
            expire=self._policy.announced_expire,
            login_delay=self._policy.announced_delay,
        )
        tls = self.tls if stls else None
        return Services(
            self.authenticator,
            self.store,
            self._connection_limits,
            self._throttle,
            engine,
            self._limits,
            tls,
            self._timestamp,
            self._client_name,
            proxied=listen.proxy_protocol,
            proxy_ends_tls=listen.tls == "none",
            observer=self._observer,
            names=self._names,
            policy=self._policy,
            delays=self._delays,
            clock=self._clock,
            registry=self.registry,
        )

    def reconfigure(self, config: Config, authenticator: Authenticator | None, store: Store | None) -> None:
        """For sessions that begin now; those under way keep what they began with. What was counted stays.

        ``config``: with the same listeners; ``authenticator``, ``store``: None where they stay. Those before are
        closed once the last session has ended that began with them.
        """
        if authenticator is not None:
            self._retire(self.authenticator)
            self.authenticator = authenticator
        if store is not None:
            self._retire(self.store)
            self.store = store
        self._configure(config)
        trusted = Trusted(config.auth.trusted_networks)
        self._connection_limits.take(self._limits, trusted)
        self._throttle.take(self._limits, trusted)
        if self._lmtp is not None:
            assert isinstance(self.authenticator, KnowsUsers)  # likewise
            self._lmtp.configure(config, self.authenticator)
        for sock in (sock for server in self._listeners for sock in server.sockets if sock.family != socket.AF_UNIX):
            with sock.dup() as same:
                give_up_lost_clients(same, self._limits.lost_after, self._limits.write_timeout)
        self._made.clear()

    def _retire(self, one: Authenticator | Store) -> None:
        self._retired.append(one)
        self._retiring.add(task := asyncio.ensure_future(self._close_unused(one, list(self._open.values()))))
        task.add_done_callback(self._retiring.discard)

    async def _close_unused(self, one: Authenticator | Store, sessions: Sequence[asyncio.Task[None]]) -> None:
        if sessions:
            await asyncio.wait(sessions)
        self._retired.remove(one)
        await _close(one)

    async def reload_users(self) -> None:
        """Read users again; sessions that begin then are told of their limits. Raises as the authenticator does."""
        try:
            await self.authenticator.reload()
        finally:  # a fault in one source does not keep the others from what is new
            self._policy = self._new_policy()
            self._made.clear()

    def _new_policy(self) -> Policy:
        limits_of_users = getattr(self.authenticator, "limits_of_users", tuple)  # see `pop3d.auth.KnowsLimits`
        return Policy.of(self._config, limits_of_users())

    def _new_timestamp(self) -> str:
        # RFC 1939 §7 APOP: never the same twice
        return f"<{os.getpid()}.{time.time_ns()}.{secrets.token_hex(8)}@{self._config.hostname or 'localhost'}>"

    def _accepted(self, transport: Transport, listen: Listen) -> None:
        channel = Channel(transport, self.tls if listen.tls == "implicit" else None)
        session = ServerSession(self._services(listen), channel)
        if self._draining:
            refusal: str | None = "shutting down"
        elif listen.proxy_protocol and not is_within(channel.peer, listen.trusted_proxies):
            refusal = "not one of trusted_proxies"
        else:
            refusal = self._connection_limits.admit(session, proxied=listen.proxy_protocol)
        if refusal is not None:
            refused_connection(session.address, refusal)
            self._observer.refused(refusal)
            channel.abort()
            return
        self._observer.connected()
        self._sessions[session] = asyncio.get_running_loop().create_task(self._run(session))

    async def _run(self, session: ServerSession) -> None:
        try:
            await session.run()
        finally:
            del self._sessions[session]
            self._connection_limits.release(session)

    async def _sweep(self) -> None:
        while True:
            due = time.monotonic() + _SWEEP
            await asyncio.sleep(_SWEEP)
            now = time.monotonic()
            self._observer.lag(max(0.0, now - due))
            overdue = [session for session in self._open if session.deadline <= now]
            for number, session in enumerate(overdue, 1):
                if session.deadline <= now:  # still, for others have had their turn
                    session.overdue()
                if number % _ENDED_AT_ONCE == 0:
                    await asyncio.sleep(0)

    async def _keep_known(self) -> None:
        while True:
            await asyncio.sleep(_KEPT_EACH)
            await self._save_known()

    async def _save_known(self) -> None:
        """Keep who is known, if that has changed; a thread does it."""
        if self._known is None or not self._throttle.changed:
            return
        self._throttle.changed = False
        try:
            await asyncio.to_thread(lambda known: known.save(self._throttle.known()), self._known)
        except OSError as fault:
            log.warning("who is known is not kept: %s; make the state folder writable", fault)

    # --- stop ---

    async def drain(self, seconds: float) -> None:
        """End: no new connection, replies under way may take ``seconds``, then what is left is cut."""
        self._draining = True
        if self._lmtp is not None:
            self._lmtp.drain()
        self._close_listeners()
        for session in self._open:
            session.close("shutting down")
        if tasks := list(self._open.values()):
            await asyncio.wait(tasks, timeout=seconds)
        for session in self._open:
            session.abort("shutting down")
        if tasks := list(self._open.values()):
            log.warning("%d sessions did not end in time and were cut", len(tasks))
            await asyncio.wait(tasks, timeout=_CUT)
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        await self._save_known()
        for task in self._retiring:
            task.cancel()
        for one in (*self._retired, self.authenticator, self.store):
            await _close(one)

    def abort(self) -> None:
        """End all sessions now; nobody is told."""
        for session in self._open:
            session.abort("shutting down at once")

    def _close_listeners(self) -> None:
        for server in self._listeners:
            server.close()
        for unix in self._unix:
            unix.remove()
        self._listeners.clear()
        self._unix.clear()


async def _close(one: Authenticator | Store) -> None:
    if isinstance(one, Closes):
        await one.close()


def _connections_possible(wanted: int, others: int) -> int:
    """How many connections the descriptors allow beside others, once their limit is raised as far as it goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return wanted
    possible = max(1, (hard - _DESCRIPTORS_SPARE) // _DESCRIPTORS_EACH - others)
    if possible < wanted:
        log.warning("connections lowered from %d to %d: the limit on open files is %d", wanted, possible, hard)
    return min(wanted, possible)
