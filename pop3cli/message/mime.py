"""A message taken apart: header fields, parts, parameters, encoded words. In one pass, whatever the message is.

The standard library's parser compares each line with every boundary around it, and goes one call deeper for each part
within a part; its parser of header values takes minutes for some hundred kilobytes of semicolons. Mail is written by
strangers, so here each octet is looked at a fixed number of times, nothing is recursive, and all that is counted has a
limit. What is broken is read as most programs read it, and nothing raises.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

__all__ = ["Part", "Parts", "decoded", "fields", "parameters", "text_of"]

_HEADER_MAX: Final = 1024 * 1024  # octets of one header that are read; no real message comes near
_FIELDS_MAX: Final = 20_000  # of a message and its parts together: each costs some hundred octets
_PARTS_MAX: Final = 5_000  # of a message; thousands are a digest's, and each is a line on the screen
_DEPTH_MAX: Final = 50  # parts within parts; mail that was forwarded many times has ten
_DASHES_MAX: Final = 500_000  # lines that begin with "--" and may be a boundary, a fifth of a second
_FIELD_MAX: Final = 16 * 1024  # octets of a field whose parameters are read: the longest names have hundreds
_UU_LINES_MAX: Final = 300_000  # of a uuencoded file: 13 MB, of which base64 makes the 16 MiB that are shown
_SEGMENTS_MAX: Final = 200  # of a parameter in several pieces (RFC 2231 §3)
_VALUE_MAX: Final = 4096  # characters of a field that are decoded and shown
# charsets that Python knows and mail does not: decoding takes quadratic time, or does something else
_NO_CHARSETS: Final = frozenset(("punycode", "idna", "unicode_escape", "raw_unicode_escape", "undefined"))

_NO_BASE64: Final = bytes(
    octet for octet in range(256) if not (chr(octet).isalnum() and octet < 0x80) and octet not in b"+/"
)

_FIELD: Final = re.compile(rb"([\x21-\x39\x3b-\x7e]{1,200})[ \t]{0,10}:(.*)", re.DOTALL)
_PARAMETER: Final = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:\\.|[^"\\])*"?|[^;]*)', re.DOTALL)
_SEGMENT: Final = re.compile(r"([^*]+)(?:\*([0-9]{1,4}))?(\*?)")
_TYPE: Final = re.compile(r"\s*([A-Za-z0-9!#$&^_.+-]{1,127})\s*/\s*([A-Za-z0-9!#$&^_.+-]{1,127})\s*(?:[;(]|$)")
_WORD: Final = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?([^?]*)\?=")
_TOKEN: Final = re.compile(r"\s*([A-Za-z0-9_-]{1,40})")


@dataclass(frozen=True, slots=True)
class Part:
    """A leaf of a message's tree. ``type``: such as ``text/plain``, small letters; ``raw``: its octets, as they are
    transferred.
    """

    type: str
    header: tuple[tuple[str, bytes], ...] = field(repr=False)
    raw: memoryview = field(repr=False)

    def value(self, name: str) -> bytes:
        """The first field of this name; empty for none."""
        return next((value for key, value in self.header if key.lower() == name), b"")

    @property
    def content(self) -> bytes:
        """Its octets, decoded."""
        found = _TOKEN.match(self.value("content-transfer-encoding")[:200].decode("latin-1"))
        match found[1].lower() if found else "":
            case "base64":
                return _from_base64(self.raw)
            case "quoted-printable":
                return binascii.a2b_qp(self.raw)
            case "x-uuencode" | "uuencode" | "uue" | "x-uue":
                return _from_uu(bytes(self.raw))
            case _:
                return bytes(self.raw)

    @property
    def charset(self) -> str:
        """As it is named; empty where it is not."""
        return parameters(self.value("content-type")).get("charset", "")

    @property
    def is_attached(self) -> bool:
        """It is marked as an attachment (RFC 2183 §2.2)."""
        return _disposition(self) == "attachment"

    @property
    def name(self) -> str:
        """The file's name that it wishes for; foreign text, may be empty."""
        for where, which in (("content-disposition", "filename"), ("content-type", "name")):
            if name := parameters(self.value(where)).get(which, ""):
                return decoded(name)
        return ""


@dataclass(frozen=True, slots=True)
class Parts:
    """A message. ``header``: its own fields, names and values as they stand there; ``leaves``: its parts, in order;
    ``whole``: false where a limit kept some of it from being taken apart.
    """

    header: tuple[tuple[str, bytes], ...]
    leaves: tuple[Part, ...]
    whole: bool

    @classmethod
    def of(cls, content: bytes) -> Parts:
        """Take a message apart."""
        return _Splitter(content).split()


def fields(content: bytes) -> tuple[tuple[str, bytes], ...]:
    """The fields of the header that ``content`` begins with."""
    return _fields(content, 0, _FIELDS_MAX)[0]


def _fields(content: bytes, start: int, most: int) -> tuple[tuple[tuple[str, bytes], ...], int]:
    """The fields of the header at ``start``, ``most`` at most, and where its body begins.

    What is no field, and continues none, is the body's first line.
    """
    found: list[tuple[str, list[bytes]]] = []
    at, end = start, min(len(content), start + _HEADER_MAX)
    while at < end:
        stop = content.find(b"\n", at, end)
        stop = end if stop < 0 else stop + 1
        line = content[at:stop].rstrip(b"\r\n")
        if not line:
            at = stop
            break
        if line[:1] in (b" ", b"\t"):
            if found:
                found[-1][1].append(line)
        elif (parts := _FIELD.fullmatch(line)) is not None:
            if len(found) == most:
                break
            found.append((parts[1].decode("ascii"), [parts[2]]))
        elif at > start or not line.startswith(b"From "):  # the line of an mbox
            break
        at = stop
    return tuple((name, b" ".join(map(bytes.strip, lines))) for name, lines in found), at


class _Splitter:
    """Finds the parts between boundaries (RFC 2046 §5.1.1), of all levels in one pass."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._view = memoryview(content)
        self._fields = self._begun = 0  # fields and parts, so far
        self._depths: dict[bytes, int] = {}  # of the open multiparts, by boundary; the innermost of equal ones
        self._leaves: list[Part] = []
        self._levels: list[_Level] = []
        self._leaf: tuple[str, tuple[tuple[str, bytes], ...], int] | None = None  # the one that has not ended
        self._whole = True

    def split(self) -> Parts:
        """All of it."""
        header, at = self._begin(0, "text/plain")
        dashes = 0
        while self._levels and (at := self._content.find(b"\n--", max(at - 1, 0))) >= 0:
            dashes += 1
            if dashes > _DASHES_MAX or self._begun > _PARTS_MAX:
                self._whole = False
                break
            stop = self._content.find(b"\n", at + 1)
            stop = len(self._content) if stop < 0 else stop
            at = self._delimiter(at, stop) if stop - at <= 1000 else stop + 1
        self._end(len(self._content))
        while self._levels:
            self._leave()
        return Parts(header, tuple(self._leaves), self._whole)

    def _begin(self, start: int, default: str) -> tuple[tuple[tuple[str, bytes], ...], int]:
        """A part begins: its header, and where its body begins."""
        header, body = _fields(self._content, start, _FIELDS_MAX - self._fields)
        self._fields += len(header)
        self._begun += 1
        self._whole = self._whole and self._fields < _FIELDS_MAX
        value = next((value for name, value in header if name.lower() == "content-type"), b"")
        kind = _TYPE.match(value[:_FIELD_MAX].decode("latin-1"))
        # RFC 2045 §5.2: what cannot be read is plain text
        type_ = f"{kind[1]}/{kind[2]}".lower() if kind else "text/plain" if value else default
        boundary = parameters(value).get("boundary", "") if type_.startswith("multipart/") else ""
        if boundary and len(self._levels) < _DEPTH_MAX:
            octets = boundary.rstrip().encode("utf-8", "surrogateescape")
            self._depths[octets] = len(self._levels)
            self._levels.append(_Level(octets, type_, header, body))
        else:
            self._whole = self._whole and not boundary
            self._leaf = (type_, header, body)
        return header, body

    def _delimiter(self, at: int, stop: int) -> int:
        """Do what the line between two LF wants, if it is a boundary; where to look for the next one."""
        text = self._content[at + 3 : stop].rstrip()
        last = text not in self._depths
        depth = self._depths.get(text.removesuffix(b"--") if last else text)
        if depth is None:
            return stop
        self._end(at - 1 if self._content[at - 1 : at] == b"\r" else at)
        while len(self._levels) > depth + 1:
            self._leave()
        level = self._levels[depth]
        level.parts += 1
        if last:
            self._leave()
            return stop
        default = "message/rfc822" if level.type == "multipart/digest" else "text/plain"
        return self._begin(stop + 1, default)[1]

    def _end(self, end: int) -> None:
        """The leaf under way, if there is one, ends."""
        if self._leaf is not None:
            kind, header, start = self._leaf
            self._leaves.append(Part(kind, header, self._view[start : max(start, end)]))
            self._leaf = None

    def _leave(self) -> None:
        """The innermost multipart ends; one without any part is one text."""
        level = self._levels.pop()
        self._depths = {other.boundary: depth for depth, other in enumerate(self._levels)}
        if not level.parts:
            self._leaves.append(Part("text/plain", level.header, self._view[level.start :]))


@dataclass(slots=True)
class _Level:
    boundary: bytes
    type: str
    header: tuple[tuple[str, bytes], ...]
    start: int
    parts: int = 0


# --- values ---


def _disposition(part: Part) -> str:
    found = _TOKEN.match(part.value("content-disposition")[:200].decode("latin-1"))
    return found[1].lower() if found else ""


def parameters(value: bytes) -> dict[str, str]:
    """Parameters of a Content-Type or Content-Disposition, names in small letters; pieces are joined and decoded
    (RFC 2231 §3, §4). Octets that are not UTF-8 become surrogates.
    """
    simple: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[str, bool]]] = {}
    for found in _PARAMETER.finditer(value[:_FIELD_MAX].decode("utf-8", "surrogateescape")):
        text = found[2].strip()
        if text.startswith('"'):
            text = re.sub(r"\\(.)", r"\1", text[1:].removesuffix('"'), flags=re.DOTALL)
        name = _SEGMENT.fullmatch(found[1].lower())
        if name is None:
            continue
        if name[2] is None and not name[3]:
            simple.setdefault(name[1], text)
        elif len(some := pieces.setdefault(name[1], {})) < _SEGMENTS_MAX:
            some.setdefault(int(name[2] or 0), (text, bool(name[3])))
    return simple | {name: _joined(some) for name, some in pieces.items()}


def _joined(pieces: dict[int, tuple[str, bool]]) -> str:
    charset, octets = "utf-8", b""
    for count, number in enumerate(sorted(pieces)):
        text, encoded = pieces[number]
        if encoded and count == 0 and text.count("'") >= 2:
            named, _, text = text.split("'", 2)
            charset = named or charset
        raw = text.encode("utf-8", "surrogateescape")
        octets += unquote_to_bytes(raw) if encoded else raw
    return text_of(octets, charset)


def decoded(value: str | bytes) -> str:
    """A field's value as people read it: UTF-8 (RFC 6532), encoded words decoded (RFC 2047), one line."""
    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    text = " ".join(raw[: 4 * _VALUE_MAX].decode("utf-8", "replace").split())[:_VALUE_MAX]
    return " ".join("".join(_words(text)).split()) if "=?" in text else text


def _words(text: str) -> Iterator[str]:
    """Text between encoded words, and what those say; neighbours of one charset together: senders cut characters."""
    at, charset, octets = 0, "", b""
    for found in _WORD.finditer(text):
        between = text[at : found.start()]
        named = found[1].partition("*")[0].lower()  # RFC 2231 §5: a language may stand behind it
        if octets and (between.strip() or named != charset):
            yield text_of(octets, charset)
            octets = b""
        # RFC 2047 §6.2: blanks between encoded words are no part of the text
        yield between if between.strip() or at == 0 else ""
        charset, at = named, found.end()
        octets += _from_base64(found[3].encode()) if found[2] in "bB" else _from_q(found[3])
    yield text_of(octets, charset) if octets else ""
    yield text[at:]


def _from_q(text: str) -> bytes:
    return binascii.a2b_qp(text.encode(), header=True)


def _from_base64(octets: bytes | memoryview) -> bytes:
    try:
        return binascii.a2b_base64(octets)
    except binascii.Error:  # it was cut off, or has no padding
        kept = bytes(octets).translate(None, _NO_BASE64)
        kept = kept[: len(kept) - 1] if len(kept) % 4 == 1 else kept
        return binascii.a2b_base64(kept + b"=" * (-len(kept) % 4))


def _from_uu(octets: bytes) -> bytes:
    lines: list[bytes] = []
    for line in octets.split(b"\n", _UU_LINES_MAX)[:_UU_LINES_MAX]:
        if line.rstrip() == b"end":
            break
        try:
            lines.append(binascii.a2b_uu(line.rstrip(b"\r")))
        except binascii.Error:
            continue  # the line that begins it, or one that is damaged
    return b"".join(lines)


def text_of(octets: bytes, charset: str) -> str:
    """Octets as text; in UTF-8 where no such charset is known."""
    try:
        if codecs.lookup(charset or "utf-8").name.replace("-", "_") not in _NO_CHARSETS:
            return octets.decode(charset or "utf-8", "replace")
    except (LookupError, ValueError):  # no such charset, or one that is no text's
        pass
    return octets.decode("utf-8", "replace")
