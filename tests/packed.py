"""Messages compressed as other servers compress them, for tests."""

import bz2
import gzip
import lzma
import sys
from collections.abc import Callable

from pop3d.stores.maildir.dovecot_lz4 import MAGIC

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def by_gzip(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def by_lz4(content: bytes) -> bytes:
    """As Dovecot frames it: chunks of 64 KiB, each a block that repeats what it can by its last four octets."""
    parts = [MAGIC, (64 * 1024).to_bytes(4, "big")]
    for start in range(0, len(content), 64 * 1024):
        block = _lz4_block(content[start : start + 64 * 1024])
        parts += [len(block).to_bytes(4, "big"), block]
    return b"".join(parts)


def _lz4_block(text: bytes) -> bytes:
    packed, seen, place, literal = bytearray(), dict[bytes, int](), 0, 0
    while place < len(text) - 12:  # the format wants literals at the end
        four = text[place : place + 4]
        before = seen.get(four)
        seen[four] = place
        if before is None:
            place += 1
            continue
        octets = 4
        while place + octets < len(text) - 5 and text[before + octets] == text[place + octets]:
            octets += 1
        packed += _sequence(text[literal:place], octets - 4, (place - before).to_bytes(2, "little"))
        place += octets
        literal = place
    return bytes(packed + _sequence(text[literal:], 0, b""))


def _sequence(literals: bytes, match: int, distance: bytes) -> bytes:
    token = min(len(literals), 15) << 4 | min(match, 15)
    return bytes((token,)) + _more(len(literals)) + literals + distance + (_more(match) if distance else b"")


def _more(length: int) -> bytes:
    if length < 15:
        return b""
    full, rest = divmod(length - 15, 255)
    return b"\xff" * full + bytes((rest,))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": by_gzip,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
    "LZ4": by_lz4,
}
"""By the names that pop3d gives them."""
