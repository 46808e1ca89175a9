"""SASLprep (RFC 4013): names and passwords that look the same are the same."""

from __future__ import annotations

import stringprep
import unicodedata
from typing import Final

from pop3core.sasl.base import SaslError

__all__ = ["acting_as", "prepared", "saslprep"]

_PROHIBITED: Final = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)  # RFC 4013 §2.3


def saslprep(text: str) -> str:
    """Text in the form in which it is compared. Raises `SaslError` for what is prohibited."""
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )  # RFC 4013 §2.1
    result = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)  # RFC 4013 §2.2
    if any(prohibited(character) for character in result for prohibited in _PROHIBITED):
        raise SaslError("a name or password has a prohibited character")
    right_to_left = [stringprep.in_table_d1(character) for character in result]
    if any(right_to_left) and (
        any(stringprep.in_table_d2(character) for character in result) or not (right_to_left[0] and right_to_left[-1])
    ):  # RFC 3454 §6
        raise SaslError("a name or password mixes directions")
    return result


def prepared(password: bytes) -> bytes:
    """A password's octets in the form in which proofs are made of it (RFC 6856 §2.2 for APOP).

    Octets that are no text are taken as they are. Raises `SaslError` for what is prohibited.
    """
    try:
        return saslprep(password.decode("utf-8")).encode()
    except UnicodeDecodeError:
        return password


def acting_as(authzid: str) -> str:
    """The identity to act as, prepared (RFC 5034 §4); empty for the user's own. Raises `SaslError`.

    A mechanism calls it before it looks at a proof, or a refusal would tell that the proof was good.
    """
    result = saslprep(authzid)
    if authzid and not result:
        raise SaslError("an identity is not empty")  # it would mean the user's own
    return result
