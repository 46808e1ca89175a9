"""Listeners, the registry of sessions, deadlines, signals and the orderly end."""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import logging
import os
import resource
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pop3core.limits import Limits as ProtocolLimits
from pop3core.server import ServerConfig
from pop3d.abuse.addresses import Trusted
from pop3d.abuse.connection_limits import ConnectionLimits
from pop3d.abuse.known_users import KnownUsers
from pop3d.abuse.login_delays import LoginDelays
from pop3d.abuse.login_throttle import LoginThrottle
from pop3d.auth import Authenticator
from pop3d.auth.names import UserNames
from pop3d.config import Config, Limits, Listen
from pop3d.expiry import SteadyClock
from pop3d.net.certificates import ClientName
from pop3d.net.channel import Channel
from pop3d.net.tls import ServerTls
from pop3d.net.transport import Transport
from pop3d.observe.log import refused_connection
from pop3d.observe.report import Observer
from pop3d.policy import Policy
from pop3d.registry import Registry
from pop3d.session import ServerSession, Services
from pop3d.stores import Closes, Store

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


class ListenError(Exception):
    """A listener cannot be bound; one line that says which, why and what to do."""

    def __init__(self, host: str, port: int, fault: OSError) -> None:
        why = os.strerror(fault.errno) if fault.errno and fault.errno > 0 else str(fault)
        remedy = {
            errno.EADDRINUSE: "end what listens there, or choose another port",
            errno.EACCES: "ports below 1024 need root, or the capability to bind them",
            errno.EADDRNOTAVAIL: "choose an address of this machine",
        }.get(fault.errno or 0, "choose another host or port")
        super().__init__(f"cannot listen on {host} port {port}: {why}; {remedy}")


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
        self._config = config
        self._observer = observer or Observer()
        self.tls = tls
        limits = config.limits.model_copy(update={"connections": _connections_possible(config.limits.connections)})
        self._limits = limits
        trusted = Trusted(config.auth.trusted_networks)
        self._names = UserNames.of(config.auth)
        self._connection_limits = ConnectionLimits(limits, trusted)
        self._throttle = LoginThrottle(limits, trusted, secret)
        self._known = known
        if known is not None:
            self._throttle.remember(known.load())
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
        self.authenticator, self._store = authenticator, store
        self._delays, self._clock = LoginDelays(), SteadyClock()
        self.registry = Registry()
        """Who is logged in."""
        self._policy = self._new_policy()
        self._listeners: list[asyncio.Server] = []
        self._sessions: dict[ServerSession, asyncio.Task[None]] = {}
        self._beside: list[asyncio.Task[None]] = []
        self._draining = False
        self._made: dict[int, tuple[ServerTls | None, Services]] = {}  # by the identity of a listener's configuration

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
                self._listeners += await self._bound(listen, (activated or {}).get(index, ()))
            except OSError as fault:
                self._close_listeners()
                raise ListenError(listen.host, listen.port, fault) from None

    async def serve(self) -> None:
        """Let connections in."""
        for server in self._listeners:
            await server.start_serving()
            for sock in server.sockets:
                with sock.dup() as same:
                    same.listen(_BACKLOG)
        self._beside = [asyncio.create_task(self._sweep()), asyncio.create_task(self._keep_known())]

    async def _bound(self, listen: Listen, activated: Sequence[socket.socket]) -> list[asyncio.Server]:
        def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._accepted(Transport(writer), listen)

        start = functools.partial(asyncio.start_server, accepted, backlog=_ACCEPTED_AT_ONCE, start_serving=False)
        if activated:
            return [await start(sock=sock) for sock in activated]
        return [await start(listen.host, listen.port, reuse_port=listen.reuse_port or None)]

    @property
    def addresses(self) -> Sequence[tuple[str, int]]:
        """Where it listens, as bound: host and port."""
        return [sock.getsockname()[:2] for server in self._listeners for sock in server.sockets]

    @property
    def sessions(self) -> int:
        """How many connections are open."""
        return len(self._sessions)

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
            self._store,
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
        elif listen.proxy_protocol and not _is_trusted(channel.peer, listen):
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
            overdue = [session for session in self._sessions if session.deadline <= now]
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
        self._close_listeners()
        for session in list(self._sessions):
            session.close("shutting down")
        if tasks := list(self._sessions.values()):
            await asyncio.wait(tasks, timeout=seconds)
        for session in list(self._sessions):
            session.abort("shutting down")
        if tasks := list(self._sessions.values()):
            log.warning("%d sessions did not end in time and were cut", len(tasks))
            await asyncio.wait(tasks, timeout=_CUT)
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        await self._save_known()
        await self.authenticator.close()
        if isinstance(self._store, Closes):
            await self._store.close()

    def abort(self) -> None:
        """End all sessions now; nobody is told."""
        for session in list(self._sessions):
            session.abort("shutting down at once")

    def _close_listeners(self) -> None:
        for server in self._listeners:
            server.close()
        self._listeners.clear()


def _is_trusted(address: str, listen: Listen) -> bool:
    """Whether a proxy may say for whom it speaks."""
    try:
        own = ipaddress.ip_address(address)
    except ValueError:  # the peer was gone before it could be asked
        return False
    return any(own in network for network in listen.trusted_proxies)


def _connections_possible(wanted: int) -> int:
    """How many connections the descriptors allow, once their limit is raised as far as it goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return wanted
    possible = max(1, (hard - _DESCRIPTORS_SPARE) // _DESCRIPTORS_EACH)
    if possible < wanted:
        log.warning("connections lowered from %d to %d: the limit on open files is %d", wanted, possible, hard)
    return min(wanted, possible)
