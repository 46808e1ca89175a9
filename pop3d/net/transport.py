"""A connection's octets as they are on the wire, in either direction; nothing here knows TLS or time.

asyncio's streams accept a connection, and are then put aside: their reader copies what comes in twice, and their
writer's `drain` is a coroutine for every reply, also when there is nothing to wait for. To take the transport over
saves 5 us of each command and its reply. What arrives is read into one buffer for all connections, where the transport
would make a new one of 256 KiB for each read. Who `listen`s is called as soon as it is there: to wake a task takes
another turn of the event loop, and with it another question to the system.

Where several connections are served by turns, short replies leave together at the end of the event loop's turn. To send
one wakes a processor that waits for work; those that follow at once find it awake. A connection that wrote last as well
is served alone, and waits for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable
from typing import Final, cast
from weakref import WeakKeyDictionary

from pop3d.system.ip_addresses import as_text

__all__ = ["ConnectionGone", "Transport"]

_READ: Final = 16 * 1024  # octets read at a time: commands are short
_HELD_MAX: Final = 16 * 1024  # octets that wait for a reader before no more are taken from the system
_TOGETHER_MAX: Final = 16 * 1024  # octets of a reply that may wait for others: all that wait are 1 MiB at most
_REPLIES_MAX: Final = 64  # that leave together; the first waits some 3 ms. With 50 clients 64 saves 16 %, 16 saves 4 %
# what the system says of a peer that acknowledges nothing any more: nothing at all came back, or a router's word
_VANISHED: Final = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)


class ConnectionGone(Exception):
    """The peer is not there any more."""


class _Turn:
    """What the connections of one event loop share."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(_READ))  # filled and emptied within one turn
        self.last: Transport | None = None  # has written
        self.leaving: list[Transport] = []  # have replies that leave together

    def flush(self) -> None:
        """Send what waits."""
        leaving, self.leaving = self.leaving, []
        for one in leaving:
            one.flush()


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turn] = WeakKeyDictionary()


def _turn_of(loop: asyncio.AbstractEventLoop) -> _Turn:
    turn = _turns.get(loop)
    if turn is None:
        turn = _turns[loop] = _Turn()
    return turn


class Transport(asyncio.BufferedProtocol):
    """``writer``: of a connection that has just been made, and of which nothing was read yet."""

    __slots__ = (
        "_drained",
        "_ended",
        "_eof",
        "_eof_fed",
        "_hear",
        "_held",
        "_leaving",
        "_loop",
        "_lost",
        "_paused",
        "_reader",
        "_stopped",
        "_transport",
        "_turn",
        "_writer",
        "vanished",
    )

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer  # one that nobody holds closes its transport
        # what accepts TCP connections makes transports that can be written to, be paused, and change their protocol
        self._transport = cast(asyncio.Transport, writer.transport)
        self._loop = asyncio.get_running_loop()
        self._turn = _turn_of(self._loop)
        self._leaving = b""  # written, and waits for the end of the turn
        self._held = b""  # received, and not read yet
        self._ended = False  # the peer sends nothing more
        self._lost = False  # nothing can be sent any more
        self.vanished = False
        """True behind a connection whose peer answered no more, where the system gave up: see `pop3d.net.listening`."""
        self._eof_fed = False
        self._stopped = False  # taking octets from the system
        self._paused = False  # some of what was written has not left
        self._reader: asyncio.Future[bool] | None = None
        self._hear: Callable[[bytes], bool] | None = None  # of a reader that listens
        self._drained: asyncio.Future[bool] | None = None
        self._eof: asyncio.Future[bool] | None = None  # somebody waits for the peer to go
        # `paused` then says whether all has left: a reply is made only when the last one is gone
        self._transport.set_write_buffer_limits(high=0)
        self._transport.set_protocol(self)

    @property
    def peer(self) -> str:
        """The other end's address, as text; ``unknown`` where it was gone before it could be asked."""
        return as_text(str((self._transport.get_extra_info("peername") or ["unknown"])[0]))

    @property
    def reading(self) -> bool:
        """True while a `read` or a `listen` waits for the peer."""
        return self._reader is not None and not self._reader.done()

    # --- for whoever reads and writes ---

    async def read(self) -> bytes:
        """What came since the last read; ``b""`` at the end, or behind a `feed_eof`. Raises `ConnectionGone`."""
        if not self._readable:
            await self._arrival()
        if self._eof_fed:
            return b""
        data, self._held = self._held, b""
        if not data and self._lost:
            raise ConnectionGone
        if self._stopped and not self._lost:
            self._stopped = False
            self._transport.resume_reading()
        return data

    async def listen(self, hear: Callable[[bytes], bool]) -> None:
        """Tell ``hear`` what comes, as soon as it comes, until it returns False. Raises what that raises.

        Like `read`, it is told ``b""`` at the end, or behind a `feed_eof`. Raises `ConnectionGone`.
        """
        while True:
            if self._readable:
                if not hear(await self.read()):
                    return
            elif await self._arrival(hear):
                return

    @property
    def _readable(self) -> bool:
        """Whether a `read` has something to tell at once."""
        return bool(self._held) or self._eof_fed or self._ended or self._lost

    async def _arrival(self, hear: Callable[[bytes], bool] | None = None) -> bool:
        """Wait until there is something to read; True when ``hear`` was told all, and has heard enough."""
        self._reader, self._hear = self._loop.create_future(), hear
        try:
            return await self._reader
        finally:
            self._reader = self._hear = None

    def put_back(self, data: bytes) -> None:
        """Octets that were read, and shall be read again."""
        self._held = data + self._held

    def write(self, data: bytes) -> bool:
        """Send; False when some of it has to wait: see `drain`. Raises `ConnectionGone`."""
        if self._lost:
            raise ConnectionGone
        turn = self._turn
        alone, turn.last = turn.last is self, self
        if self._leaving:
            self._leaving += data
            if len(self._leaving) > _TOGETHER_MAX:
                self.flush()
        elif alone or self._paused or len(data) > _TOGETHER_MAX:
            self._transport.write(data)
        else:
            self._leaving = data
            if not turn.leaving:
                self._loop.call_soon(turn.flush)
            turn.leaving.append(self)
            if len(turn.leaving) >= _REPLIES_MAX:
                turn.flush()
        return not self._paused

    def flush(self) -> None:
        """Send what waits for the end of the turn."""
        data, self._leaving = self._leaving, b""
        if data and not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until all that was written has left for the system's buffers. Raises `ConnectionGone`."""
        self.flush()
        if self._paused and not self._lost:
            self._drained = self._loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None
        if self._lost:
            raise ConnectionGone

    async def wait_eof(self) -> None:
        """Wait until the peer sends nothing more, as far as that is seen without reading. One may wait at a time."""
        if not (self._ended or self._lost):
            self._eof = self._loop.create_future()
            try:
                await self._eof
            finally:
                self._eof = None

    def feed_eof(self) -> None:
        """Make a `read` under way, and all later ones, see the end of the stream."""
        self._eof_fed = True
        _wake(self._reader)

    async def write_eof(self) -> None:
        """Send nothing more once all has left; what comes can be read, also behind a `feed_eof`.

        Raises `ConnectionGone`.
        """
        # asyncio would do it behind what waits to be sent, and not expect that the peer has reset the connection then
        await self.drain()
        if self._transport.can_write_eof():
            with contextlib.suppress(OSError):  # it has, and asyncio does not know it yet
                self._transport.write_eof()
        self._eof_fed = False

    def abort(self) -> None:
        """Close at once; what was not sent is lost."""
        self._transport.abort()

    async def close(self) -> None:
        """Close when all has left."""
        self.flush()
        self._transport.close()
        with contextlib.suppress(ConnectionGone):
            await self.drain()

    # --- for the transport ---

    def get_buffer(self, sizehint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        return self._turn.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        data = bytes(self._turn.buffer[:nbytes])
        reader, hear = self._reader, self._hear
        if reader is not None and hear is not None and not reader.done():
            try:
                if not hear(data):
                    reader.set_result(True)
            except Exception as fault:  # it is the listener's own, and it is told where it waits
                reader.set_exception(fault)
            return
        self._held = self._held + data if self._held else data
        if reader is not None:
            _wake(reader)
        elif len(self._held) >= _HELD_MAX and not self._stopped:
            self._stopped = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """See `asyncio.BaseProtocol`: we may still have something to say."""
        self._ended = True
        _wake(self._reader)
        _wake(self._eof)
        return True

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._paused = True

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._paused = False
        _wake(self._drained)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._lost = True
        self.vanished = isinstance(exc, OSError) and exc.errno in _VANISHED
        if self._turn.last is self:
            self._turn.last = None  # nothing keeps a connection that is gone
        _wake(self._reader)
        _wake(self._eof)
        _wake(self._drained)


def _wake(waiter: asyncio.Future[bool] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(False)
