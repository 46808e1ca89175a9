"""What goes over a connection, line for line, without its secrets.

A secret is known by where it stands: behind PASS, in AUTH and all that is said until its end, in APOP's digest. What
was said there is masked again wherever the server repeats it. Lines are cut, and one that never ends costs no memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from pop3cli.harmless import harmless

__all__ = ["Trace", "is_secret"]

_LINE_MAX: Final = 1024  # octets of a line that are shown
_MASK: Final = b"***"
_SECRET: Final = re.compile(rb"\s*(?:raw\s+)?(pass|auth|apop)\b", re.I)
_BEHIND: Final = re.compile(rb"(\s*(?:PASS\b|AUTH\s+\S+|APOP\s+\S+))\s*(.*)", re.I | re.DOTALL)


def is_secret(line: str) -> bool:
    """Whether a line that was typed may hold a password, or what proves to know it."""
    return _SECRET.match(line.encode("utf-8", "replace")) is not None


class Trace:
    """One connection's. ``show(who, line)``: who is "C", "S" or "-"; the line is harmless."""

    def __init__(self, show: Callable[[str, str], None]) -> None:
        self._show = show
        self._begun = {"C": b"", "S": b""}
        self._dropped = {"C": 0, "S": 0}
        self._in_auth = False
        self._secrets: list[bytes] = []

    def sent(self, data: bytes) -> None:
        """Octets that were sent."""
        self._lines("C", data)

    def received(self, data: bytes) -> None:
        """Octets that came."""
        self._lines("S", data)

    def note(self, text: str) -> None:
        """What happened beside that."""
        self._show("-", harmless(text))

    def _lines(self, who: str, data: bytes) -> None:
        *whole, rest = data.split(b"\n")
        for line in whole:
            self._line(who, self._begun[who] + line, self._dropped[who])
            self._begun[who], self._dropped[who] = b"", 0
        self._begun[who] += rest
        self._dropped[who] += max(len(self._begun[who]) - _LINE_MAX, 0)
        self._begun[who] = self._begun[who][:_LINE_MAX]

    def _line(self, who: str, line: bytes, dropped: int) -> None:
        dropped += max(len(line) - _LINE_MAX, 0)
        line = line[:_LINE_MAX].removesuffix(b"\r")
        line = self._masked(line) if who == "C" else self._heard(line)
        more = f" ... ({dropped} octets more)" if dropped else ""
        self._show(who, harmless(line.decode("utf-8", "replace")) + more)

    def _masked(self, line: bytes) -> bytes:
        """A line of ours without what is secret in it."""
        if self._in_auth:
            self._keep(line)
            return _MASK
        found = _BEHIND.fullmatch(line)
        if line.lstrip()[:4].upper() == b"AUTH":
            self._in_auth = True
        if found is None:
            return line
        self._keep(found[2])
        return found[1] + (b" " + _MASK if found[2] else b"")

    def _keep(self, secret: bytes) -> None:
        if secret not in (b"", b"*", b"="):
            self._secrets = [*self._secrets[-7:], secret]

    def _heard(self, line: bytes) -> bytes:
        if line.startswith((b"+OK", b"-ERR")):
            self._in_auth = False
        for secret in self._secrets:
            line = line.replace(secret, _MASK)
        return line
