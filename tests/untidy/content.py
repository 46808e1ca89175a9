"""Messages of all shapes, each unlike all others in its octets and in its size as sent."""

import gzip
import re
from dataclasses import dataclass
from typing import Final

SHAPES: Final = ("plain", "crlf", "mixed", "unended", "dots", "bare", "large", "empty")

_LARGE: Final = 70_000  # octets: more than one piece


@dataclass(frozen=True, eq=False)
class Content:
    """What a file holds. ``stored``: its octets; ``sent``: those that RETR gives, which say which message it is."""

    stored: bytes
    sent: bytes
    compressed: bool = False


def as_sent(stored: bytes) -> bytes:
    """Each line's end as CRLF, the last one included (RFC 1939 §3)."""
    text = re.sub(rb"\r?\n", b"\r\n", stored)
    return text if not text or text.endswith(b"\r\n") else text + b"\r\n"


class Mint:
    """Makes contents. Sizes as sent never come twice, so that a listing says by its sizes which message is which."""

    def __init__(self) -> None:
        self._serial = 0
        self._sizes: set[int] = set()

    def make(self, shape: str = "plain") -> Content:
        """A new content; "empty" only once, then it is plain."""
        if shape == "empty" and 0 not in self._sizes:
            self._sizes.add(0)
            return Content(b"", b"")
        self._serial += 1
        lines = [b"Serial: %06d" % self._serial, b"", *self._lines(shape)]
        end = b"\r\n" if shape == "crlf" else b"\n"
        while True:
            stored = end.join(lines) + end
            if shape == "mixed":
                stored = stored.replace(b"\n", b"\r\n", 1)
            if shape in ("unended", "bare"):
                stored = stored.removesuffix(end)
            if len(as_sent(stored)) not in self._sizes:
                return self._made(stored)
            lines[2] += b"x"

    def _lines(self, shape: str) -> list[bytes]:
        if shape == "dots":
            return [b".x", b".", b"..", b".y"]
        if shape == "bare":
            return [b"x\ry", b"z\r"]
        if shape == "large":
            return [b"x" * 60] * (_LARGE // 61)
        return [b"x"]

    def same_length(self, old: Content) -> Content:
        """Other octets of the same length, and of the same size as sent; more where there is no serial number."""
        self._serial += 1
        stored, found = re.subn(rb"[0-9]{6}", b"%06d" % self._serial, old.stored, count=1)
        return self._made(stored) if found else self.longer(old)

    def longer(self, old: Content) -> Content:
        """All of the old, and more."""
        more = b"more\n"
        while len(as_sent(old.stored + more)) in self._sizes:
            more = b"x" + more
        return self._made(old.stored + more)

    def shorter(self, old: Content) -> Content | None:
        """The beginning of the old, which still says its serial number; None when nothing can be left out."""
        for length in range(len(old.stored) * 3 // 4, 15, -1):
            if len(as_sent(old.stored[:length])) not in self._sizes:
                return self._made(old.stored[:length])
        return None

    def _made(self, stored: bytes) -> Content:
        sent = as_sent(stored)
        self._sizes.add(len(sent))
        return Content(stored, sent)


def compressed(old: Content) -> Content:
    """The same message, as Dovecot's mail_compress would store it."""
    return Content(gzip.compress(old.stored, mtime=1), old.sent, compressed=True)
