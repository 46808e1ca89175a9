"""Foreign text stays text.

What a server or a message says may hold escape sequences that move the cursor, set the title or answer on the
keyboard's behalf, marks that turn the direction of writing so that a line reads other than it is, and characters that
cannot be seen at all. `sanitized` makes the first visible and takes the others out. It is the only way by which foreign
text gets to a terminal or into an error.

Secrets stay ours: `Echo` masks those that were said on a connection where the server repeats them.
"""

from __future__ import annotations

import binascii
import contextlib
import re
import unicodedata
from collections.abc import Iterator
from typing import Final

__all__ = ["MASK", "Echo", "sanitized", "sanitized_lines"]

MASK: Final = b"***"
"""Stands for a secret."""

_JOINERS: Final = "\u200c\u200d"  # invisible, but scripts and emoji are written with them
_CHARACTERS_MAX: Final = 20_000  # characters: more than any language writes, and some megabytes
_SUSPECT: Final = re.compile(r"[^\x20-\x7e]")
_REMEMBERED: Final = 16  # secrets that are looked for in what the server says
_WORD_MIN: Final = 4  # octets: shorter parts of a secret stand in every text
_EVERYDAY_MAX: Final = 8  # letters: to mask a shorter word in the server's own text would tell the password
_KEPT_MAX: Final = 1024  # octets of a secret that are remembered


class _Shown(dict[int, str | None]):
    """What is shown of each character, found out when it comes for the first time."""

    def __missing__(self, number: int) -> str | None:
        shown = _shown(chr(number))
        if len(self) < _CHARACTERS_MAX:
            self[number] = shown
        return shown


def sanitized(text: str) -> str:
    """``text`` as one line that does nothing to a terminal but show itself.

    Control characters become their pictures (``␛``), line ends among them; what turns the direction of writing or
    cannot be seen is dropped; what is no character becomes U+FFFD.
    """
    return text.translate(_ONE_LINE) if _SUSPECT.search(text) else text


def sanitized_lines(text: str) -> str:
    """The same for text of many lines: line ends and tabs stay; CRLF and a lone CR become LF."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    return (text.expandtabs(8) if "\t" in text else text).translate(_LINES)


def _shown(character: str) -> str:
    match unicodedata.category(character):
        case "Cc":
            octet = ord(character)
            return chr(0x2400 + octet) if octet < 0x20 else "\u2421" if octet == 0x7F else "\ufffd"
        case "Cf":
            return character if character in _JOINERS else ""
        case "Zl" | "Zp":
            return " "
        case "Cs":
            return "\ufffd"
        case _:
            return character


_ONE_LINE: Final = _Shown()
_LINES: Final = _Shown({ord("\n"): "\n"})


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
        shown += text[at:found] + MASK
        at = found + length
    return shown + text[at:]
