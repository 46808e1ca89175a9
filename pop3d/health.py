"""Whether users and mail can be asked: looked at every few seconds, beside the sessions, for load balancers and alerts.

A look never holds up anything: whoever asks for the health gets what the last look found. What gives no answer in time
is a trouble, and is not asked again before it has answered: a disk that hangs costs one thread, and not one each look.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Final, TypeAlias

from pop3d.observe.report import Observer
from pop3d.server import Server

__all__ = ["EACH", "Health"]

log = logging.getLogger("pop3d.health")

EACH: Final = 5.0
"""Seconds between two looks: a load balancer asks as often."""

PATIENCE: Final = 4.0
"""Seconds for an answer: a mailbox that needs longer to open is of no use to anybody."""

_Ask: TypeAlias = Callable[[], Coroutine[object, object, str | None]]


class Health:
    """Of one server. ``observer``: told what each look has found."""

    def __init__(self, server: Server, observer: Observer | None = None) -> None:
        self._server, self._observer = server, observer or Observer()
        self._found: list[str] = []
        self._asked: dict[str, asyncio.Task[str | None]] = {}
        self._log = next((one for one in threading.enumerate() if one.name == "log"), None)

    def troubles(self) -> Sequence[str]:
        """A line for each, as of the last look; none: all is well."""
        if not self._server.serving:
            return ["shutting down" if self._server.draining else "starting"]
        return self._found

    async def watch(self, seconds: float = EACH) -> None:
        """Look every so often. Runs until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(seconds)

    async def look(self) -> None:
        """Ask users and mail, within a bounded time."""
        asks = {"users": self._server.authenticator, "mail": self._server.store}
        lines = await asyncio.gather(*(self._trouble(what, one) for what, one in asks.items()))
        found = [line for line in lines if line]
        if self._log is not None and not self._log.is_alive():
            found.append("the log is not written any more; restart pop3d")
        for line in found:
            if line not in self._found:
                log.error("not healthy: %s", line)
        if self._found and not found:
            log.info("healthy again")
        self._found = found
        self._observer.healthy(not found, {what: getattr(one, "database", None) for what, one in asks.items()})

    async def _trouble(self, what: str, one: object) -> str | None:
        ask: _Ask | None = getattr(one, "trouble", None)  # see `pop3d.auth.TellsTrouble`
        if ask is None:
            return None
        task = self._asked.get(what)
        if task is None:
            task = self._asked[what] = asyncio.create_task(ask())
        done, _ = await asyncio.wait({task}, timeout=PATIENCE)
        if not done:
            return f"{what}: no answer for {PATIENCE:g} seconds"
        del self._asked[what]
        if (fault := task.exception()) is not None:
            return f"{what}: {type(fault).__name__}: {fault}"
        return f"{what}: {line}" if (line := task.result()) else None
