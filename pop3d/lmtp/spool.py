"""A message on its way: in memory while it is small, beyond that in a file without a name.

It is stored as a Maildir has it, with LF at a line's end, where CRLF came. A CR before it is kept, so that what POP3
sends again is what came. A file without a name is gone with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from pop3d.stores.threads import hop

__all__ = ["IN_MEMORY_MAX", "MessageSpool"]

IN_MEMORY_MAX: Final = 256 * 1024
"""Octets of a message that are kept in memory; most messages are smaller. All connections together have 25 MiB."""

_PIECES_MAX: Final = 256  # that are held one by one: a piece of a few octets takes fifty more
_LINE_END: Final = re.compile(rb"(?<!\r)\r\n")
_PIECE: Final = 64 * 1024  # octets read from the file at a time: a thread that works on more holds others up


class MessageSpool:
    """A message that arrives; ``folder``: of the file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: list[bytes] = []
        self._held_octets = 0
        self._file: IO[bytes] | None = None
        self._after_cr = False
        self.octets = 0
        """As stored, of what has come."""

    async def write(self, data: bytes) -> None:
        """The next octets. Raises OSError where the file cannot be made or written."""
        data = self._stored(data)
        self._held.append(data)
        self._held_octets += len(data)
        self.octets += len(data)
        if self._held_octets > IN_MEMORY_MAX:
            held, self._held, self._held_octets = self._held, [], 0
            await hop(self._write, held)
        elif len(self._held) > _PIECES_MAX:
            self._held = [b"".join(self._held)]

    def _stored(self, data: bytes) -> bytes:
        # a piece never ends between CR and LF: see `pop3core.framing.DotUnstuffer`
        behind_cr = self._after_cr and data.startswith(b"\r\n")
        self._after_cr = data.endswith(b"\r")
        # in CPython a third of the time of `replace`, which was the dearest line of a delivery
        text = _LINE_END.sub(b"\n", data) if b"\r\r" in data else b"\n".join(data.split(b"\r\n"))
        return b"\r" + text if behind_cr else text

    def _write(self, held: list[bytes]) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  # closed by `close`
        for data in held:
            left = memoryview(data)
            while left:
                left = left[os.write(self._file.fileno(), left) :]

    @property
    def beginning(self) -> bytes:
        """The first octets, some `IN_MEMORY_MAX`. Blocking. Raises OSError."""
        return b"".join(self._held) if self._file is None else os.pread(self._file.fileno(), IN_MEMORY_MAX, 0)

    def pieces(self) -> Iterator[bytes]:
        """The whole message, for any number of readers at once. Blocking. Raises OSError."""
        if self._file is not None:
            at = 0
            while piece := os.pread(self._file.fileno(), _PIECE, at):
                yield piece
                at += len(piece)
        yield from self._held

    async def close(self) -> None:
        """Forget it; nobody may read any more."""
        self._held = []
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):  # of a disk that is full, over NFS: what was delivered is to be told
                await hop(file.close)  # to free a large file takes its time
