"""Reading messages out of an mbox file, in bounded memory.

A message begins with a line that begins with "From ", at the start of the file or behind an empty line. That empty line
separates, and belongs to no message. Lines that were quoted (">From ", mboxrd) lose one ">".

Some servers (System V's) say in ``Content-Length`` how long a body is, and quote nothing in it (mboxcl2). It is
believed where it leads exactly to the next message or to the end of the file, for anybody may send such a header. In a
body that has unquoted "From " lines by this, no line loses a ">".
"""

from __future__ import annotations

import calendar
import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

__all__ = ["MboxMessage", "messages", "without_from_line"]

_PIECE: Final = 64 * 1024  # octets read at a time; a longer line comes in pieces
_QUOTED = re.compile(rb">+From ")
_EMPTY: Final = (b"\n", b"\r\n")
_SEPARATED = re.compile(rb"(?:\r?\n){0,2}(?=(From )|\Z)")
_SEPARATOR_MAX: Final = 16  # octets that are looked at behind a body: two empty lines and "From "

_MUTABLE: Final = frozenset(
    {b"status", b"x-status", b"x-keywords", b"x-uid", b"x-uidl", b"x-imap", b"x-imapbase", b"content-length", b"lines"}
)
"""Fields that servers and mail programs write anew in a message that is there already."""

_WANTED: Final = frozenset({b"subject", b"x-uidl", b"x-imap", b"content-length"})
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:[ \t]*([^\r\n]*)")

_MONTHS: Final = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_DATE = re.compile(
    rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) +(" + b"|".join(_MONTHS) + rb") +(\d{1,2}) +(\d\d):(\d\d)(?::(\d\d))?"
    rb"(?: +(UTC|GMT|[A-Z]{3,5}))?(?: +([+-]\d{4}))? +(\d{4})(?: +([+-]\d{4}))?"
)


@dataclass(slots=True)
class MboxMessage:
    """Where a message is: from octet ``start`` to octet ``end`` of the file.

    ``from_line``: as it stands before the message. ``fields``: values of some of its header fields, by their names in
    small letters, of the first that has that name. ``digest``: SHA-256 of what no server changes in a message that is
    there already. ``quoted``: whether lines of it lose a ">".
    """

    start: int
    from_line: bytes
    end: int = 0
    fields: dict[bytes, bytes] = field(default_factory=dict)
    digest: bytes = b""
    quoted: bool = False

    def content(self, file: BinaryIO) -> Iterator[bytes]:
        """Its octets in pieces. Raises OSError; EOFError where the file has become shorter."""
        file.seek(self.start)
        left, at_start = self.end - self.start, True
        while left:
            # whole lines, where there is something to be unquoted
            piece = file.readline(min(left, _PIECE)) if self.quoted else file.read(min(left, _PIECE))
            if not piece:
                raise EOFError("it became shorter while it was read")
            left -= len(piece)
            yield piece[1:] if self.quoted and at_start and _QUOTED.match(piece) else piece
            at_start = piece.endswith(b"\n")

    @property
    def arrived(self) -> int | None:
        """When it was delivered, by its From line: seconds of the Unix epoch; None where that has no such date.

        A date without a zone is one of this machine's zone, as delivery agents write it.
        """
        found = None
        for found in _DATE.finditer(self.from_line):  # noqa: B007 - a sender could have a date in it: the last one
            pass
        if found is None:
            return None
        month, day, hour, minute, second, name, before, year, behind = found.groups()
        parts = (int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second or 0))
        if not (1 <= parts[2] <= 31 and parts[3] < 24 and parts[4] < 60 and parts[5] <= 60):
            return None
        zone = behind or before or (b"+0000" if name in (b"UTC", b"GMT") else None)
        try:
            if zone is None:
                return int(time.mktime((*parts, 0, 0, -1)))
            offset = int(zone[1:3]) * 3600 + int(zone[3:5]) * 60
            return calendar.timegm((*parts, 0, 0, 0)) - (offset if zone[:1] == b"+" else -offset)
        except (OverflowError, ValueError):
            return None

    @property
    def is_internal_data(self) -> bool:
        """Whether it could be what UW-IMAP and Pine keep in front of a folder's messages, for themselves."""
        return b"x-imap" in self.fields and self.fields.get(b"subject", b"").endswith(b"FOLDER INTERNAL DATA")


def messages(file: BinaryIO) -> Iterator[MboxMessage]:
    """Each message, in order. ``file`` may be moved while one is looked at.

    Raises OSError, and ValueError for no mbox.
    """
    start = 0
    while True:
        file.seek(start)
        line = file.readline(_PIECE)
        if not line:
            return
        if not line.startswith(b"From "):
            raise ValueError('it does not begin with "From "')
        start += len(line)
        message = MboxMessage(start, line)
        while not line.endswith(b"\n") and (line := file.readline(_PIECE)):
            start = message.start = start + len(line)
        start = _read(file, message)
        yield message


class _Extent:
    """A message while it is read: how far it came, and whether the last line was empty, and so perhaps separates."""

    def __init__(self, message: MboxMessage) -> None:
        self._message = message
        self._digest = hashlib.sha256(message.from_line.rstrip(b"\r\n"))
        self.at = message.start
        self._empty = b""

    def add(self, piece: bytes, *, at_start: bool, known: bool = True) -> None:
        """A line, or a piece of one. ``known``: it counts for the digest."""
        if self._empty:
            self._digest.update(self._empty)
            self._empty = b""
        self.at += len(piece)
        if at_start and piece in _EMPTY:
            self._empty = piece
        elif known:
            self._digest.update(piece)
            if at_start and piece.startswith(b">") and _QUOTED.match(piece):
                self._message.quoted = True

    def begins_next(self, line: bytes) -> bool:
        """Whether a line is the From line of the next message."""
        return bool(self._empty) and line.startswith(b"From ")

    def end(self) -> None:
        """Without the empty line that separates."""
        self._message.end = self.at - len(self._empty)
        self._message.digest = self._digest.digest()


def _read(file: BinaryIO, message: MboxMessage) -> int:
    """Read a message to its end; where the next one begins."""
    extent = _Extent(message)
    line, known = b"\n", True
    while not extent.begins_next(line):  # its header
        at_start = line.endswith(b"\n")
        if not (line := file.readline(_PIECE)):
            extent.end()
            return extent.at
        if extent.begins_next(line):  # a message of no line at all is one, too
            break
        if at_start and not line.startswith((b" ", b"\t")):
            name = _field(message, line)
            known = name not in _MUTABLE
        extent.add(line, at_start=at_start, known=known)
        if at_start and line in _EMPTY:
            if (length := _believed_length(file, message, extent.at)) is not None:
                return _read_length(file, message, extent, *length)
            break
    return _read_lines(file, extent)


def _field(message: MboxMessage, line: bytes) -> bytes:
    """The name of a field, in small letters; its value is kept if it is wanted."""
    found = _FIELD.match(line)
    if found is None:
        return b""
    name = found[1].lower()
    if name in _WANTED:
        message.fields.setdefault(name, found[2].rstrip())
    return name


def _read_lines(file: BinaryIO, extent: _Extent) -> int:
    """The body, up to an empty line and the next From line."""
    at_start = True
    file.seek(extent.at)
    for line in iter(lambda: file.readline(_PIECE), b""):
        if at_start and extent.begins_next(line):
            break
        extent.add(line, at_start=at_start)
        at_start = line.endswith(b"\n")
    extent.end()
    return extent.at


def _believed_length(file: BinaryIO, message: MboxMessage, body: int) -> tuple[int, int] | None:
    """The octets of the body, and of what separates it from the next message; None to look for that.

    ``body``: where it begins, which is where ``file`` is.
    """
    said = message.fields.get(b"content-length", b"")
    if not said.isdigit() or len(said) > 15:
        return None
    octets = int(said)
    file.seek(body + octets - 1)  # the last octet of the body, or of the header
    behind = file.read(1 + _SEPARATOR_MAX)
    found = _SEPARATED.match(behind, 1) if behind[:1] == b"\n" else None
    is_end = found is not None and (found[1] is not None or len(behind) <= _SEPARATOR_MAX)
    file.seek(body)
    return (octets, found.end() - 1) if found is not None and is_end else None


def _read_length(file: BinaryIO, message: MboxMessage, extent: _Extent, octets: int, separator: int) -> int:
    """The body, of so many octets."""
    end, at_start, unquoted = extent.at + octets, True, False
    while extent.at < end and (line := file.readline(min(_PIECE, end - extent.at))):
        unquoted = unquoted or (at_start and extent.begins_next(line))
        extent.add(line, at_start=at_start)
        at_start = line.endswith(b"\n")
    extent.end()
    message.end = extent.at
    message.quoted = message.quoted and not unquoted
    return extent.at + separator


def without_from_line(file: BinaryIO) -> Iterator[bytes]:
    """A single message as an MTA hands it over, in pieces, without the "From " line that some put before it."""
    first = file.readline(_PIECE)
    while first.startswith(b"From ") and not first.endswith(b"\n"):
        rest = file.readline(_PIECE)
        first = b"From " + rest if rest else b""
    if not first.startswith(b"From "):
        yield first
    yield from iter(lambda: file.read(_PIECE), b"")
