"""Readers of one argument each.

A `Reader` knows what an argument is called in a usage line, how to read it from octets, and how to write it. Readers
are strict (RFC 1939 §3: arguments are printable ASCII, separated by one space): digits are ASCII digits, and no octet
below 0x20 or of value 0x7F is ever accepted. What may follow what is the command table's business.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

__all__ = [
    "BadArgument",
    "Reader",
    "count",
    "decode_base64",
    "digest",
    "initial_response",
    "language_tag",
    "mechanism",
    "number",
    "optional",
    "password",
    "word",
]


class BadArgument(ValueError):
    """An argument is not what its reader takes; the text says what is wanted, and never repeats what was sent."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How one argument is read and written."""

    name: str
    """What usage lines call it."""

    read: Callable[[bytes], Any]
    """Octets to value; raises `BadArgument`."""

    write: Callable[[Any], bytes]
    """Value to octets; raises `BadArgument`."""

    optional: bool = False
    """The command is also valid without it."""

    @property
    def usage(self) -> str:
        """The name as a usage line shows it: ``msg``, or ``[msg]`` when optional."""
        return f"[{self.name}]" if self.optional else self.name


def optional(reader: Reader) -> Reader:
    """The same argument, but the command is valid without it."""
    return replace(reader, optional=True)


_NUMBER_DIGITS_MAX = 10  # 9,999,999,999 messages; keeps int() cheap whatever is sent


def _read_digits(octets: bytes) -> int:
    # bytes.isdigit() accepts ASCII digits only: neither sign, blank, underscore nor another script's digits
    if not octets.isdigit() or len(octets) > _NUMBER_DIGITS_MAX:
        raise BadArgument("a number has 1 to 10 ASCII digits")
    return int(octets)


def _read_number(octets: bytes) -> int:
    if (value := _read_digits(octets)) == 0:
        raise BadArgument("message numbers begin with 1")  # RFC 1939 §5: message-numbers begin with 1
    return value


def _write_number(value: int) -> bytes:
    if value < 1:
        raise BadArgument("message numbers begin with 1")
    return _write_count(value)


def _write_count(value: int) -> bytes:
    if value < 0 or value >= 10**_NUMBER_DIGITS_MAX:
        raise BadArgument("a number has 1 to 10 digits")
    return b"%d" % value


def is_printable(octets: bytes) -> bool:
    """True when no control octet (below 0x20, or 0x7F) is in it; octets above 0x7F pass."""
    return not octets.translate(None, _NOT_CONTROL)


_NOT_CONTROL: Final = bytes(octet for octet in range(256) if octet >= 0x20 and octet != 0x7F)


def _read_word(octets: bytes) -> str:
    if not octets or b" " in octets or not is_printable(octets):
        raise BadArgument("an argument is one word without blanks or control characters")
    try:
        text = octets.decode("utf-8")  # RFC 6856 §2.2: user names may be UTF-8
    except UnicodeDecodeError:
        raise BadArgument("an argument is ASCII or valid UTF-8") from None
    if not text.isprintable():
        raise BadArgument("an argument is one word without blanks or control characters")
    return text


def _write_word(text: str) -> bytes:
    try:
        octets = text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadArgument("an argument is valid Unicode") from None
    _read_word(octets)
    return octets


def _read_password(octets: bytes) -> bytes:
    if not octets:
        raise BadArgument("the password is missing")
    if not is_printable(octets):
        raise BadArgument("a password has no control characters")
    return octets


_MECHANISM = re.compile(rb"[A-Z0-9_-]{1,20}")  # RFC 4422 §3.1 sasl-mech
_DIGEST = re.compile(rb"[0-9a-f]{32}")  # RFC 1939 §7 APOP: MD5 in lower-case hexadecimal
_TAG = re.compile(rb"\*|[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8}){0,8}")  # RFC 5646 §2.1, in outline


def _read_mechanism(octets: bytes) -> str:
    # RFC 5034 §5: mechanism names are case-insensitive here
    name = octets.upper()
    if not _MECHANISM.fullmatch(name):
        raise BadArgument("a mechanism is 1 to 20 letters, digits, hyphens and underscores")
    return name.decode()


def _write_mechanism(name: str) -> bytes:
    return _read_mechanism(name.encode("ascii", "replace")).encode()


def decode_base64(octets: bytes) -> bytes:
    """Octets from base64, strictly (RFC 4648 §4; RFC 5034 §4). Raises `BadArgument`."""
    try:
        return binascii.a2b_base64(octets, strict_mode=True)
    except binascii.Error:
        raise BadArgument("an answer is base64") from None


def _read_initial(octets: bytes) -> bytes:
    if not octets:
        raise BadArgument("an empty initial response is written =")
    return b"" if octets == b"=" else decode_base64(octets)  # RFC 5034 §4: "=" is an empty initial response


def _write_initial(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False) or b"="


def _read_digest(octets: bytes) -> str:
    if not _DIGEST.fullmatch(octets):
        raise BadArgument("a digest is 32 lower-case hexadecimal digits")
    return octets.decode()


def _read_tag(octets: bytes) -> str:
    if not _TAG.fullmatch(octets):
        raise BadArgument("a language tag is like de or pt-BR")
    return octets.decode()


mechanism: Final = Reader("mechanism", _read_mechanism, _write_mechanism)
"""A SASL mechanism's name, in capitals."""

initial_response: Final = Reader("initial-response", _read_initial, _write_initial)
"""Octets as base64; ``=`` for none (RFC 5034 §4)."""

digest: Final = Reader("digest", _read_digest, lambda text: _read_digest(text.encode("ascii", "replace")).encode())
"""The digest of APOP: 32 hexadecimal digits."""

language_tag: Final = Reader("language", _read_tag, lambda text: _read_tag(text.encode("ascii", "replace")).encode())
"""A language tag, or ``*`` for the default."""

number: Final = Reader("msg", _read_number, _write_number)
"""A message number, 1 to n."""

count: Final = Reader("n", _read_digits, _write_count)
"""A number of lines, 0 or more."""

word: Final = Reader("name", _read_word, _write_word)
"""One word: a user's name. ASCII or UTF-8, no blank."""

password: Final = Reader("string", _read_password, _read_password)
"""The rest of the line, octets as they are (RFC 1939 §7 PASS: spaces are part of it)."""
