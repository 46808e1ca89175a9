"""Who may connect: limits on connections, in all and per address, before and after login.

Pure bookkeeping without I/O. A connection over a limit is closed without a word: to say why would take a handshake,
which is what the limit is there to save. When too many have not logged in, the oldest of them goes, so that a crowd
of connections cannot keep honest users out.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from pop3d.config import Limits

__all__ = ["Guard", "Guarded"]


class Guarded(Protocol):
    """A connection, as far as the guard knows it."""

    @property
    def address(self) -> str:
        """The client's address."""
        ...

    def cut(self, reason: str) -> None:
        """End it now."""
        ...


class Guard:
    """Counts connections against the limits of the configuration."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._connections = 0
        self._of_address: Counter[str] = Counter()
        self._strangers: dict[Guarded, None] = {}  # not logged in, oldest first
        self._strangers_of_address: Counter[str] = Counter()

    def admit(self, connection: Guarded) -> str | None:
        """Let a connection in: None; or why not. One that was let in must `leave`."""
        address = connection.address
        if self._connections >= self.limits.connections:
            return "too many connections"
        if self._of_address[address] >= self.limits.connections_per_ip:
            return "too many connections from this address"
        if self._strangers_of_address[address] >= self.limits.unauthenticated_per_ip:
            return "too many connections from this address have not logged in"
        self._connections += 1
        self._of_address[address] += 1
        self._strangers[connection] = None
        self._strangers_of_address[address] += 1
        if len(self._strangers) > self.limits.unauthenticated:
            oldest = next(iter(self._strangers))
            self._known(oldest)
            oldest.cut("too many connections have not logged in, and this one is the oldest")
        return None

    def logged_in(self, connection: Guarded) -> None:
        """It counts as a user's from now on."""
        self._known(connection)

    def leave(self, connection: Guarded) -> None:
        """It is gone."""
        self._known(connection)
        self._connections -= 1
        _decrease(self._of_address, connection.address)

    def _known(self, connection: Guarded) -> None:
        if connection in self._strangers:
            del self._strangers[connection]
            _decrease(self._strangers_of_address, connection.address)


def _decrease(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
