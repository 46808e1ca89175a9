"""Connections that ask one thing and are answered: how many at a time, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeAlias

__all__ = ["Visit", "Visits"]

Visit: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Visits:
    """Call it with a connection's streams, as `asyncio.start_server` does. ``answer``: reads what is asked, and writes.

    ``most``: connections at a time; one more takes the place of the oldest, which is closed: who asks something is
    answered at once, so the oldest is one who says nothing, and must not keep others out. ``seconds``: from the
    connection to the end of the answer.
    """

    def __init__(self, answer: Visit, most: int, seconds: float) -> None:
        self._answer, self._most, self._seconds = answer, most, seconds
        self._open: dict[asyncio.Task[None], None] = {}  # the oldest first

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection, and close it."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= self._most:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.cancel()
        self._open[task] = None
        try:
            # a client that goes, or dawdles, is nobody's business
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._answer(reader, writer)
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        finally:
            self._open.pop(task, None)
            writer.transport.abort()

    async def close(self) -> None:
        """End all at once."""
        visits = list(self._open)
        for task in visits:
            task.cancel()
        await asyncio.gather(*visits, return_exceptions=True)
