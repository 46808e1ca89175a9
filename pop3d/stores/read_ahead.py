"""What stores share that read messages ahead: which ones together, and how one that is larger is given in pieces.

Asking a thread or a database costs as much as reading ten small messages, and a client nearly always asks for the next
one. So a small message is read together with those behind it; the first one with which they have `AHEAD_OCTETS`
or more is the last.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from pop3core.answers import Content
from pop3core.limits import DEFAULT_LIMITS

__all__ = ["AHEAD_OCTETS", "PIECE", "Pieces", "Text", "behind"]

PIECE: Final = DEFAULT_LIMITS.content_octets_max
"""Octets that are given at a time; a message of no more is small."""

AHEAD_OCTETS: Final = 256 * 1024
"""Held for a session, and one small message more: with 64 of 4 KiB, what one question costs does not count any more."""

_AHEAD_MESSAGES: Final = 128
"""Read together, the first included."""


def behind(number: int, sizes: Sequence[int]) -> Iterator[int]:
    """Numbers of the messages behind ``number`` that are read together with it; ``sizes``: of all, in octets."""
    octets = sizes[number - 1]
    for one in range(number + 1, min(len(sizes), number + _AHEAD_MESSAGES - 1) + 1):
        size = sizes[one - 1]
        if octets >= AHEAD_OCTETS or size > PIECE:
            return
        octets += size
        yield one


class Text(Protocol):
    """Turns a message's octets into what is sent."""

    def feed(self, data: bytes) -> bytes:
        """What can be sent of it now."""
        ...

    def finish(self) -> bytes:
        """The rest, at the end of the message."""
        ...


class Pieces:
    """A message being read in pieces, which are given in order. ``size``: octets of its source, if they are known.

    ``offset``: octets given; ``position``: octets of the source that were read; ``waiting``: what was read and not
    given; ``ended``: all was read.
    """

    def __init__(self, number: int, text: Text, size: int = sys.maxsize) -> None:
        self.number, self.size = number, size
        self.offset = self.position = 0
        self.waiting = b""
        self.ended = False
        self._text = text

    def is_at(self, number: int, offset: int) -> bool:
        """The piece at ``offset`` of message ``number`` is the next one."""
        return self.number == number and self.offset == offset

    def take(self, data: bytes) -> None:
        """The next octets of the source; none at its end."""
        self.position += len(data)
        self.waiting = self._text.feed(data)
        # A short read is no end: a part may have come. The size saves the read that returns nothing.
        if not data or self.position >= self.size:
            self.waiting += self._text.finish()
            self.ended = True

    def give(self) -> Content:
        """The next piece, empty when nothing waits."""
        piece = self.waiting[:PIECE]
        self.waiting = self.waiting[PIECE:]
        self.offset += len(piece)
        return Content(piece, last=self.ended and not self.waiting)
