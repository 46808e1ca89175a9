"""What tests of both ends of a connection do with the socket at the other one."""

from __future__ import annotations

import asyncio
import contextlib
import socket


async def filled(peer: socket.socket) -> int:
    """Send until nobody takes anything more, by a socket that does not block; how many octets that were."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += peer.send(b"x" * 65536)
            await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    return sent
