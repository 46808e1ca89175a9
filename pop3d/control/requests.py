"""What the control socket answers: ``who``, ``kick`` and ``status``, of one server.

A request is about sessions of a user, by a name that would find him at a login, or from an address or a network. A
user's name that is an address as well means both.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from pop3d.abuse.addresses import is_within
from pop3d.auth import Network
from pop3d.control.listener import Answer
from pop3d.observe.totals import Totals
from pop3d.server import Server
from pop3d.session import ServerSession

__all__ = ["Requests"]

_AT_ONCE: Final = 64  # sessions that are looked at before others have their turn: a millisecond
_STATM: Final = Path("/proc/self/statm")  # of Linux: kept by the kernel, so that nothing waits for a disk
_KICKED: Final = "ended by the administrator"


class Requests:
    """``totals``: what has happened; ``more``: of others, for `status`, by key."""

    def __init__(self, server: Server, totals: Totals, more: Mapping[str, Callable[[], object]] | None = None) -> None:
        self._server, self._totals, self._more = server, totals, more or {}
        self._started, self._began = time.time(), time.monotonic()

    @property
    def answers(self) -> Mapping[str, Answer]:
        """By the names of the requests."""
        return {"who": self.who, "kick": self.kick, "status": self.status}

    async def who(self, request: Mapping[str, Any]) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        """A line with ``pid``, then one for each session that ``whom`` is about; with ``all``, those not logged in too.

        In the end a line with ``unauthenticated``: how many those are.
        """
        yield [{"pid": os.getpid()}]
        strangers = 0
        async for some in self._of(request.get("whom", "")):
            strangers += sum(session.user is None for session in some)
            views = [session.view for session in some if session.user is not None or request.get("all")]
            yield [view._asdict() for view in views]
        yield [{"unauthenticated": strangers}]

    async def kick(self, request: Mapping[str, Any]) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        """A line with ``kicked``: how many sessions were ended, also those not logged in."""
        found = [session async for some in self._of(request.get("whom") or " ") for session in some]
        await self._server.end(found, _KICKED)
        yield [{"pid": os.getpid(), "kicked": len(found)}]

    async def status(self, _request: Mapping[str, Any]) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        """One line."""
        server, totals = self._server, self._totals
        limits = server.limits
        yield [
            {
                "version": version("pop3core"),
                "pid": os.getpid(),
                "started": self._started,
                "uptime": time.monotonic() - self._began,
                "listeners": [
                    *({"host": host, "port": port} for host, port in server.addresses),
                    *({"path": path} for path in server.paths),
                ],
                "sessions": {
                    "open": len(server.open_sessions()),
                    "limit": limits.connections,
                    "unauthenticated": server.unauthenticated,
                    "unauthenticated_limit": limits.unauthenticated,
                },
                "connections": totals.connections,
                "refused": dict(totals.refused_for),
                "logins": dict(totals.outcomes),
                "messages": {
                    "retrieved": totals.retrieved,
                    "deleted": totals.deleted,
                    "expired": totals.expired,
                },
                "octets": {"in": totals.octets_in, "out": totals.octets_out},
                "lmtp": {
                    "open": server.sessions - len(server.open_sessions()),
                    "limit": limits.lmtp_connections,
                    "deliveries": dict(totals.deliveries),
                },
                "memory": _memory(),
                "certificates": [
                    {"name": name, "file": file, "ends": ends} for name, file, ends in totals.served_certificates
                ],
                **{key: tell() for key, tell in self._more.items()},
            }
        ]

    async def _of(self, said: str) -> AsyncIterator[list[ServerSession]]:
        """The sessions that a request is about, some at a time; all for an empty word."""
        whom = _Whom.of(said, self._server)
        sessions = self._server.open_sessions()
        for start in range(0, len(sessions), _AT_ONCE):
            some = sessions[start : start + _AT_ONCE]
            yield [one for one in some if whom.means(one)] if said else some
            await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class _Whom:
    """``users``: spellings of a name; ``key``: of a name by which users are looked for where nobody has it."""

    users: frozenset[str]
    key: Callable[[str], str] | None
    network: Network | None

    @classmethod
    def of(cls, said: str, server: Server) -> _Whom:
        names = server.names
        users = frozenset({said, names(said)})
        known = any(server.registry.of(user) for user in users)
        try:
            network = ipaddress.ip_network(said, strict=False)
        except ValueError:
            network = None
        if known or network is not None:
            return cls(users, None, network)
        return cls(frozenset({names.key(said)}), names.key, None)

    def means(self, session: ServerSession) -> bool:
        if self.network is not None and is_within(session.address, (self.network,)):
            return True
        user = session.user
        return user is not None and (user if self.key is None else self.key(user)) in self.users


def _memory() -> int:
    """Octets of it that this process has in memory now; at its most, where the system does not tell."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return pages * resource.getpagesize()
