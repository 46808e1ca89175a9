"""What goes over a connection, line for line, without its secrets.

What of a line of ours may be shown `pop3core.secrecy` says, by the engine's table; from an AUTH until its end nothing
is shown that is no question of a mechanism. What was masked is masked again wherever the server repeats it. Lines are
cut, and one that never ends costs no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pop3cli.sanitize import MASK, Echo, sanitized
from pop3core.grammar import Reader
from pop3core.sasl import MECHANISMS
from pop3core.secrecy import masked

__all__ = ["Trace"]

_LINE_MAX: Final = 1024  # octets of a line that are shown


class Trace:
    """One connection's. ``show(who, line)``: who is "C", "S" or "-"; the line is harmless."""

    def __init__(self, show: Callable[[str, str], None]) -> None:
        self._show = show
        self._begun = {"C": b"", "S": b""}
        self._dropped = {"C": 0, "S": 0}
        self._mechanism: str | None = None  # of the exchange under way
        self._echo = Echo()

    def sent(self, data: bytes) -> None:
        """Octets that were sent."""
        self._lines("C", data)

    def received(self, data: bytes) -> None:
        """Octets that came."""
        self._lines("S", data)

    def note(self, text: str) -> None:
        """What happened beside that."""
        self._show("-", sanitized(text))

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
        self._show(who, sanitized(line.decode("utf-8", "replace")) + more)

    def _masked(self, line: bytes) -> bytes:
        """A line of ours without what is secret in it."""
        if self._mechanism is not None:
            return self._mask(line, None)
        words = line.upper().split(maxsplit=2)
        if words[:1] == [b"AUTH"]:
            self._mechanism = words[1].decode("latin-1") if len(words) > 1 else ""
        return masked(line, self._mask) if line else line

    def _mask(self, secret: bytes, _reader: Reader | None) -> bytes:
        self._echo.remember(secret)
        return MASK

    def _heard(self, line: bytes) -> bytes:
        if line.startswith((b"+OK", b"-ERR")):
            self._mechanism = None
        elif self._mechanism is not None and line.startswith(b"+ ") and not self._is_question():
            return b"+ " + MASK  # from what a server says in SCRAM the password can be guessed
        return self._echo.masked(line)

    def _is_question(self) -> bool:
        mechanism = MECHANISMS.get(self._mechanism or "")
        return mechanism is not None and mechanism.plaintext
