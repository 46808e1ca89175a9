"""A line to a server: a TCP proxy that adds a round-trip time, and can be cut. For machines without netem.

`python -m tests.line --to PORT --rtt 40` prints the port it listens on. Each direction is held for half of the round
trip, and a new connection waits one, as for TCP's own handshake. No loss, no limit on the rate: it shows what waiting
costs. A connection's memory is bounded: behind `HELD_MAX` octets on their way, no more is read.
"""

import argparse
import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any

HELD_MAX = 32 * 1024 * 1024
PIECE = 256 * 1024


class _End(asyncio.BufferedProtocol):
    """One end of a line; what it reads leaves at `other`, ``delay`` seconds later."""

    def __init__(self, delay: float, cut_after: int | None = None) -> None:
        self.delay, self.left = delay, cut_after
        self.other: _End | None = None
        self.transport: Any = None
        self.loop = asyncio.get_running_loop()
        self.held: deque[tuple[float, bytes | None]] = deque()
        self.octets = 0
        self.hold_until = 0.0
        self.buffer = bytearray(PIECE)
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, _: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        data = bytes(memoryview(self.buffer)[:count])
        if self.left is not None:
            data = data[: self.left]
            self.left -= len(data)
        self._hold(data)
        if self.left == 0:
            self._hold(None)
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._hold(None)
        return True

    def connection_lost(self, _: Exception | None) -> None:
        self._hold(None)

    def _hold(self, data: bytes | None) -> None:
        self.held.append((max(self.loop.time(), self.hold_until) + self.delay, data))
        self.octets += len(data or b"")
        if self.octets > HELD_MAX:
            self.transport.pause_reading()
        if self.timer is None:
            self.release()

    def release(self) -> None:
        """What has been held long enough leaves."""
        self.timer = None
        other = self.other
        if other is None or other.transport is None:
            return  # not connected yet; that releases
        now = self.loop.time()
        while self.held and self.held[0][0] <= now + 0.0002:
            _, data = self.held.popleft()
            if data is None:
                other.transport.close()
                continue
            self.octets -= len(data)
            if not other.transport.is_closing():
                other.transport.write(data)
        if self.octets <= HELD_MAX and self.left != 0 and not self.transport.is_closing():
            with contextlib.suppress(RuntimeError):
                self.transport.resume_reading()
        if self.held:
            self.timer = self.loop.call_at(self.held[0][0], self.release)


class Line:
    """``async with Line(port) as line``: a proxy at ``line.port`` to ``port`` on this machine.

    ``rtt``: seconds. ``cuts``: after how many octets from the server the first, second ... connection is cut; None, and
    whatever comes behind them: never.
    """

    def __init__(self, target: int, *, rtt: float = 0.0, cuts: Sequence[int | None] = (), listen: int = 0) -> None:
        self._target, self._rtt, self._cuts, self._listen = target, rtt, deque(cuts), listen
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: list[_End] = []
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> "Line":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", self._listen)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for end in self._ends:
            if end.timer is not None:
                end.timer.cancel()
            if end.transport is not None:
                end.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    def _accept(self) -> _End:
        self.connections += 1
        cut = self._cuts.popleft() if self._cuts else None
        client, server = _End(self._rtt / 2), _End(self._rtt / 2, cut)
        client.hold_until = server.hold_until = asyncio.get_running_loop().time() + self._rtt
        client.other, server.other = server, client
        self._ends += [client, server]
        task = asyncio.ensure_future(self._connect(client, server))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return client

    async def _connect(self, client: _End, server: _End) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: server, "127.0.0.1", self._target)
        except OSError:
            client.transport.abort()
            return
        client.release()


async def serve(target: int, rtt: float) -> None:
    async with Line(target, rtt=rtt) as line:
        print(line.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=int, required=True, metavar="PORT")
    parser.add_argument("--rtt", type=float, default=40, metavar="MILLISECONDS")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options.to, options.rtt / 1000))
