"""All LMTP connections of a server: who is let in, and what each of them works with."""

from __future__ import annotations

import asyncio

from pop3d.auth import KnowsUsers
from pop3d.auth.names import UserNames
from pop3d.config import Config
from pop3d.lmtp.addressees import Addressees
from pop3d.lmtp.delivery import Deliveries
from pop3d.lmtp.engine import LmtpSettings
from pop3d.lmtp.session import LmtpServices, LmtpSession
from pop3d.net.channel import Channel
from pop3d.net.transport import Transport
from pop3d.observe.log import refused_connection
from pop3d.observe.report import Observer

__all__ = ["LmtpConnections"]


class LmtpConnections:
    """``users``: says who there is. ``sessions``: those that are open, with their tasks."""

    def __init__(self, config: Config, users: KnowsUsers, observer: Observer) -> None:
        self._observer = observer
        self._deliveries = Deliveries(config, observer)
        self._draining = False
        self.sessions: dict[LmtpSession, asyncio.Task[None]] = {}
        self.configure(config, users)

    def configure(self, config: Config, users: KnowsUsers) -> None:
        """Another configuration, for the connections that follow."""
        self._most = config.limits.lmtp_connections
        self._deliveries.config = config
        self._services = LmtpServices(
            LmtpSettings(config.hostname or "localhost", config.lmtp.message_octets, config.limits.bad_commands),
            Addressees(users, UserNames.of(config.auth), config.lmtp),
            self._deliveries,
            config.state,
            config.limits.write_timeout,
            self._observer,
        )

    def accept(self, transport: Transport, *, local: bool) -> None:
        """A connection has come in; ``local``: at a Unix socket."""
        channel = Channel(transport, None)
        session = LmtpSession(self._services, channel, "unix" if local else channel.peer)
        if self._draining or len(self.sessions) >= self._most:
            refused_connection(session.address, "shutting down" if self._draining else "too many LMTP connections")
            channel.abort()
            return
        self.sessions[session] = asyncio.get_running_loop().create_task(self._run(session))
        self._observer.lmtp_connections(len(self.sessions))

    def drain(self) -> None:
        """Nobody is let in any more."""
        self._draining = True

    async def _run(self, session: LmtpSession) -> None:
        try:
            await session.run()
        finally:
            del self.sessions[session]
            self._observer.lmtp_connections(len(self.sessions))
