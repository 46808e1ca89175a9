"""A connection as it is on the wire: octets, with no engine between that would refuse to say or to see what is wrong.

Whatever the server does is bounded: the octets of one line and of one reply, and the seconds each wait may take. What
keeps an exchange from coming to its end is a `RawConnectionFault`, and the connection is then good for nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from typing import Any, Final

from pop3cli.net.tls import Dial
from pop3cli.net.trace import Trace

__all__ = ["LINES_MAX", "LINE_MAX", "REPLY_MAX", "RawConnection", "RawConnectionFault", "RawReply", "Tally"]

LINE_MAX: Final = 64 * 1024
"""Octets of one line that are taken; lines of mail are shorter (RFC 5322 §2.1.1 says 998)."""

REPLY_MAX: Final = 8 * 1024 * 1024
"""Octets of one reply that are taken."""

LINES_MAX: Final = 250_000
"""Lines of one reply that are taken: each costs more than its octets."""

_PIECE: Final = 64 * 1024  # octets read at a time
_GOODBYE: Final = 1.0  # seconds for a connection to close


class RawConnectionFault(Exception):
    """The server said nothing, too much, or went away; the text says which, and in answer to what."""


class Silence(RawConnectionFault):
    """No answer in time."""


@dataclass(slots=True)
class Tally:
    """What all connections together showed. ``bare_lf``: a line that ended without CR; ``longest``: octets of a line
    outside content, with its end; ``coded``: an -ERR with what reads as a response code."""

    bare_lf: bytes | None = None
    longest: bytes = b""
    coded: bytes | None = None


@dataclass(frozen=True, slots=True)
class RawReply:
    """A reply. ``status``: its first line, without the end; ``lines``: those behind it, as they came, without ends;
    ``octets``: what the lines hold once dots are unstuffed, ends included."""

    status: bytes
    lines: tuple[bytes, ...] = ()

    @property
    def ok(self) -> bool:
        """The status line is +OK, and not merely begins with it (RFC 1939 §3, RFC 2449 §4)."""
        return self.status == b"+OK" or self.status.startswith(b"+OK ")

    @property
    def refused(self) -> bool:
        """The status line is -ERR."""
        return self.status == b"-ERR" or self.status.startswith(b"-ERR ")

    @property
    def code(self) -> bytes | None:
        """The response code, in capitals (RFC 2449 §8)."""
        text = self.status.partition(b" ")[2]
        return text[1:].partition(b"]")[0].upper() if text.startswith(b"[") and b"]" in text else None

    @property
    def content(self) -> bytes:
        """The lines as octets of a message: dots unstuffed (RFC 1939 §3)."""
        return b"".join((line[1:] if line.startswith(b".") else line) + b"\r\n" for line in self.lines)


class RawConnection:
    """One connection. Methods that read raise `RawConnectionFault`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        patience: float,
        tally: Tally,
        trace: Trace | None,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._patience = patience
        self._tally = tally
        self._trace = trace
        self._buffer = bytearray()
        self._said = "the connection"
        self.greeting = RawReply(b"")
        self.refusals = 0
        """How many -ERR came: servers hang up after some."""
        self.broken = False
        """An exchange was not brought to its end."""

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        *,
        patience: float,
        tally: Tally,
        trace: Trace | None = None,
        dial: Dial | None = None,
    ) -> RawConnection:
        """Connect. ``patience``: seconds that each wait may take. Raises OSError, among them `ssl.SSLError`."""
        settings: dict[str, Any] = {} if tls is None else {"ssl": tls, "ssl_handshake_timeout": patience}
        async with asyncio.timeout(patience):
            if dial is None:
                settings |= {"host": host, "port": port}
            else:
                settings |= {"sock": await dial(host, port), "server_hostname": None if tls is None else host}
            reader, writer = await asyncio.open_connection(limit=_PIECE, **settings)
        if trace is not None:
            trace.note(f"connected to {host} port {port}")
        return cls(reader, writer, patience, tally, trace)

    async def close(self) -> None:
        """Drop the connection."""
        self.broken = True
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_GOODBYE):
                await self._writer.wait_closed()
        self._writer.transport.abort()

    async def start_tls(self, tls: ssl.SSLContext, host: str) -> None:
        """The handshake behind a +OK to STLS. Raises OSError; `RawConnectionFault` if clear text stands before it."""
        if self._buffer:
            raise RawConnectionFault(f"clear text behind the answer to {self._said}")
        await self._writer.start_tls(tls, server_hostname=host, ssl_handshake_timeout=self._patience)

    # --- saying ---

    async def send(self, data: bytes, name: str) -> None:
        """Say octets as they are. ``name``: what to call them in a fault's text."""
        self._said = name
        if self._trace is not None:
            self._trace.sent(data)
        try:
            async with asyncio.timeout(self._patience):
                self._writer.write(data)
                await self._writer.drain()
        except TimeoutError:
            raise self._fault("nothing is read by the server during") from None
        except OSError:
            pass  # reading tells what became of it, and may bring the reason first

    async def ask(self, command: str | bytes, *, lines: bool = False, name: str = "") -> RawReply:
        """Say one command and read its reply. ``lines``: a +OK has lines behind it, and a dot."""
        octets = command.encode() if isinstance(command, str) else command
        await self.send(octets + b"\r\n", name or octets.decode("ascii", "replace"))
        return await self.reply(lines=lines)

    # --- hearing ---

    async def reply(self, *, lines: bool = False) -> RawReply:
        """The next reply."""
        status = await self._status_line()
        reply = RawReply(status)
        if reply.refused:
            self.refusals += 1
            if reply.code is not None:
                self._tally.coded = status
        return RawReply(status, await self._lines()) if lines and reply.ok else reply

    async def rest(self) -> list[bytes]:
        """All status lines until the server closes the connection."""
        found, octets = list[bytes](), 0
        while (line := await self._line(at_end=True)) is not None:
            found.append(line)
            octets += len(line) + 2
            if octets > LINE_MAX:
                raise self._fault("a reply without end to")
        return found

    async def quiet(self, seconds: float) -> bytes:
        """What the server says unasked within so many seconds; empty when it is quiet, or has gone."""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(seconds):
                self._buffer += await self._reader.read(_PIECE)
        return bytes(self._buffer)

    async def _status_line(self) -> bytes:
        line = await self._line()
        assert line is not None
        if len(line) + 2 > len(self._tally.longest):
            self._tally.longest = line + b"\r\n"
        return line

    async def _lines(self) -> tuple[bytes, ...]:
        found, octets = list[bytes](), 0
        while (line := await self._line()) != b".":
            assert line is not None
            octets += len(line) + 2
            if octets > REPLY_MAX or len(found) >= LINES_MAX:
                raise self._fault(f"more than {octets:,} octets in {len(found) + 1:,} lines, and no end, in answer to")
            found.append(line)
        return tuple(found)

    async def _line(self, *, at_end: bool = False) -> bytes | None:
        """The next line without its end; None at the end of the connection, where ``at_end`` allows it."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > LINE_MAX:
                raise self._fault(f"a line of more than {LINE_MAX:,} octets in answer to")
            if not await self._more():
                if at_end and not self._buffer:
                    return None
                raise self._fault("the connection was closed, and not at the end of a reply, during")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        if not line.endswith(b"\r"):
            self._tally.bare_lf = line
            return line
        return line[:-1]

    async def _more(self) -> bool:
        try:
            async with asyncio.timeout(self._patience):
                data = await self._reader.read(_PIECE)
        except TimeoutError:
            raise Silence(str(self._fault(f"no answer within {self._patience:g} s to"))) from None
        except OSError:
            data = b""
        if self._trace is not None:
            self._trace.received(data)
        self._buffer += data
        return bool(data)

    def _fault(self, text: str) -> RawConnectionFault:
        self.broken = True
        return RawConnectionFault(f"{text} {self._said}")
