"""Reading messages out of an mbox file, in bounded memory.

A message begins with a line that begins with "From ", at the start of the file or behind an empty line. That empty line
separates, and belongs to no message. Lines that were quoted (">From ", mboxrd) lose one ">".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import BinaryIO, Final

__all__ = ["messages", "without_from_line"]

_PIECE: Final = 64 * 1024  # octets read at a time; a longer line comes in pieces
_QUOTED = re.compile(rb">+From ")


def messages(file: BinaryIO) -> Iterator[Iterator[bytes]]:
    """Each message in pieces, in order; one must be read to its end before the next. Raises ValueError for no mbox."""
    for _, pieces in groupby(_numbered(file), key=itemgetter(0)):
        yield _text(piece for _, piece in pieces)


def _numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Pieces of lines, with the number of the message that they belong to; its From line is left out."""
    number, after_empty, at_start, in_from = 0, True, True, False
    for piece in iter(lambda: file.readline(_PIECE), b""):
        if at_start:
            in_from = after_empty and piece.startswith(b"From ")
            if in_from:
                number += 1
            elif not number:
                raise ValueError('it does not begin with "From "')
            after_empty = piece in (b"\n", b"\r\n")
        if not in_from:
            yield number, _unquoted(piece) if at_start else piece
        elif at_start:
            yield number, b""  # a message of no line at all is one, too
        at_start = piece.endswith(b"\n")


def _unquoted(line: bytes) -> bytes:
    return line[1:] if _QUOTED.match(line) else line


def _text(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """All but the empty line at the end."""
    held = b""
    for piece in pieces:
        if held:
            yield held
            held = b""
        if piece in (b"\n", b"\r\n"):
            held = piece
        elif piece:
            yield piece


def without_from_line(file: BinaryIO) -> Iterator[bytes]:
    """A single message as an MTA hands it over, in pieces, without the "From " line that some put before it."""
    first = file.readline(_PIECE)
    while first.startswith(b"From ") and not first.endswith(b"\n"):
        rest = file.readline(_PIECE)
        first = b"From " + rest if rest else b""
    if not first.startswith(b"From "):
        yield first
    yield from iter(lambda: file.read(_PIECE), b"")
