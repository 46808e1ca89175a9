"""Foreign text stays text.

What a server or a message says may hold escape sequences that move the cursor, set the title or answer on the
keyboard's behalf, marks that turn the direction of writing so that a line reads other than it is, and characters that
cannot be seen at all. `harmless` makes the first visible and takes the others out. It is the only way by which foreign
text gets to a terminal or into an error.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["harmless", "harmless_lines"]

_JOINERS: Final = "\u200c\u200d"  # invisible, but scripts and emoji are written with them
_REMEMBERED: Final = 20_000  # characters: more than any language writes, and some megabytes
_SUSPECT: Final = re.compile(r"[^\x20-\x7e]")


class _Shown(dict[int, str | None]):
    """What is shown of each character, found out when it comes for the first time."""

    def __missing__(self, number: int) -> str | None:
        shown = _shown(chr(number))
        if len(self) < _REMEMBERED:
            self[number] = shown
        return shown


def harmless(text: str) -> str:
    """``text`` as one line that does nothing to a terminal but show itself.

    Control characters become their pictures (``␛``), line ends among them; what turns the direction of writing or
    cannot be seen is dropped; what is no character becomes U+FFFD.
    """
    return text.translate(_ONE_LINE) if _SUSPECT.search(text) else text


def harmless_lines(text: str) -> str:
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
