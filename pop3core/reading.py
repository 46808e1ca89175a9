"""A RETR or TOP being answered: the message's content in, the reply's octets out."""

from __future__ import annotations

from pop3core.errors import LocalProtocolError
from pop3core.events import ContentRequested
from pop3core.framing import TERMINATOR, DotStuffer, TopCutter

__all__ = ["Reading"]


class Reading:
    """``number``: the message; ``lines``: None for RETR, else how many lines of the body TOP wants."""

    __slots__ = ("_cutter", "_stuffer", "ended", "lines", "number", "offset", "started")

    def __init__(self, number: int, lines: int | None) -> None:
        self.number = number
        self.lines = lines
        self.offset = 0
        """Octets of content used so far."""
        self.started = False
        """The +OK has been said."""
        self.ended = False
        """The reply is complete."""
        self._stuffer = DotStuffer()
        self._cutter = None if lines is None else TopCutter(lines)

    def request(self) -> ContentRequested:
        """The question for the next piece."""
        return ContentRequested(self.number, self.offset, self.lines)

    def check(self, data: bytes, last: bool, octets_max: int) -> None:
        """Raises `LocalProtocolError` for a piece that breaks the rules of `pop3core.answers.Content`."""
        if len(data) > octets_max:
            raise LocalProtocolError(f"a piece of content has at most {octets_max} octets")
        if not data and not last:
            raise LocalProtocolError("a piece of content is empty only when it is the last")
        # the CR may have come with the piece before, so the LF alone is looked for
        if last and not (data.endswith(b"\n") if data else self._stuffer.at_line_start):
            raise LocalProtocolError("content ends with CRLF")

    def feed(self, data: bytes, last: bool) -> bytes:
        """What goes on the wire for the next piece, with the terminator when it is the last that is wanted."""
        if self._cutter is not None:
            data = self._cutter.feed(data)
            last = last or self._cutter.ended
        self.offset += len(data)
        self.ended = last
        stuffed = self._stuffer.feed(data)
        return stuffed + TERMINATOR if last else stuffed
