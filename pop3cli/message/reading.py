"""What a message says, for people.

`pop3cli.message.mime` takes it apart, in time and memory that grow with its size and no faster. Mail in the wild breaks
every rule, so each question has an answer for the worst case: the raw text. Nothing here writes to a terminal, and
nothing returned is safe for one (see `pop3cli.sanitize`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from pop3cli.message.html import html_to_text
from pop3cli.message.mime import Part, Parts, decoded, fields, text_of

__all__ = [
    "BEGINNING",
    "HEADERS_MAX",
    "WHOLE_MAX",
    "Attachment",
    "MessageSummary",
    "Readable",
    "parse_headers",
    "read_message",
    "summarize",
]

WHOLE_MAX: Final = 16 * 1024 * 1024
"""Octets of a message that is shown whole; of a larger one only its beginning is."""

BEGINNING: Final = 6 * 1024 * 1024
"""Octets of a larger message that are read: its header and 4 MiB of text, which base64 makes 5.5 MiB."""

HEADERS_MAX: Final = 1024 * 1024
"""Octets of a header that is shown; no real one comes near."""

_TEXT_MAX: Final = 4 * 1024 * 1024  # octets, and then characters, of a text part that are shown: 1,000 pages
_DATE_MAX: Final = 200  # characters of a date that are read; real ones have 40
_SHOWN: Final = ("From", "To", "Cc", "Date", "Subject")


@dataclass(frozen=True, slots=True)
class MessageSummary:
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
    """A message to be read: the usual headers in the usual order, the text, and what is attached. Foreign text.

    ``cut``: why not all of it is here, in our words; empty when all is.
    """

    headers: tuple[tuple[str, str], ...]
    text: str
    attachments: tuple[Attachment, ...]
    cut: str = ""


def summarize(headers: bytes) -> MessageSummary:
    """From, Subject and Date of a message, given its headers."""
    found = fields(headers)
    date = _header(found, "Date")
    return MessageSummary(_header(found, "From"), _header(found, "Subject"), _date(date), date)


def parse_headers(headers: bytes) -> list[tuple[str, str]]:
    """All headers, decoded, in their order; of a megabyte, that is."""
    return [(name, decoded(value)) for name, value in fields(headers)]


def read_message(content: bytes, *, whole: bool = True) -> Readable:
    """A message as a person reads it: plain text if it has one, else its HTML as text.

    Not ``whole``: ``content`` is its beginning, so its last part may be a piece of one, and is no attachment.
    """
    message = Parts.of(content)
    parts = message.leaves
    plain = [part for part in parts if _is_text(part, "plain")][:1]
    html = [part for part in parts if _is_text(part, "html")][:1]
    text, cut = "", not message.whole
    for part in plain or html:
        text, cut_here = _shown_text(part)
        cut = cut or cut_here
    # the first HTML part is the plain text's other form, unless it has a name of its own
    shown = [*plain, *(part for part in html if not (plain and part.name))]
    complete = parts if whole else parts[:-1]
    attachments = tuple(_attachment(part) for part in complete if not any(part is one for one in shown))
    headers = tuple((name, value) for name in _SHOWN if (value := _header(message.header, name)))
    return Readable(headers, text, attachments, _why(cut=cut, whole=whole))


def _why(*, cut: bool, whole: bool) -> str:
    if not whole:
        return "the message is larger than 16 MiB: only its beginning is shown"
    return "the message has more text or parts than are shown" if cut else ""


# --- headers ---


def _header(header: tuple[tuple[str, bytes], ...], name: str) -> str:
    for key, value in header:
        if key.lower() == name.lower():
            return decoded(value)
    return ""


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text[:_DATE_MAX])
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone()
    except Exception:  # the library raises what it likes
        return None


# --- parts ---


def _is_text(part: Part, subtype: str) -> bool:
    if part.type.startswith("multipart/"):  # too deep within others to be looked into: it is one text
        return subtype == "plain"
    return part.type == f"text/{subtype}" and not part.is_attached


def _attachment(part: Part) -> Attachment:
    return Attachment(part.name, part.type, part.content)


def _shown_text(part: Part) -> tuple[str, bool]:
    """A part's text, and whether it has more."""
    octets = part.content
    text = text_of(octets[:_TEXT_MAX], part.charset)
    if part.type == "text/html":
        text = html_to_text(text)
    return text[:_TEXT_MAX], len(octets) > _TEXT_MAX or len(text) > _TEXT_MAX
