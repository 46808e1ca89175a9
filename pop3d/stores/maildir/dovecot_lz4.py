"""Unpacking messages that Dovecot's zlib plug-in has compressed with LZ4.

Dovecot frames LZ4 in its own way: a magic, the largest size of an unpacked chunk, then chunks, each a length and a
block of LZ4 that needs nothing of the others. Lengths are 4 octets, most significant first. Nothing marks the end: a
file cut between two chunks cannot be told from a whole one.

Python's standard library has no LZ4; a block of 64 KiB takes this some 10 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["MAGIC", "unpacked_lz4"]

MAGIC: Final = b"Dovecot-LZ4\r*\x9b\xc5"
"""What such a file begins with."""

_CHUNK_MAX: Final = 64 * 1024  # octets of an unpacked chunk: what Dovecot writes, and the most it reads
_BLOCK_MAX: Final = _CHUNK_MAX + _CHUNK_MAX // 255 + 16  # octets of a packed one: what cannot be compressed grows
_MATCH_MIN: Final = 4  # octets: what a match has at least (LZ4 block format)
_EXTENDED: Final = 15  # a length of four bits that continues in further octets


def unpacked_lz4(read: Callable[[], bytes]) -> Iterator[bytes]:
    """The content, in pieces of at most 64 KiB. ``read``: the file's next octets, ``b""`` at its end.

    Raises EOFError for a truncated file, ValueError for a damaged one.
    """
    held = b""

    def take(octets: int) -> bytes:
        nonlocal held
        parts = [held]
        missing = octets - len(held)
        while missing > 0:
            data = read()
            if not data:
                raise EOFError
            parts.append(data)
            missing -= len(data)
        held = b"".join(parts)
        taken, held = held[:octets], held[octets:]
        return taken

    if take(len(MAGIC)) != MAGIC or not 0 < int.from_bytes(take(4), "big") <= _CHUNK_MAX:
        raise ValueError("its header is not Dovecot's")
    while held or (held := read()):
        octets = int.from_bytes(take(4), "big")
        if not 0 < octets <= _BLOCK_MAX:
            raise ValueError("the length of a chunk is not possible")
        yield _block(take(octets))


def _block(packed: bytes) -> bytes:
    """A block of LZ4, unpacked. Raises ValueError."""
    content = bytearray()
    place, end = 0, len(packed)
    try:
        while True:
            token = packed[place]
            octets, place = _length(packed, place + 1, token >> 4)
            if place + octets > end:
                raise ValueError("a chunk ends too early")
            content += packed[place : place + octets]
            place += octets
            if place == end:  # the last sequence has no match
                break
            distance = packed[place] | packed[place + 1] << 8
            octets, place = _length(packed, place + 2, token & 15)
            _copy(content, distance, octets + _MATCH_MIN)
            if len(content) > _CHUNK_MAX:
                break
    except IndexError:
        raise ValueError("a chunk ends too early") from None
    if len(content) > _CHUNK_MAX:
        raise ValueError("a chunk is too large")
    return bytes(content)


def _length(packed: bytes, place: int, length: int) -> tuple[int, int]:
    """A length that began with four bits, and where it ends."""
    if length == _EXTENDED:
        while True:
            more = packed[place]
            place += 1
            length += more
            if more != 255:
                break
    return length, place


def _copy(content: bytearray, distance: int, octets: int) -> None:
    """Repeat what stands ``distance`` octets before the end; it may overlap with what it makes."""
    start = len(content) - distance
    if distance == 0 or start < 0:
        raise ValueError("a match refers to what is not there")
    if octets <= distance:
        content += content[start : start + octets]
    else:
        again = bytes(content[start:])
        content += (again * (octets // distance + 1))[:octets]
