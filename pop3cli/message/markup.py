"""HTML taken apart: text, and the elements that matter to it, in one pass over the page.

The standard library's parser looks through the rest of the page anew for each comment that does not end, and libxml2
compares each attribute of an element with every other, so a page of some hundred kilobytes keeps them for minutes. Here
each character is looked at a fixed number of times. The rules are those of browsers as far as they decide what is seen:
what a comment, a tag, a script swallows; where an element ends that is not ended; what is hidden.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from pop3cli.message.links import beside

__all__ = ["BLOCKS", "TAGS_MAX", "Close", "Open", "seen"]

TAGS_MAX: Final = 50_000
"""Tags of a page that are read as tags, in half a second; behind them only text is taken. No mail comes near."""

_ATTRIBUTE_MAX: Final = 16_384  # characters of an attribute's value that are kept; longer URLs are no one's to read

# fmt: off
BLOCKS: Final = frozenset((
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav",
    "ol", "p", "pre", "section", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul",
))
"""Elements that begin, and end, a line or a cell."""
_VOID: Final = frozenset((
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr",
))
_RAW: Final = frozenset(("iframe", "noembed", "noframes", "script", "style", "title"))  # text that is not shown
_TEXT: Final = frozenset(("textarea", "xmp"))  # text in which no tags are
# what a start tag ends that was left open (HTML, "optional tags")
_ENDS: Final = {
    "li": ("li",), "dt": ("dt", "dd"), "dd": ("dt", "dd"), "option": ("option",), "tr": ("td", "th", "tr"),
    "td": ("td", "th"), "th": ("td", "th"), "tbody": ("td", "th", "tr", "tbody", "thead"),
}
# fmt: on
# white space is what HTML calls so, and no more: U+00A0 is part of a name or a value
_NAME: Final = re.compile(r"[A-Za-z][^ \t\n\f\r/>]{0,63}")
_ATTRIBUTE: Final = re.compile(
    r"""([^ \t\n\f\r/>=][^ \t\n\f\r/>=]*)"""
    r"""(?:[ \t\n\f\r]*=[ \t\n\f\r]*(?:"([^"]*)"|'([^']*)'|([^ \t\n\f\r>"'][^ \t\n\f\r>]*)|(["']?)))?"""
)
_BETWEEN: Final = re.compile(r"[ \t\n\f\r/=]*")
_COMMENT_END: Final = re.compile(r"--!?>")
_ENDS_OF: Final = {name: re.compile(rf"</{name}(?=[ \t\n\f\r/>])", re.I | re.ASCII) for name in _RAW | _TEXT}
_TAG: Final = re.compile(r"<[^<>]*>")
_REFERENCE: Final = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});?")
_KEPT: Final = frozenset(("alt", "hidden", "href", "style", "xlink:href"))


@dataclass(frozen=True, slots=True)
class Open:
    """An element begins. ``attributes``: those that matter, the first of each name."""

    name: str
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Close:
    """An element ends."""

    name: str


Token: TypeAlias = str | Open | Close
"""Text, references replaced, or a tag."""


def _text(raw: str) -> str:
    # short references only: the library turns a number of a million digits into an int
    return _REFERENCE.sub(lambda found: html.unescape(found[0]), raw) if "&" in raw else raw


def _tokens(page: str) -> Iterator[Token]:
    """A page's text and tags, as they stand in it."""
    at, tags = 0, 0
    while at < len(page):
        tag = page.find("<", at)
        if tag < 0:
            tag = len(page)
        if tag > at:
            yield _text(page[at:tag])
        if tag == len(page):
            return
        if tags == TAGS_MAX:
            yield "\n\n[the rest is shown without its layout]\n\n"
            yield _text(_TAG.sub(" ", page[tag:]))
            return
        tags += 1
        following = page[tag + 1 : tag + 2]
        if following in ("!", "?") or (following == "/" and not _NAME.match(page, tag + 2)):
            at = _end_of_comment(page, tag)
        elif following == "/":
            name = _NAME.match(page, tag + 2)
            assert name is not None
            yield Close(name[0].lower())
            at = _behind(page, ">", name.end())
        elif (name := _NAME.match(page, tag + 1)) is not None:
            element, at = _start_tag(page, name)
            if element is None:  # it never ends
                yield _text(page[tag:])
                return
            yield element
            if element.name in _ENDS_OF:
                end = _ENDS_OF[element.name].search(page, at)
                inner, at = (page[at:], len(page)) if end is None else (page[at : end.start()], end.start())
                if element.name in _TEXT:
                    yield _text(inner)
        else:
            yield "<"
            at = tag + 1


def _end_of_comment(page: str, start: int) -> int:
    if not page.startswith("<!--", start):
        return _behind(page, ">", start)
    if page.startswith((">", "->"), start + 4):
        return page.index(">", start + 4) + 1
    found = _COMMENT_END.search(page, start + 4)
    return len(page) if found is None else found.end()


def _behind(page: str, what: str, start: int) -> int:
    found = page.find(what, start)
    return len(page) if found < 0 else found + len(what)


def _start_tag(page: str, name: re.Match[str]) -> tuple[Open | None, int]:
    """A start tag whose name was found, and where it ends; None where it does not."""
    attributes: dict[str, str] = {}
    at = _behind_blanks(page, name.end())
    while (found := _ATTRIBUTE.match(page, at)) is not None:
        if found[5]:  # a quote that does not end
            return None, len(page)
        at = _behind_blanks(page, found.end())
        key = found[1].lower()
        if key in _KEPT:
            value = found[2] or found[3] or found[4] or ""
            attributes.setdefault(key, _text(value[:_ATTRIBUTE_MAX]))
    return (None, len(page)) if at == len(page) else (Open(name[0].lower(), attributes), at + 1)


def _behind_blanks(page: str, start: int) -> int:
    found = _BETWEEN.match(page, start)
    assert found is not None
    return found.end()


def seen(page: str) -> Iterator[Token]:
    """What of a page is seen: its text and elements, hidden ones left out, and behind links where they lead.

    Elements are properly within each other. A ``Close`` comes for each ``Open`` but void ones, which have none.
    """
    return _Seen().of(page)


class _Seen:
    def __init__(self) -> None:
        self._open: list[str] = []
        self._count: Counter[str] = Counter()  # of open elements, by name
        self._hidden: int | None = None  # how many were open when the hidden one began
        self._base: str | None = None
        self._href: str | None = None  # of the link that is open
        self._words: list[str] = []  # what was shown of it since its target was told

    def of(self, page: str) -> Iterator[Token]:
        for token in _tokens(page):
            match token:
                case str():
                    if self._hidden is None:
                        self._words.append(token) if self._href is not None else None
                        yield token
                case Open():
                    yield from self._begin(token)
                case Close("a"):
                    yield from self._told(over=True)
                    yield from self._end("a")
                case Close():
                    yield from self._end(token.name)
        yield from self._told(over=True)
        while self._open:
            yield from self._pop()

    def _begin(self, element: Open) -> Iterator[Token]:
        name, attributes = element.name, element.attributes
        ends = ("p",) if name in BLOCKS and name not in ("td", "th", "tr", "body") else ()
        for other in (*ends, *_ENDS.get(name, ())):
            if self._open and self._open[-1] == other:
                yield from self._pop()
        if name == "base" and self._base is None:
            self._base = attributes.get("href")
        if name in BLOCKS or name == "a":
            yield from self._told(over=name == "a")
        if name == "a":
            self._href = attributes.get("href", attributes.get("xlink:href"))
        hidden = name == "template" or "hidden" in attributes or _is_hidden(attributes.get("style", ""))
        if name in _VOID:
            if self._hidden is None and not hidden:
                yield element
                if name == "img" and (alt := attributes.get("alt", "").strip()):
                    self._words.append(alt) if self._href is not None else None
                    yield f"[{alt}]"
            return
        if hidden and self._hidden is None:
            self._hidden = len(self._open)
        self._open.append(name)
        self._count[name] += 1
        if self._hidden is None:
            yield element

    def _end(self, name: str) -> Iterator[Token]:
        if name in BLOCKS:
            yield from self._told(over=False)
        if self._count[name]:
            while self._open[-1] != name:
                yield from self._pop()
            yield from self._pop()

    def _pop(self) -> Iterator[Token]:
        name = self._open.pop()
        self._count[name] -= 1
        if self._hidden is None:
            yield Close(name)
        elif self._hidden == len(self._open):
            self._hidden = None

    def _told(self, *, over: bool) -> Iterator[Token]:
        """Where the open link leads, if anything was shown of it. ``over``: it ends; else its line does."""
        if self._href is None:
            return
        text = "".join(self._words)
        self._words = []
        if target := beside(self._href, text, self._base):
            yield target
        if over:
            self._href = None


def _is_hidden(style: str) -> bool:
    return "display:none" in "".join(style.lower().split())
