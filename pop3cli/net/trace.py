"""What goes over a connection, line for line, without its secrets.

What of a line of ours may be shown `pop3core.secrecy` says, by the engine's table; from an AUTH until its end nothing
is shown that is no question of a mechanism. What was masked is masked again wherever the server repeats it. Lines are
cut, and one that never ends costs no memory.
"""

from __future__ import annotations

import binascii
import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Final

from pop3cli.sanitize import harmless
from pop3core.grammar import Reader
from pop3core.sasl import MECHANISMS
from pop3core.secrecy import is_harmless, masked

__all__ = ["Echo", "Trace", "is_secret"]

_LINE_MAX: Final = 1024  # octets of a line that are shown
_MASK: Final = b"***"
_REMEMBERED: Final = 16  # secrets that are looked for in what the server says
_WORD_MIN: Final = 4  # octets: shorter parts of a secret stand in every text
_EVERYDAY_MAX: Final = 8  # letters: to mask a shorter word in the server's own text would tell the password
_KEPT_MAX: Final = 1024  # octets of a secret that are remembered
_OURS: Final = frozenset(("explain", "help"))  # words of the shell that no server hears


def is_secret(line: str) -> bool:
    """Whether a line that was typed in the shell may hold a password, or what proves to know it."""
    word, _, rest = line.strip().partition(" ")
    match word.lower():
        case "raw":
            return is_secret(rest)
        case "open":
            return re.search(r":[^/@]*@", rest) is not None  # a password in a URL, which is refused
        case known if known in _OURS:
            return False
        case _:
            return not is_harmless(line.strip().encode("utf-8", "surrogatepass"))


class Echo:
    """Secrets that were said on a connection, to be masked where the server repeats them.

    ``everyday``: also those that are a word of a few letters, such as "wrong", which servers say by themselves.
    """

    def __init__(self, *, everyday: bool = True) -> None:
        self._everyday = everyday
        self._secrets: list[bytes] = []

    def remember(self, secret: bytes) -> None:
        """A secret, whole, in its words, and decoded where it is base64."""
        for part in dict.fromkeys(_parts(secret[:_KEPT_MAX])):
            if not self._everyday and part.isalpha() and len(part) < _EVERYDAY_MAX:
                continue
            if part in self._secrets:
                self._secrets.remove(part)
            self._secrets = [*self._secrets[1 - _REMEMBERED :], part]

    def masked(self, text: bytes) -> bytes:
        """``text`` without them, and without what begins like them: the server may have cut them."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = _without(text, secret)
        return text


def _parts(secret: bytes) -> Iterator[bytes]:
    if secret not in (b"", b"*", b"="):
        yield secret
    words = re.split(rb"[\s\0\x01]+", secret)
    with contextlib.suppress(binascii.Error):
        words += re.split(rb"[\s\0\x01]+", binascii.a2b_base64(words[-1], strict_mode=True))
    yield from (word for word in words if len(word) >= _WORD_MIN)


def _without(text: bytes, secret: bytes) -> bytes:
    """``text`` with each occurrence masked, and one that is cut off behind 16 octets or more."""
    begun, shown, at = secret[:16], b"", 0
    while (found := text.find(begun, at)) >= 0:
        length = len(begun)
        while length < len(secret) and text[found + length : found + length + 1] == secret[length : length + 1]:
            length += 1
        shown += text[at:found] + _MASK
        at = found + length
    return shown + text[at:]


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
        if self._mechanism is not None:
            return self._mask(line, None)
        words = line.upper().split(maxsplit=2)
        if words[:1] == [b"AUTH"]:
            self._mechanism = words[1].decode("latin-1") if len(words) > 1 else ""
        return masked(line, self._mask) if line else line

    def _mask(self, secret: bytes, _reader: Reader | None) -> bytes:
        self._echo.remember(secret)
        return _MASK

    def _heard(self, line: bytes) -> bytes:
        if line.startswith((b"+OK", b"-ERR")):
            self._mechanism = None
        elif self._mechanism is not None and line.startswith(b"+ ") and not self._is_question():
            return b"+ " + _MASK  # from what a server says in SCRAM the password can be guessed
        return self._echo.masked(line)

    def _is_question(self) -> bool:
        mechanism = MECHANISMS.get(self._mechanism or "")
        return mechanism is not None and mechanism.plaintext
