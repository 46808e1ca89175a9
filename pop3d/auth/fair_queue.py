"""Whose turn it is, where only so many logins can be checked at a time: nobody waits for all the others."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections import Counter
from collections.abc import AsyncIterator

__all__ = ["FairQueue"]


class FairQueue:
    """So many places. Who waits for one is let in by how many of the same source were there before."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._of: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def turn(self, source: str) -> AsyncIterator[None]:
        """A place for what is done in it. ``source``: who waits with whom."""
        before = self._of[source]
        self._of[source] += 1
        try:
            await self._place(before)
            try:
                yield
            finally:
                self._pass_on()
        finally:
            self._of[source] -= 1
            if not self._of[source]:
                del self._of[source]

    async def _place(self, before: int) -> None:
        if self._free:
            self._free -= 1
            return
        mine = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (before, next(self._order), mine))
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():  # it was given, and is not wanted any more
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            _, _, next_one = heapq.heappop(self._waiting)
            if not next_one.done():
                next_one.set_result(None)
                return
        self._free += 1
