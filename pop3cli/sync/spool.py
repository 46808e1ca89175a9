"""A message on its way: octets come in as sent, CRLF at each line's end, and are kept as Unix has text, with LF."""

from __future__ import annotations

import hashlib
import re
from typing import Final

__all__ = ["LineEnds", "Spool"]

_LONE: Final = re.compile(rb"\r(?!\n)")


class LineEnds:
    """Turns CRLF into LF, whatever pieces it comes in. Other CRs and LFs stay as they are."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = False  # a CR whose LF may come with the next piece

    def feed(self, data: bytes) -> bytes:
        """The next piece of content."""
        if self._held:
            data, self._held = b"\r" + data, False
        if data.endswith(b"\r"):
            data, self._held = data[:-1], True
        # nearly always each CR has its LF, and dropping one octet is several times quicker than looking for two
        return data.replace(b"\r\n", b"\n") if _LONE.search(data) else data.replace(b"\r", b"")

    def finish(self) -> bytes:
        """What was held back to the end."""
        held, self._held = self._held, False
        return b"\r" if held else b""


class Spool:
    """A message that is being written; subclasses say where. Methods block, and raise OSError."""

    def __init__(self) -> None:
        self._line_ends = LineEnds()
        self._digest = hashlib.sha256()

    def write(self, content: bytes) -> None:
        """The next piece of content, as sent."""
        self._take(self._line_ends.feed(content))

    def finish(self) -> None:
        """There is no more."""
        if rest := self._line_ends.finish():
            self._take(rest)

    def digest(self) -> str:
        """SHA-256 of the text that was written, in hexadecimal."""
        return self._digest.hexdigest()

    def _take(self, text: bytes) -> None:
        self._digest.update(text)
        self._write(text)

    def fileno(self) -> int:
        """The file it is in."""
        raise NotImplementedError

    def _write(self, text: bytes) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """No more is written or read."""
        raise NotImplementedError

    def discard(self) -> None:
        """It is not wanted after all."""
        raise NotImplementedError
