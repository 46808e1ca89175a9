"""Internationalized messages for clients that did not say UTF8: their surrogates (RFC 6856 §2.1, §4, RFC 6858).

A message may have UTF-8 in its header fields (RFC 6532). A client that never said UTF8 may choke on that, so a server
can send it a *surrogate*: the same message, with header fields of ASCII only. `Downgrader` makes it, piece by piece,
with the same two methods as `pop3core.framing.CrlfNormalizer`; a store reads and counts with the one or the other, so
the size announced is the size sent.

What RFC 6858 §2 lets be lost is lost, and nothing else:

- an address that is not ASCII becomes ``=?utf-8?...?= <invalid@internationalized-address.invalid>``, whose display name
  shows it; any other address stays, its display name becomes encoded words (RFC 2047);
- Subject and other unstructured fields become encoded words;
- parameters of Content-Type and Content-Disposition are encoded by RFC 2231, so attachments keep their names;
- any other field that is not ASCII is left out.

All that holds for the header fields of body parts too, which are found by their boundaries. Bodies are not changed.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import Final

from pop3core.framing import CrlfNormalizer

__all__ = ["Downgrader"]

_FIELD_OCTETS_MAX: Final = 64 * 1024
"""Octets of a field that are held to be converted; bounds memory. In a longer one, what is not ASCII becomes ``?``."""

_BOUNDARIES_MAX: Final = 100  # multiparts in one message; bounds memory
_BOUNDARY_LINE_MAX: Final = 200  # "--", 70 characters (RFC 2046 §5.1.1), "--", and some blanks
_PARAMETER_MAX: Final = 900  # octets once encoded: a line has 998 (RFC 5322 §2.1.1); a longer one is left out
_WORD_OCTETS: Final = 45  # of text in an encoded word, which then has 72 characters of 75 (RFC 2047 §2)

_INVALID: Final = "<invalid@internationalized-address.invalid>"  # RFC 6858 §2.1
_PLAIN: Final = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.-_")  # not to be %-encoded
_TO_ASCII: Final = bytes(octet if octet < 0x80 else ord("?") for octet in range(256))

_PEOPLE: Final = ("from", "sender", "reply-to", "to", "cc", "bcc")
_ADDRESSES: Final = frozenset((*_PEOPLE, *(f"resent-{name}" for name in _PEOPLE), "return-path"))  # RFC 6858 §2.1
_PARAMETERS: Final = frozenset(("content-type", "content-disposition"))  # RFC 6858 §2.2
_UNSTRUCTURED: Final = frozenset(("subject", "comments", "content-description", "thread-topic"))  # RFC 6858 §2.3

_FIELD_END = re.compile(rb"\n(?![ \t])(?=.)", re.DOTALL)
_NAME = re.compile(r"([\x21-\x39\x3b-\x7e]+)[ \t]*:")
_QUOTED = r'"(?:\\.|[^"\\])*"?'
_ADDRESS = re.compile(rf"(?:{_QUOTED}|<[^>]*>?|[^,\"<])+", re.DOTALL)
_PARAMETER = re.compile(rf"(?:{_QUOTED}|[^;\"])+", re.DOTALL)
_ANGLE_ADDRESS = re.compile(r"([^<]*)<([^<>]*)>\s*")
_BOUNDARY = re.compile(rb'(?i)boundary[ \t]*=[ \t]*(?:"((?:\\.|[^"\\])*)"|([^\s;"]+))')
_EMBEDDED = re.compile(rb"(?i)message/(?:rfc822|global)\s*(?:;|$)")


class Downgrader:
    """Turns stored text into its surrogate, as it is sent: CRLF line ends, the last one included.

    Feed the pieces in order, then call `finish`; how the text was cut never shows. Memory: one field, 64 KiB.
    """

    __slots__ = ("_boundaries", "_in_header", "_text", "_too_long", "_type", "_waiting")

    def __init__(self) -> None:
        self._text = CrlfNormalizer()
        self._in_header = True
        self._waiting = b""  # a field, or a line that may be a boundary, that has not ended
        self._too_long = False  # of the field under way something was sent already
        self._type = b""  # the Content-Type of the header under way
        self._boundaries: set[bytes] = set()

    def feed(self, data: bytes) -> bytes:
        """The next piece of stored text, as it is sent."""
        data = self._text.feed(data)
        if not (self._in_header or self._boundaries):
            return data  # the body of a message of one part
        return b"".join(self._pieces(data))

    def finish(self) -> bytes:
        """What the end of the text adds: what was held back."""
        ended = b"".join(self._pieces(self._text.finish()))
        rest, self._waiting = self._waiting, b""
        return ended + (self._field(rest) if self._in_header and rest != b"\r\n" else rest)

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        data, self._waiting = self._waiting + data, b""
        position = 0
        while position < len(data):
            start, (piece, position) = position, (self._header if self._in_header else self._body)(data, position)
            yield piece
            if position == start:
                self._waiting = data[position:]
                return

    # --- headers ---

    def _header(self, data: bytes, start: int) -> tuple[bytes, int]:
        """What is sent for the next field or the empty line, and where it ends: at ``start`` when it has not ended."""
        if data.startswith(b"\r\n", start) and not self._too_long:
            return self._header_end(data, start)
        found = _FIELD_END.search(data, start)
        if found is not None:
            field = self._field(data[start : found.end()])
            self._too_long = False
            return field, found.end()
        if len(data) - start > _FIELD_OCTETS_MAX:
            self._too_long = True
            stop = len(data) - 2  # a line end may be complete, and what comes next another field
            return data[start:stop].translate(_TO_ASCII), stop
        return b"", start

    def _header_end(self, data: bytes, start: int) -> tuple[bytes, int]:
        if _EMBEDDED.match(self._type):
            self._type = b""
            return b"\r\n", start + 2  # a message in a message: its header follows
        boundary = _BOUNDARY.search(self._type) if self._type[:10].lower() == b"multipart/" else None
        if boundary is not None and len(self._boundaries) < _BOUNDARIES_MAX:
            self._boundaries.add(re.sub(rb"\\(.)", rb"\1", boundary[1] or boundary[2] or b"").rstrip())
        self._type, self._in_header = b"", False
        return b"\r", start + 1  # the LF may stand before a boundary

    def _field(self, field: bytes) -> bytes:
        """A field with its line ends, as it is sent; empty when it is left out."""
        if self._too_long or len(field) > _FIELD_OCTETS_MAX:
            return field.translate(_TO_ASCII)
        if field[:13].lower() == b"content-type:":
            self._type = field[13:].replace(b"\r\n", b"").strip()
        return field if field.isascii() else _converted(field).encode("ascii")

    # --- bodies ---

    def _body(self, data: bytes, start: int) -> tuple[bytes, int]:
        """What is sent up to the next line that may be a boundary, and where that begins."""
        if not self._boundaries:
            return data[start:], len(data)
        found = data.find(b"\n--", start)
        if found < 0:
            kept = 2 if data.endswith(b"\n-") else 1 if data.endswith(b"\n") else 0
            stop = max(start, len(data) - kept)
            return data[start:stop], stop
        if found > start:
            return data[start:found], found
        end = data.find(b"\n", found + 1)
        if end < 0 and len(data) - found <= _BOUNDARY_LINE_MAX:
            return b"", start
        if 0 <= end <= found + _BOUNDARY_LINE_MAX and data[found + 3 : end].rstrip() in self._boundaries:
            self._in_header = True
            return data[found : end + 1], end + 1
        return data[found : found + 3], found + 3


def _converted(field: bytes) -> str:
    """A field that is not ASCII, as the surrogate has it."""
    try:
        text = field.decode("utf-8")
    except UnicodeDecodeError:
        text = field.decode("latin-1")  # not of RFC 6532 at all: what most such messages meant
    name = _NAME.match(text)
    if name is None:
        return ""
    value = text[name.end() :].replace("\r\n", "").strip()
    kind = name[1].lower()
    if kind == "return-path":  # RFC 5321 §4.4: has no display name that could tell
        converted = _INVALID
    elif kind in _ADDRESSES:
        converted = _addresses(value)
    elif kind in _UNSTRUCTURED:
        converted = _encoded(value)
    else:
        converted = _parameters(value) if kind in _PARAMETERS else ""
    return f"{name[1]}: {converted}\r\n" if converted else ""


def _addresses(value: str) -> str:
    if value.endswith(";"):  # a group: rare enough to be shown, and no more
        return _address(value)
    return ",\r\n ".join(_address(address.strip()) for address in _ADDRESS.findall(value) if address.strip())


def _address(address: str) -> str:
    if address.isascii():
        return address
    parts = _ANGLE_ADDRESS.fullmatch(address)
    if parts is not None and parts[2].isascii():
        return f"{_encoded(_unquoted(parts[1]))} <{parts[2]}>"
    return f"{_encoded(address)} {_INVALID}"


def _parameters(value: str) -> str:
    first, *parameters = _PARAMETER.findall(value)
    if not first.isascii():
        return ""
    return ";\r\n ".join([first.strip(), *filter(None, map(_parameter, parameters))])


def _parameter(parameter: str) -> str:
    parameter = parameter.strip()
    if parameter.isascii():
        return parameter
    name, _, value = parameter.partition("=")
    name = name.strip()
    if not name.isascii() or not name.isprintable() or "*" in name or " " in name:
        return ""
    octets = _unquoted(value).encode("utf-8")
    encoded = f"{name}*=utf-8''" + "".join(chr(one) if one in _PLAIN else f"%{one:02X}" for one in octets)
    return encoded if len(encoded) <= _PARAMETER_MAX else ""


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def _encoded(text: str) -> str:
    """Encoded words (RFC 2047 §2), one to a line; no character is cut in two (§5)."""
    words, octets = [], b""
    for character in text:
        more = character.encode("utf-8")
        if len(octets) + len(more) > _WORD_OCTETS:
            words.append(octets)
            octets = b""
        octets += more
    words.append(octets)
    return "\r\n ".join(f"=?utf-8?b?{binascii.b2a_base64(word, newline=False).decode()}?=" for word in words)
