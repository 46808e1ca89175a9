"""What a message says, for people.

The standard library parses; this module asks it carefully. Mail in the wild breaks every rule, and the parser of
structured headers raises what it likes on it. So the structure is read by the old forgiving policy, each header decoded
by the new strict one, and each question has an answer for the worst case: the raw text. Nothing here writes to a
terminal, and nothing returned is safe for one (see `pop3cli.harmless`).
"""

from __future__ import annotations

import codecs
import email
import email.message
import email.policy
import email.utils
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from itertools import count, islice
from typing import Any, Final, TypeAlias, cast

from pop3cli.html import html_to_text

__all__ = ["Attachment", "Readable", "Summary", "parse_headers", "read_message", "summarize"]

_Part: TypeAlias = "Message[str, str]"

_POLICY: Final = email.policy.default
_HEADER_MAX: Final = 4096  # characters of one header that are decoded: the parser's time grows faster than its input
_TEXT_MAX: Final = 4 * 1024 * 1024  # octets of a text part that are shown
_DEPTH_MAX: Final = 50  # parts within parts that are looked into
_LINES_MAX: Final = 2_000_000  # of a message that is parsed; each costs some hundred octets
_WORK_MAX: Final = 100_000_000  # lines times multiparts: each line is compared with every boundary around it
_HEADERS_MAX: Final = 20_000  # of a message and its parts together
_PARTS_MAX: Final = 5_000
_HEADER_BLOCK_MAX: Final = 1024 * 1024  # octets of headers that are shown as headers
# charsets that Python knows and mail does not: decoding takes quadratic time, or does something else
_NO_CHARSETS: Final = frozenset(("punycode", "idna", "unicode_escape", "raw_unicode_escape", "undefined"))
_BOUNDARY: Final = re.compile(rb"boundary", re.I)
_SHOWN: Final = ("From", "To", "Cc", "Date", "Subject")


@dataclass(frozen=True, slots=True)
class Summary:
    """A message in a list. Foreign text; empty where there is no such header. ``date``: None when it is none."""

    sender: str
    subject: str
    date: datetime | None
    date_text: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """A part that is not shown. ``name``: foreign text, may be empty; ``content``: decoded."""

    name: str
    type: str
    content: bytes = field(repr=False)

    @property
    def octets(self) -> int:
        """The size of the decoded content."""
        return len(self.content)


@dataclass(frozen=True, slots=True)
class Readable:
    """A message to be read: the usual headers in the usual order, the text, and what is attached. Foreign text."""

    headers: tuple[tuple[str, str], ...]
    text: str
    attachments: tuple[Attachment, ...]


def summarize(headers: bytes) -> Summary:
    """From, Subject and Date of a message, given its headers."""
    message = email.message_from_bytes(headers)
    date = _header(message, "Date")
    return Summary(_header(message, "From"), _header(message, "Subject"), _date(date), date)


def parse_headers(headers: bytes) -> list[tuple[str, str]]:
    """All headers, decoded, in their order; of a megabyte, that is."""
    found = email.message_from_bytes(headers[:_HEADER_BLOCK_MAX]).raw_items()
    return [(name, _decoded(name, value)) for name, value in islice(found, _HEADERS_MAX)]


def read_message(content: bytes) -> Readable:
    """A message as a person reads it: plain text if it has one, else its HTML as text.

    One that would cost too much time or memory to take apart is text as it came.
    """
    try:
        lines = content.count(b"\n")
        if lines > _LINES_MAX or lines * len(_BOUNDARY.findall(content)) > _WORK_MAX:
            raise _TooIntricate
        return _read(email.message_from_bytes(content, policy=_counting()))
    except Exception:  # parts within parts without end, say, exhaust the parser's stack
        return Readable((), _text_of(content, "utf-8"), ())


class _TooIntricate(Exception):
    """A message has more to it than mail has."""


def _counting() -> email.policy.Policy[_Part]:
    """The forgiving policy for one message, but for a message of headers or parts without end."""
    headers, parts = count(1), count(1)

    class Counting(email.policy.Compat32):
        def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
            if next(headers) > _HEADERS_MAX:
                raise _TooIntricate
            return super().header_source_parse(sourcelines)

    def part(policy: Any = None) -> _Part:
        if next(parts) > _PARTS_MAX:
            raise _TooIntricate
        return Message(policy)

    return Counting(message_factory=part)


def _read(message: _Part) -> Readable:
    headers = tuple((name, value) for name in _SHOWN if (value := _header(message, name)))
    parts = list(_parts(message, 0))
    plain = [part for part in parts if _is_text(part, "plain")][:1]
    html = [part for part in parts if _is_text(part, "html")][:1]
    text = "".join(map(_shown_text, plain or html))
    # the first HTML part is the plain text's other form, unless it has a name of its own
    shown = [*plain, *(part for part in html if not (plain and _name(part)))]
    attachments = tuple(_attachment(part) for part in parts if not any(part is one for one in shown))
    return Readable(headers, text, attachments)


# --- headers ---


def _header(message: _Part, name: str) -> str:
    for key, value in message.raw_items():
        if key.lower() == name.lower():
            return _decoded(name, value)
    return ""


def _decoded(name: str, value: object) -> str:
    # RFC 6532 allows UTF-8 in headers, and mail without it has whatever the sender's machine had
    raw = " ".join(str(value)[:_HEADER_MAX].encode("utf-8", "surrogateescape").decode("utf-8", "replace").split())
    if "=?" not in raw:
        return raw  # no encoded word, nothing to decode: most headers are so, and the parser is slow
    try:
        return str(_POLICY.header_factory(name, raw))
    except Exception:
        return raw


def _date(text: str) -> datetime | None:
    try:
        date = email.utils.parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone()
    except Exception:
        return None


# --- parts ---


def _parts(message: _Part, depth: int) -> Iterator[_Part]:
    """The leaves, in order. A message within a message is a leaf."""
    if message.is_multipart() and message.get_content_maintype() == "multipart" and depth < _DEPTH_MAX:
        for part in cast(list[_Part], message.get_payload()):
            yield from _parts(part, depth + 1)
    else:
        yield message


def _is_text(part: _Part, subtype: str) -> bool:
    if part.get_content_maintype() == "multipart":  # in name only: no boundary was found, so it is one text
        return subtype == "plain"
    return part.get_content_type() == f"text/{subtype}" and not _is_attached(part)


def _is_attached(part: _Part) -> bool:
    try:
        return part.get_content_disposition() == "attachment"
    except Exception:
        return False


def _name(part: _Part) -> str:
    try:
        return _decoded("Subject", part.get_filename() or "")  # encoded words have no business in it, but are there
    except Exception:
        return ""


def _attachment(part: _Part) -> Attachment:
    return Attachment(_name(part), part.get_content_type(), _payload(part))


def _payload(part: _Part) -> bytes:
    """The octets of a leaf, decoded."""
    try:
        if part.is_multipart():  # a message within the message
            return b"".join(bytes(one) for one in cast(list[_Part], part.get_payload()))
        payload = part.get_payload(decode=True)
    except Exception:
        return b""
    return payload if isinstance(payload, bytes) else b""


def _shown_text(part: _Part) -> str:
    try:
        charset = part.get_content_charset() or "utf-8"
    except Exception:
        charset = "utf-8"
    text = _text_of(_payload(part), charset)
    return html_to_text(text) if part.get_content_subtype() == "html" else text


def _text_of(octets: bytes, charset: str) -> str:
    try:
        if codecs.lookup(charset).name.replace("-", "_") in _NO_CHARSETS:
            charset = "utf-8"
        return octets[:_TEXT_MAX].decode(charset, "replace")
    except (LookupError, ValueError):  # no such charset, or one that is no text's
        return octets[:_TEXT_MAX].decode("utf-8", "replace")
