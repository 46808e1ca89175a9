"""A RETR or TOP being answered: the message's content in, the reply's octets out."""

from __future__ import annotations

from pop3core.errors import LocalProtocolError
from pop3core.events import ContentRequested
from pop3core.framing import TERMINATOR, DotStuffer, TopCutter, stuffed

__all__ = ["Reading"]


class Reading:
    """``number``: the message; ``lines``: None for RETR, else how many lines of the body TOP wants.

    ``opening``: the +OK, which is said once the first piece of content has come, for until then it may be -ERR.
    """

    __slots__ = ("_cutter", "_opening", "_stuffer", "_tail", "ended", "lines", "number", "offset", "started")

    def __init__(self, number: int, lines: int | None, opening: bytes) -> None:
        self._opening = opening
        self.number = number
        self.lines = lines
        self.offset = 0
        """Octets of content used so far; byte-stuffing does not count (RFC 1939 §11)."""
        self.started = False
        """The +OK has been said."""
        self.ended = False
        """The reply is complete."""
        self._tail = b""  # the last two octets of content given
        self._stuffer: DotStuffer | None = None  # of content in several pieces
        self._cutter = None if lines is None else TopCutter(lines)

    def request(self) -> ContentRequested:
        """The question for the next piece."""
        return ContentRequested(self.number, self.offset, self.lines)

    def _check(self, data: bytes, last: bool, octets_max: int) -> None:
        if len(data) > octets_max:
            raise LocalProtocolError(f"a piece of content has at most {octets_max} octets")
        if not data and not last:
            raise LocalProtocolError("a piece of content is empty only when it is the last")
        # Behind anything else the terminator would not be one (RFC 1939 §3), and the client would wait for ever.
        if last and not data.endswith(b"\r\n") and self._end_with(data) not in (b"\r\n", b""):
            raise LocalProtocolError("content ends with CRLF")

    def feed(self, data: bytes, last: bool, octets_max: int) -> bytes:
        """What goes on the wire for the next piece: with the +OK before the first, the terminator behind the last.

        Raises `LocalProtocolError` for a piece that breaks the rules of `pop3core.answers.Content`.
        """
        self._check(data, last, octets_max)
        if self._cutter is not None:
            self._tail = self._end_with(data)
            data = self._cutter.feed(data)
            last = last or self._cutter.ended
        elif not last:
            self._tail = self._end_with(data)
        self.offset += len(data)
        self.ended = last
        if self._stuffer is None:
            if last:  # most messages are one piece
                self.started = True
                return b"".join((self._opening, stuffed(data), TERMINATOR))
            self._stuffer = DotStuffer()
        data = self._stuffer.feed(data)
        if not self.started:
            self.started = True
            data = self._opening + data
        return data + TERMINATOR if last else data

    def _end_with(self, data: bytes) -> bytes:
        """The last two octets of all content, once ``data`` is part of it."""
        return data[-2:] if len(data) > 1 else (self._tail + data)[-2:]
