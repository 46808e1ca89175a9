"""Who may connect: limits on connections, in all and per address (of IPv6: its /64), before and after login.

Pure bookkeeping without I/O. A connection over a limit is closed without a word: to say why would take a handshake,
which is what the limit is there to save. When too many have not logged in, the oldest of them goes, so that a crowd
of connections cannot keep honest users out.

Of trusted addresses, behind which there are many users, only the limits on all count.

Behind a proxy a connection's address is not known when it comes in: it is admitted without one, and its address counts
later.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from pop3d.abuse.addresses import Trusted, source_of
from pop3d.config import Limits

__all__ = ["ConnectionLimits", "LimitedConnection"]


class LimitedConnection(Protocol):
    """A connection, as far as the guard knows it."""

    @property
    def address(self) -> str:
        """The client's address; behind a proxy, the proxy's until the connection is introduced."""
        ...

    def abort(self, reason: str) -> None:
        """End it now."""
        ...


class ConnectionLimits:
    """Counts connections against the limits of the configuration. ``trusted``: no limit per address counts for them."""

    def __init__(self, limits: Limits, trusted: Trusted | None = None) -> None:
        self.limits = limits
        self._trusted = trusted or Trusted()
        self._connections = 0
        self._addresses: dict[LimitedConnection, str] = {}  # as counted
        self._of_address: Counter[str] = Counter()
        self._strangers: dict[
            LimitedConnection, str | None
        ] = {}  # not logged in, oldest first, with their address as counted
        self._strangers_of_address: Counter[str] = Counter()

    @property
    def unauthenticated(self) -> int:
        """How many connections have not logged in."""
        return len(self._strangers)

    def take(self, limits: Limits, trusted: Trusted) -> None:
        """Other limits for connections that come; those that are there stay, also beyond a limit."""
        self.limits, self._trusted = limits, trusted

    def admit(self, connection: LimitedConnection, *, proxied: bool = False) -> str | None:
        """Let a connection in: None; or why not. One that was let in must `release`.

        ``proxied``: its address is the proxy's, and does not count; the client's does behind `count_address`.
        """
        if self._connections >= self.limits.connections:
            return "too many connections"
        self._strangers[connection] = None
        if not proxied and (refusal := self.count_address(connection)) is not None:
            del self._strangers[connection]
            return refusal
        self._connections += 1
        if len(self._strangers) > self.limits.unauthenticated:
            oldest = next(iter(self._strangers))
            self._known(oldest)
            oldest.abort("too many connections have not logged in, and this one is the oldest")
        return None

    def count_address(self, connection: LimitedConnection) -> str | None:
        """Count a connection's address: None; or why it may not stay."""
        if connection.address in self._trusted:
            return None
        address = source_of(connection.address)
        if self._of_address[address] >= self.limits.connections_per_ip:
            return "too many connections from this address"
        if self._strangers_of_address[address] >= self.limits.unauthenticated_per_ip:
            return "too many connections from this address have not logged in"
        self._addresses[connection] = address
        self._of_address[address] += 1
        if connection in self._strangers:  # it may have been the oldest meanwhile
            self._strangers[connection] = address
            self._strangers_of_address[address] += 1
        return None

    def logged_in(self, connection: LimitedConnection) -> None:
        """It counts as a user's from now on."""
        self._known(connection)

    def release(self, connection: LimitedConnection) -> None:
        """It is gone."""
        self._known(connection)
        self._connections -= 1
        if (address := self._addresses.pop(connection, None)) is not None:
            _decrease(self._of_address, address)

    def _known(self, connection: LimitedConnection) -> None:
        if connection in self._strangers:
            address = self._strangers.pop(connection)
            if address is not None:
                _decrease(self._strangers_of_address, address)


def _decrease(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
