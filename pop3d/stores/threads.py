"""Hops to a thread, for calls that may wait for a disk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

__all__ = ["POOL", "hop", "to_its_end"]

P = ParamSpec("P")
T = TypeVar("T")

_THREADS_MAX: Final = 128
"""A mailbox holds one thread at a time at most, so this many disks may be slow at once before one waits for another."""

POOL: Final = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="pop3d-store")


async def hop(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``work`` in a thread, to its end: see `to_its_end`."""
    return await to_its_end(asyncio.get_running_loop().run_in_executor(POOL, lambda: work(*args, **kwargs)))


async def to_its_end(work: Awaitable[T]) -> T:
    """Wait for a hop even when this task is cancelled: the descriptor it uses must not be closed under it."""
    work = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await work
        raise
