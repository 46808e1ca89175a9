"""Messages in a list: From, Subject, Date and size of many, by LIST and pipelined TOP, as they come."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pop3cli.errors import Refused
from pop3cli.exit_status import ExitStatus
from pop3cli.message.reading import MessageSummary, summarize
from pop3cli.net.session import Session
from pop3cli.terminal.tables import Column
from pop3cli.terminal.terminal import Terminal
from pop3cli.terminal.units import human_date, human_size

__all__ = ["LIST_LAST", "NUMBER", "Row", "TableOutcome", "as_json", "count_of", "gather", "mail_table"]

_UINT64: Final = 2**64 - 1


def count_of(count: int) -> str:
    """So many messages, in words."""
    return "1 message" if count == 1 else f"{count:,} messages"


@dataclass(slots=True)
class TableOutcome:
    """How a listing went. ``refused``: why the headers of the last of ``failed`` messages were refused."""

    rows: int = 0
    failed: int = 0
    refused: Refused | None = None
    without_top: bool = False

    def tell(self, terminal: Terminal) -> ExitStatus:
        """Say what was refused, if anything was; the status."""
        if self.refused is None:
            return ExitStatus.OK
        if self.without_top:
            terminal.note(f"this server shows no headers: {self.refused}")
            return ExitStatus.OK
        terminal.note(f"the headers of {self.failed} of {count_of(self.rows)} were refused: {self.refused}")
        return ExitStatus.SOME_FAILED


Row = Callable[[int, int, MessageSummary | None], None]
"""Shows number, octets and summary of a message; no summary where its headers were refused."""


async def gather(
    session: Session, terminal: Terminal, show: Row, last: int | None = None, *, quietly: bool = False
) -> TableOutcome:
    """Size and headers of all messages, or of the ``last`` ones, by LIST and TOP; ends the session.

    ``quietly``: ``show`` writes nothing, so that progress may be shown on the same terminal.
    """
    numbers, sizes = array("Q"), array("Q")  # 16 octets a message, however many the server claims to have
    async for item in session.list():
        numbers.append(min(item.number, _UINT64))
        sizes.append(min(item.octets, _UINT64))
    if last is not None and (above := len(numbers) - last) > 0:
        terminal.note(f"the last {last:,} of {len(numbers):,} messages; --all shows all")
        del numbers[:above], sizes[:above]
    outcome = TableOutcome()
    with terminal.progress("headers", len(numbers), octets=False, alone=quietly) as meter:
        async for number, headers in session.headers(numbers):
            if isinstance(headers, bytes):
                show(number, sizes[outcome.rows], summarize(headers))
            else:
                show(number, sizes[outcome.rows], None)
                outcome.failed, outcome.refused = outcome.failed + 1, headers
            outcome.rows += 1
            meter.advance(1)
    outcome.without_top = outcome.failed == outcome.rows and "TOP" not in session.capabilities
    await session.quit()
    return outcome


LIST_LAST: Final = 200
"""Messages that `list` shows a person who does not say how many."""

NUMBER: Final = Column("No", 6, "number", right=True)
"""The column of message numbers."""

_COLUMNS: Final = (
    NUMBER,
    Column("From", 28, share=2),
    Column("Subject", 40, "strong", share=3),
    Column("Date", 16, "faint", narrowest=70),
    Column("Size", 10, "label", right=True, narrowest=50),
)


def mail_table(terminal: Terminal, *, aside: bool = False) -> Row:
    """A table of messages; ``aside``: on standard error."""
    table = terminal.table(_COLUMNS, aside=aside)

    def show(number: int, octets: int, summary: MessageSummary | None) -> None:
        seen = summary or MessageSummary("", "", None, "")
        date = human_date(seen.date) if seen.date is not None else seen.date_text
        table.row(str(number), seen.sender, seen.subject, date, human_size(octets))

    return show


def as_json(number: int, octets: int, summary: MessageSummary | None) -> dict[str, Any]:
    """A row for programs."""
    row: dict[str, Any] = {"number": number, "octets": octets}
    if summary is not None:
        date = summary.date.isoformat() if summary.date is not None else None
        row |= {"from": summary.sender, "subject": summary.subject, "date": date}
    return row
