"""What tests ask of the event loop itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def more_turns_than(least: int) -> AsyncIterator[None]:
    """The event loop goes round meanwhile: nothing in the block holds it up."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counter = asyncio.create_task(count())
    yield
    counter.cancel()
    assert turns > least
