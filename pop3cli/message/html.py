"""HTML as text, for a terminal: paragraphs, lists, tables, where links lead. Nothing is ever loaded.

`pop3cli.message.markup` reads the page, in time that grows with its length. With the extra ``html`` the library
inscriptis lays out what is left of it, tables in columns; a page that could cost it too much, or that it fails on, is
laid out here, in a plainer way, as all are without the extra.
"""

from __future__ import annotations

import html
import importlib
from collections.abc import Iterable
from typing import Any, Final

from pop3cli.message.markup import BLOCKS, Close, Open, Token, seen

__all__ = ["html_to_text"]

_LAID_OUT_MAX: Final = 256 * 1024  # characters of a page that the library lays out, in about half a second
_DEPTH_MAX: Final = 100  # elements within elements: each may cost every line an indent
_AREA_MAX: Final = 20_000_000  # elements times characters: no layout has more lines, or wider ones
_SPACED: Final = frozenset(("h1", "h2", "h3", "h4", "h5", "h6", "p", "table", "ul", "ol", "blockquote", "pre"))
_CELLS: Final = frozenset(("td", "th"))


def html_to_text(page: str) -> str:
    """HTML as text: paragraphs, list items, where links lead. Nothing is loaded."""
    tokens = list(seen(page))
    try:
        text = _laid_out(tokens)
    except Exception:  # of the library or its parser, or the library is not installed
        text = None
    if text is not None:
        return text
    reader = _HtmlReader()
    reader.take(tokens)
    reader.close()
    return reader.text()


def _laid_out(tokens: list[Token]) -> str | None:
    """By inscriptis; None for a page that is too much for it. Raises ImportError, and what it likes."""
    engine: Any = importlib.import_module("inscriptis.html_engine")
    lxml: Any = importlib.import_module("lxml.html")
    characters, elements, depth, deepest, pieces = 0, 1, 0, 0, list[str]()
    for token in tokens:
        match token:
            case str():
                characters += len(token)
                pieces.append(html.escape(token, quote=False))
            case Open(name) if name in BLOCKS or name == "br":
                elements += 1
                depth += name not in ("br", "hr")
                deepest = max(deepest, depth)
                pieces.append(f"<{name}>")
            case Close(name) if name in BLOCKS:
                depth -= 1
                pieces.append(f"</{name}>")
            case _:
                pass
    written = "".join(pieces)
    if len(written) > _LAID_OUT_MAX or deepest > _DEPTH_MAX or elements * characters > _AREA_MAX:
        return None
    # octets, for text may not say in what charset it is
    parser = lxml.HTMLParser(encoding="utf-8")
    root = lxml.document_fromstring(f"<html>{written}</html>".encode("utf-8", "replace"), parser=parser)
    text = str(engine.Inscriptis(root).get_text())
    return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n") + "\n"


class _HtmlReader:
    """Lays a page out by itself: a line per block, an empty line about a paragraph."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line: list[str] = []
        self._preformatted = 0

    def feed(self, page: str) -> None:
        """Take a page."""
        self.take(seen(page))

    def take(self, tokens: Iterable[Token]) -> None:
        """Take a page that was read already."""
        for token in tokens:
            match token:
                case str() if self._preformatted:
                    first, *rest = token.split("\n")
                    self._line.append(first)
                    for text in rest:
                        self._break(spaced=False)
                        self._line.append(text)
                case str():
                    self._line.append(token)
                case Open(name) if name in _CELLS:
                    self._line.append(" ")
                case Open(name) if name in BLOCKS or name == "br":
                    self._break(spaced=name in _SPACED)
                    self._preformatted += name == "pre"
                    self._line.extend(["- "] if name == "li" else [])
                case Close(name) if name in BLOCKS and name not in _CELLS:
                    self._break(spaced=name in _SPACED)
                    self._preformatted -= name == "pre"
                case _:
                    pass

    def close(self) -> None:
        """No more comes."""
        self._break(spaced=False)

    def text(self) -> str:
        """All that was read."""
        return "\n".join(self._lines).strip("\n") + "\n"

    def _break(self, *, spaced: bool) -> None:
        line = "".join(self._line)
        line = line.rstrip() if self._preformatted else " ".join(line.split())
        self._line = []
        if line:
            self._lines.append(line)
        if spaced and self._lines and self._lines[-1]:
            self._lines.append("")
