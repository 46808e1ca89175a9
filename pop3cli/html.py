"""HTML as text, for a terminal: paragraphs, lists, tables, where links lead. Nothing is ever loaded.

With the extra ``html`` the library inscriptis lays it out, tables in columns. It trusts what it is given: a page of a
megabyte can ask for gigabytes of blanks. So pages are measured before, and those that are too much, or that it fails
on, are read by the standard library's parser, in a plainer way, as all are without the extra.
"""

from __future__ import annotations

import importlib
from html.parser import HTMLParser
from typing import Any, Final

__all__ = ["html_to_text"]

_DEPTH_MAX: Final = 100  # elements within elements: each may cost every line an indent
_AREA_MAX: Final = 20_000_000  # elements times characters: no layout has more lines, or wider ones
_LINKS: Final = ("http:", "https:", "mailto:")


def html_to_text(html: str) -> str:
    """HTML as text: paragraphs, list items, where links lead. Nothing is loaded."""
    try:
        text = _laid_out(html)
    except Exception:  # of the library or its parser, or the library is not installed
        text = None
    if text is not None:
        return text
    reader = _HtmlReader()
    try:
        reader.feed(html)
        reader.close()
    except Exception:
        return html
    return reader.text()


def _laid_out(html: str) -> str | None:
    """By inscriptis; None for a page that is too much for it. Raises ImportError, and what it likes."""
    engine: Any = importlib.import_module("inscriptis.html_engine")
    lxml: Any = importlib.import_module("lxml.html")
    # octets, for text may not say in what charset it is
    parser = lxml.HTMLParser(encoding="utf-8")
    page = lxml.document_fromstring(html.encode("utf-8", "replace"), parser=parser)
    elements = list(page.iter("*"))
    depth, deepest = {page: 0}, 0
    for element in elements[1:]:
        depth[element] = depth[element.getparent()] + 1
        deepest = max(deepest, depth[element])
    if deepest > _DEPTH_MAX or len(elements) * len(page.text_content()) > _AREA_MAX:
        return None
    for element in elements:
        # of styles only "not shown" is heeded: others may ask for any number of blanks
        hidden = "display:none" in "".join(element.attrib.pop("style", "").lower().split())
        if hidden or element.tag in _UNSEEN:
            element.attrib["style"] = "display:none"
        elif element.tag == "a":
            _show_target(element)
    text = str(engine.Inscriptis(page).get_text())
    lines = [line.rstrip() for line in text.split("\n")]
    return "\n".join(lines).strip("\n") + "\n"


def _show_target(link: Any) -> None:
    target = _target(link.attrib.get("href"), link.text_content())
    link.tail = target + (link.tail or "")


def _target(link: str | None, text: str) -> str:
    """Where a link leads, if its text says something else: that is how people are caught."""
    shown = link is not None and link.startswith(_LINKS) and text.strip() not in link
    return f" <{link}>" if shown else ""


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
            self._line.append(_target(self._link, self._link_text))
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
