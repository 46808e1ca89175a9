"""Tables whose rows are shown as they come, on a terminal as wide as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Final

from pop3cli.sanitize import sanitized

if TYPE_CHECKING:  # rich is slow to import, and plain output does without
    from rich.text import Text

__all__ = ["Column", "Table"]

_NARROWEST: Final = 8  # columns of a cell that shares the width


@dataclass(frozen=True, slots=True)
class Column:
    """A column. ``width``: at least so many; ``share``: of what a terminal has left, above that; ``narrowest``: on
    terminals of fewer columns than this it is left out."""

    title: str
    width: int
    style: str = ""
    share: int = 0
    right: bool = False
    narrowest: int = 0


class Table:
    """Rows in columns that are as wide as the terminal allows, and known beforehand: no row waits for another.

    On a terminal what does not fit is cut, with an ellipsis; elsewhere nothing is.
    """

    def __init__(self, columns: Sequence[Column], width: int | None, show: Callable[[Text], None]) -> None:
        self._seen = [width is None or column.narrowest <= width for column in columns]
        self._columns = columns = list(compress(columns, self._seen))
        self._widths = [column.width for column in columns] if width is None else _widths(columns, width)
        self._cut = width is not None
        self._show = show
        self._begun = False

    def row(self, *cells: str | tuple[str, str]) -> None:
        """Show a row; cells are foreign text, or such text and a style of its own."""
        if not self._begun:
            self._begun = True
            self._show(self._joined([column.title for column in self._columns], ["title"] * len(self._columns)))
        shown = zip(compress(cells, self._seen), self._columns, strict=True)
        styled = [(cell, column.style) if isinstance(cell, str) else cell for cell, column in shown]
        self._show(self._joined([text for text, _ in styled], [style for _, style in styled]))

    def _joined(self, cells: Sequence[str], styles: Sequence[str]) -> Text:
        from rich.text import Text

        row = Text()
        for column, width, cell, style in zip(self._columns, self._widths, cells, styles, strict=True):
            text = Text(sanitized(cell), style=style)
            if self._cut:
                text.truncate(width, overflow="ellipsis")
            missing = max(width - text.cell_len, 0)
            row.append(" " * missing if column.right else "")
            row.append_text(text)
            row.append(" " * (2 + (0 if column.right else missing)))
        row.rstrip()
        if self._cut:
            row.truncate(sum(self._widths) + 2 * (len(self._widths) - 1), overflow="crop")
        return row


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    fixed = sum(column.width for column in columns if not column.share) + 2 * (len(columns) - 1)
    shares = sum(column.share for column in columns)
    left = max(width - fixed, 0)
    return [max(left * c.share // shares, _NARROWEST) if c.share else c.width for c in columns]
