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
_SUSPECT: Final = re.compile(r"[^\x20-\x7e]")


def harmless(text: str) -> str:
    """``text`` as one line that does nothing to a terminal but show itself.

    Control characters become their pictures (``␛``), line ends among them; what turns the direction of writing or
    cannot be seen is dropped; what is no character becomes U+FFFD.
    """
    return _SUSPECT.sub(_shown, text)


def harmless_lines(text: str) -> str:
    """The same for text of many lines: line ends and tabs stay; CRLF and a lone CR become LF."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    return "\n".join(harmless(line.expandtabs(8)) for line in text.split("\n"))


def _shown(found: re.Match[str]) -> str:
    character = found[0]
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
