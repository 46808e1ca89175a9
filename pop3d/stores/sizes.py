"""A cache of message sizes, one file per Maildir in the state folder.

A pure cache: rebuilt when it is missing, torn or not ours, skipped when it cannot be read or written, never needed for
correctness. It saves reading every message of a mailbox at every login: Maildir names stand for content that never
changes. A first line names the format, then a line per message, then the number of messages, so that a torn file shows.

Blocking code, for a worker thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

__all__ = ["SizeCache"]

_HEADER = b"pop3d sizes 1"


class SizeCache:
    """The sizes of one Maildir's messages. ``state``: the folder for what can be rebuilt; ``maildir``: its path.

    ``surrogates``: sizes of these, which are not those of the messages as stored.
    """

    def __init__(self, state: Path, maildir: str, *, surrogates: bool = False) -> None:
        # named by a hash, so that nothing in a user's name can matter to a path
        self._path = state / "sizes" / hashlib.sha256(os.fsencode(maildir)).hexdigest()
        if surrogates:
            self._path = self._path.with_suffix(".surrogates")

    def load(self) -> dict[bytes, int]:
        """Sizes by `pop3d.stores.maildir_listing.size_key`; empty when nothing usable is there."""
        try:
            octets = self._path.read_bytes()
        except OSError:
            return {}
        header, *lines = octets.split(b"\n")
        # what follows the header: the sizes, their number, and nothing behind its line end
        if header != _HEADER or len(lines) < 2 or lines.pop() or lines.pop() != b"%d" % len(lines):
            return {}
        try:
            return {name: int(size) for size, _, name in (line.partition(b" ") for line in lines)}
        except ValueError:
            return {}

    def save(self, sizes: dict[bytes, int]) -> None:
        """Keep sizes; a full or read-only disk only means that the next login counts again."""
        lines = [b"%d %b" % (size, name) for name, size in sizes.items()]
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside.write_bytes(b"\n".join((_HEADER, *lines, b"%d" % len(lines), b"")))
            os.replace(beside, self._path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()

    def forget(self) -> None:
        """Drop what is kept: a size was found to be wrong."""
        with contextlib.suppress(OSError):
            self._path.unlink()
