"""SASLprep (RFC 4013): names and passwords that look the same are the same."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from pop3core.sasl.base import SaslError

__all__ = ["OCTETS_MAX", "acting_as", "prepared", "saslprep"]

OCTETS_MAX: Final = 1024
"""Octets of UTF-8 that are prepared: what is longer is neither a name nor a password. Some characters become 18, and
marks are sorted, so without a bound one line of 12 KiB takes a hundred times as long as this."""

# RFC 4013 §2.1. A dash of RFC 3454's tables stands for all between, both ends included.
_MAPPED_TO_NOTHING: Final = "00AD 034F 1806 180B-180D 200B-200D 2060 FE00-FE0F FEFF"  # B.1
_MAPPED_TO_SPACE: Final = "00A0 1680 2000-200A 202F 205F 3000"  # C.1.2, but for U+200B, which is mapped to nothing

_PROHIBITED: Final = (
    "00A0 1680 2000-200B 202F 205F 3000",  # C.1.2 spaces that are not ASCII
    "0000-001F 007F",  # C.2.1 control characters of ASCII
    "0080-009F 06DD 070F 180E 200C-200D 2028-2029 2060-2063 206A-206F FEFF FFF9-FFFC 1D173-1D17A",  # C.2.2 others
    "E000-F8FF F0000-FFFFD 100000-10FFFD",  # C.3 private use
    "FDD0-FDEF " + " ".join(f"{plane:X}FFFE-{plane:X}FFFF" for plane in range(17)),  # C.4 not characters
    "D800-DFFF",  # C.5 surrogates
    "FFF9-FFFD",  # C.6 not for plain text
    "2FF0-2FFB",  # C.7 not for canonical representation
    "0340-0341 200E-200F 202A-202E 206A-206F",  # C.8 change the display, or deprecated
    "E0001 E0020-E007F",  # C.9 tags
)
"""RFC 4013 §2.3, by the tables of RFC 3454."""

_RIGHT_TO_LEFT: Final = frozenset(("R", "AL"))  # RFC 3454 D.1, as Unicode calls them
_LEFT_TO_RIGHT: Final = "L"  # D.2
_direction: Final = unicodedata.ucd_3_2_0.bidirectional


def _ranges(table: str) -> list[tuple[int, int]]:
    found = (entry.partition("-") for entry in table.split())
    return [(int(first, 16), int(last or first, 16)) for first, _, last in found]


_MAPPING: Final = {
    code: to
    for table, to in ((_MAPPED_TO_NOTHING, ""), (_MAPPED_TO_SPACE, " "))
    for first, last in _ranges(table)
    for code in range(first, last + 1)
}
_IS_PROHIBITED: Final = re.compile(
    "|".join(f"[\\U{first:08x}-\\U{last:08x}]" for table in _PROHIBITED for first, last in _ranges(table))
)


def saslprep(text: str) -> str:
    """Text in the form in which it is compared.

    Raises `SaslError` for what is prohibited, and for more than `OCTETS_MAX`. Takes time in proportion to the length.
    """
    if text.isascii() and text.isprintable():
        return text  # nearly all
    if len(text.encode("utf-8", "surrogatepass")) > OCTETS_MAX:
        raise SaslError("a name or password is too long")
    mapped = text.translate(_MAPPING)  # RFC 4013 §2.1
    result = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)  # RFC 4013 §2.2
    characters = set(result)  # few, also where they are many in the text
    if _IS_PROHIBITED.search("".join(characters)):
        raise SaslError("a name or password has a prohibited character")
    directions = set(map(_direction, characters))
    if directions & _RIGHT_TO_LEFT:  # RFC 3454 §6
        ends = {_direction(result[0]), _direction(result[-1])}
        if _LEFT_TO_RIGHT in directions or not ends <= _RIGHT_TO_LEFT:
            raise SaslError("a name or password mixes directions")
    return result


def prepared(password: bytes) -> bytes:
    """A password's octets in the form in which proofs are made of it (RFC 6856 §2.2 for APOP).

    Octets that are no text are taken as they are. Raises `SaslError` for what is prohibited, and for a password of
    which nothing is left: a proof would be made of the empty one, which anybody can guess.
    """
    try:
        result = saslprep(password.decode("utf-8")).encode()
    except UnicodeDecodeError:
        return password
    if password and not result:
        raise SaslError("a password has only characters that SASLprep removes")
    return result


def acting_as(authzid: str) -> str:
    """The identity to act as, prepared (RFC 5034 §4); empty for the user's own. Raises `SaslError`.

    A mechanism calls it before it looks at a proof, or a refusal would tell that the proof was good.
    """
    result = saslprep(authzid)
    if authzid and not result:
        raise SaslError("an identity is not empty")  # it would mean the user's own
    return result
