"""A cache of message sizes, one file per Maildir in the state folder.

A pure cache: rebuilt when it is missing, torn or not ours, skipped when it cannot be read or written, never needed for
correctness. It saves reading every message of a mailbox at every login: Maildir names stand for content that never
changes. A first line names the format, a checksum of the rest, and how many lines there are; so a file that a crash has
torn is none. Lines stand in the order of the messages, so that they can be laid beside a listing.

Blocking code, for a worker thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from pop3d.stores.maildir_listing import Scan

__all__ = ["SizeCache"]

_HEADER = re.compile(rb"pop3d sizes 2 ([0-9a-f]{8})\n")


class SizeCache:
    """The sizes of one Maildir's messages. ``state``: the folder for what can be rebuilt; ``maildir``: its path.

    ``surrogates``: sizes of these, which are not those of the messages as stored.
    """

    def __init__(self, state: Path, maildir: str, *, surrogates: bool = False) -> None:
        # named by a hash, so that nothing in a user's name can matter to a path
        self._path = state / "sizes" / hashlib.sha256(os.fsencode(maildir)).hexdigest()
        if surrogates:
            self._path = self._path.with_suffix(".surrogates")

    def load(self) -> Iterator[tuple[bytes, int]]:
        """Sizes as `pop3d.stores.maildir_listing.Sizes`; none when nothing usable is there."""
        try:
            octets = self._path.read_bytes()
        except OSError:
            return iter(())
        header = _HEADER.match(octets)
        if header is None or int(header[1], 16) != zlib.crc32(memoryview(octets)[header.end() :]):
            return iter(())
        lines = io.BytesIO(octets)
        lines.seek(header.end())
        return _entries(lines)

    def save(self, found: Scan) -> None:
        """Keep sizes; a full or read-only disk only means that the next login counts again."""
        lines = [b"%d %b\n" % (size, key) for key, size in found.sizes() if b"\n" not in key]
        text = b"".join(lines)
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with beside.open("wb") as file:
                file.write(b"pop3d sizes 2 %08x\n" % zlib.crc32(text))
                file.write(text)
            os.replace(beside, self._path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()

    def forget(self) -> None:
        """Drop what is kept: a size was found to be wrong."""
        with contextlib.suppress(OSError):
            self._path.unlink()


def _entries(lines: io.BytesIO) -> Iterator[tuple[bytes, int]]:
    for line in lines:
        size, _, key = line.rstrip(b"\n").partition(b" ")
        yield key, int(size)
