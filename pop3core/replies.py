"""Status lines: +OK, -ERR, and response codes (RFC 1939 §3, RFC 2449 §4 and §8, RFC 3206).

A reply's text is ours and never holds what a client sent. What a server said is data: `decode` splits it and changes
nothing.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from pop3core.limits import REPLY_OCTETS_MAX

__all__ = ["CODES", "Code", "Status", "decode", "encode_challenge", "encode_err", "encode_ok"]

Code: TypeAlias = str
"""A response code without its brackets, such as ``"IN-USE"`` or ``"SYS/TEMP"``."""

CODES: Final = {
    "LOGIN-DELAY": "RFC 2449 §8.1.1",
    "IN-USE": "RFC 2449 §8.1.2",
    "SYS/TEMP": "RFC 3206 §4",
    "SYS/PERM": "RFC 3206 §4",
    "AUTH": "RFC 3206 §5",
    "UTF8": "RFC 6856 §5",
}
"""The response codes this engine sends, and where they are defined (RFC 2449 §9: in public)."""

# RFC 2449 §3 resp-code: levels between slashes, of octets 0x21 to 0x7E without "/", "\" and "]"
_CODE = re.compile(r"\[([!-.0-[^-~]+(?:/[!-.0-[^-~]+)*)\](?: |$)")


@dataclass(frozen=True, slots=True)
class Status:
    """One status line: ``ok``; ``code``, capitals without brackets, or None; ``text``, the rest as it was said."""

    ok: bool
    code: Code | None
    text: str


_OCTETS_MAX: Final = REPLY_OCTETS_MAX - 2  # without CRLF


def encode_ok(text: str) -> bytes:
    """A positive status line, CRLF included; made fit for one (see `encode_err`)."""
    return _line(f"+OK {_no_code(text)}") if text else b"+OK\r\n"


def encode_err(text: str, code: Code | None = None) -> bytes:
    """A negative status line, CRLF included.

    Control characters become "?", so that no text can make a second line; what is longer than a reply is cut.
    """
    return _line(f"-ERR [{code}] {text}" if code else f"-ERR {_no_code(text)}")


def encode_challenge(data: bytes) -> bytes:
    """A SASL challenge (RFC 5034 §4): "+ ", base64, CRLF."""
    return b"+ %b\r\n" % binascii.b2a_base64(data, newline=False)


def _no_code(text: str) -> str:
    # RFC 2449 §6.4 RESP-CODES: a text that begins with "[" would be taken for a response code
    return f"({text[1:]}".replace("]", ")", 1) if text.startswith("[") else text


def _line(text: str) -> bytes:
    if not text.isprintable():
        text = "".join(character if character.isprintable() else "?" for character in text)
    octets = text.encode()  # RFC 6856 §3.2: UTF-8; plain ASCII until LANG asks for more
    if len(octets) > _OCTETS_MAX:
        octets = octets[:_OCTETS_MAX].decode("utf-8", "ignore").encode()
    return octets + b"\r\n"


def decode(line: bytes) -> Status | None:
    """Reads a status line, its end taken off; None when it is none.

    Octets that are not UTF-8 become U+FFFD (RFC 1939 replies are ASCII, RFC 6856's are UTF-8).
    """
    indicator, _, rest = line.partition(b" ")
    if indicator.upper() not in (b"+OK", b"-ERR"):
        return None
    text = rest.decode("utf-8", "replace")
    code = _CODE.match(text)
    if code is None:
        return Status(indicator[:1] == b"+", None, text)
    return Status(indicator[:1] == b"+", code[1].upper(), text[code.end() :])
