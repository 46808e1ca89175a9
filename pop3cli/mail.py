"""What a message says, for people.

The standard library parses; this module asks it carefully. Mail in the wild breaks every rule, and the parser of
structured headers raises what it likes on it. So the structure is read by the old forgiving policy, each header decoded
by the new strict one, and each question has an answer for the worst case: the raw text. Nothing here writes to a
terminal, and nothing returned is safe for one (see `pop3cli.harmless`).
"""

from __future__ import annotations

import email
import email.policy
import email.utils
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from html.parser import HTMLParser
from typing import Final, TypeAlias, cast

__all__ = ["Attachment", "Readable", "Summary", "html_to_text", "parse_headers", "read_message", "summarize"]

_Part: TypeAlias = "Message[str, str]"

_POLICY: Final = email.policy.default
_HEADER_MAX: Final = 4096  # characters of one header that are decoded: the parser's time grows faster than its input
_TEXT_MAX: Final = 4 * 1024 * 1024  # octets of a text part that are shown
_DEPTH_MAX: Final = 50  # parts within parts that are looked into
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
    """A part that is not shown. ``name``: foreign text, may be empty; ``octets``: decoded."""

    name: str
    type: str
    octets: int


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
    """All headers, decoded, in their order."""
    return [(name, _decoded(name, value)) for name, value in email.message_from_bytes(headers).raw_items()]


def read_message(content: bytes) -> Readable:
    """A message as a person reads it: plain text if it has one, else its HTML as text."""
    try:
        return _read(email.message_from_bytes(content))
    except Exception:  # parts within parts without end, say, exhaust the parser's stack
        return Readable((), _text_of(content, "utf-8"), ())


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
    return Attachment(_name(part), part.get_content_type(), len(_payload(part)))


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
        return octets[:_TEXT_MAX].decode(charset, "replace")
    except (LookupError, ValueError):  # no such charset, or one that is no text's
        return octets[:_TEXT_MAX].decode("utf-8", "replace")


# --- HTML ---


def html_to_text(html: str) -> str:
    """HTML as text: paragraphs, list items, where links lead. Nothing is loaded."""
    reader = _HtmlReader()
    try:
        reader.feed(html)
        reader.close()
    except Exception:
        return html
    return reader.text()


# fmt: off
_BLOCKS: Final = frozenset((
    "address", "article", "aside", "blockquote", "center", "dd", "div", "dl", "dt", "fieldset", "footer", "form",
    "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section", "table",
    "tr", "ul",
))
_SPACED: Final = frozenset(("h1", "h2", "h3", "h4", "h5", "h6", "p", "table", "ul", "ol", "blockquote", "pre"))
_UNSEEN: Final = frozenset(("head", "script", "style", "template", "title"))
# fmt: on


class _HtmlReader(HTMLParser):
    """Collects text, a line per block, an empty line about a paragraph."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._lines: list[str] = []
        self._line: list[str] = []
        self._unseen = 0
        self._preformatted = 0
        self._link: str | None = None
        self._link_text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen += 1
        if tag in _BLOCKS or tag == "br":
            self._break(spaced=tag in _SPACED)
        if tag == "li":
            self._line.append("- ")
        if tag in ("td", "th"):
            self._line.append(" ")
        if tag == "pre":
            self._preformatted += 1
        if tag == "a":
            self._link, self._link_text = dict(attrs).get("href"), ""
        if tag == "img" and (alt := dict(attrs).get("alt")):
            self.handle_data(f"[{alt}]")

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(self._unseen - 1, 0)
        if tag == "pre":
            self._preformatted = max(self._preformatted - 1, 0)
        if tag == "a" and self._link:
            # where a link leads is shown whenever its text says something else: that is how people are caught
            if self._link.startswith(("http:", "https:", "mailto:")) and self._link_text.strip() not in self._link:
                self._line.append(f" <{self._link}>")
            self._link = None
        if tag in _BLOCKS:
            self._break(spaced=tag in _SPACED)

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        self._link_text += data if self._link else ""
        if self._preformatted:
            first, *rest = data.split("\n")
            self._line.append(first)
            for line in rest:
                self._break(spaced=False)
                self._line.append(line)
        else:
            self._line.append(data)

    def text(self) -> str:
        """All that was read."""
        self._break(spaced=False)
        return "\n".join(self._lines).strip("\n") + "\n"

    def _break(self, *, spaced: bool) -> None:
        line = "".join(self._line)
        line = line.rstrip() if self._preformatted else " ".join(line.split())
        self._line = []
        if line:
            self._lines.append(line)
        if spaced and self._lines and self._lines[-1]:
            self._lines.append("")
