"""The lines of the log of `pop3cli.sync.state`: what they say, and how they are written.

A line is a checksum, a word, a time, a number and a unique-id, and for some words more, with single blanks between.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = [
    "APPEND",
    "APPENDED",
    "BACK",
    "END",
    "FORGOT",
    "GONE",
    "RUN",
    "Kind",
    "LogEntry",
    "PendingAppend",
    "fields_of",
    "line_of",
]

RUN: Final = "run"
"""A run begins: from now on a Maildir may have messages that no line names."""

END: Final = "end"
"""The run has come to its end."""

APPEND: Final = "append"
"""An mbox is about to grow; the lines behind it count with `APPENDED`."""

APPENDED: Final = "appended"
"""It has grown."""

GONE: Final = "gone"
"""The server lists a message no more."""

BACK: Final = "back"
"""It lists it again."""

FORGOT: Final = "forgot"
"""Our own QUIT has removed it."""


class Kind(Enum):
    """What was done with a message."""

    FETCHED = "fetched"
    """It is in the destination, whole, and as large as announced."""

    ODD = "odd"
    """The same, but it is not as large as LIST announced: it is deleted only when it comes so a second time."""

    HEADERS = "headers"
    """Its headers are in the destination."""

    SKIPPED = "skipped"
    """The filter wants it left on the server."""

    UNWANTED = "unwanted"
    """The filter wants it deleted."""

    IMPORTED = "imported"
    """Another program has fetched it."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """What is remembered of a message.

    ``time``: when it was done, ``gone``: since when the server does not list it, both in seconds of the Unix epoch;
    ``gone`` is 0 for a message that is listed. ``octets``: as announced by LIST, 0 when unknown. ``digest``: SHA-256 of
    the text that was fetched, in hexadecimal, empty when unknown. ``away``: the server did not list the id at some time
    since, or we do not know whether it did; so it may name another message now.
    """

    kind: Kind
    time: int
    octets: int
    digest: str = ""
    gone: int = 0
    away: bool = False

    def lines(self, uid: str) -> list[bytes]:
        """What the log has of it."""
        lines = [line_of(self.kind.value, self.time, self.octets, uid, self.digest)]
        if self.gone or self.away:
            lines.append(line_of(GONE, self.gone or self.time, 0, uid))
        if self.away and not self.gone:
            lines.append(line_of(BACK, self.time, 0, uid))
        return lines


@dataclass(frozen=True, slots=True)
class PendingAppend:
    """An mbox may have grown by ``octets`` behind ``offset``.

    What was added begins with ``padding`` line ends (octets); the separator lines of its messages have ``token`` and
    ``time`` (seconds of the Unix epoch). ``octets`` is 0 when version 0.1 wrote it, which did not say.
    """

    offset: int
    token: str
    time: int
    octets: int = 0
    padding: int = 0

    def line(self) -> bytes:
        """What the log has of it."""
        return line_of(APPEND, self.time, self.offset, self.token, str(self.octets), str(self.padding))


def line_of(word: str, when: int, octets: int, uid: str, *more: str) -> bytes:
    """A line: ``more`` without its empty ones."""
    text = " ".join(filter(None, (word, str(when), str(octets), uid, *more))).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def fields_of(line: bytes) -> list[str] | None:
    """The words of a line; None when it is not whole."""
    if line[8:9] != b" " or not line.endswith(b"\n"):
        return None
    text = line[9:-1]
    if b"%08x" % zlib.crc32(text) != line[:8]:
        return None
    return text.decode("ascii", "replace").split(" ")
