"""What a run tells: a line for each account, remarks on standard error, and on a terminal how far it is."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from pop3cli.exit_status import ExitStatus
from pop3cli.options import error_text
from pop3cli.sync.plan import SyncOptions
from pop3cli.sync.run import PROBLEMS_MAX, SyncReport
from pop3cli.terminal.progress import Meter
from pop3cli.terminal.terminal import Terminal
from pop3cli.terminal.units import human_size

__all__ = ["Output", "status_of"]


def status_of(report: SyncReport) -> ExitStatus:
    """How a run ended."""
    if report.error is not None:
        return report.error.status
    return ExitStatus.SOME_FAILED if report.left else ExitStatus.OK


class Output:
    """Reports, as text or (``json``) as lines of JSON; and one bar for all accounts, while the block lasts."""

    def __init__(self, terminal: Terminal, *, json: bool) -> None:
        self._terminal, self._json = terminal, json
        self._stack = ExitStack()
        self.meter: Meter

    def __enter__(self) -> Self:
        self.meter = self._stack.enter_context(self._terminal.progress("sync", 0))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def tell(self, name: str, report: SyncReport, wishes: SyncOptions) -> None:
        """How a run went. Raises `OutputFailed`."""
        self.meter.stop()
        if self._json:
            self._terminal.json(as_json(name, report, wishes))
        else:
            self._terminal.line((f"{name}: ", "label"), "; ".join(_words(report, wishes)))
        for text in [*report.remarks, *report.problems]:
            self._terminal.note(f"{name}: {text}")
        if report.left > len(report.problems):
            self._terminal.note(f"{name}: and {report.left - PROBLEMS_MAX:,} more")
        if report.error is not None:
            self._terminal.error(f"{name}: {error_text(report.error)}")
        self._terminal.flush()


def _words(report: SyncReport, wishes: SyncOptions) -> list[str]:
    if wishes.dry_run:
        words = [f"{_messages(len(report.would_fetch))} to fetch, {len(report.would_delete):,} to delete"]
    elif report.fetched:
        words = [f"{_messages(report.fetched)} fetched, {human_size(report.octets)}"]
    else:
        words = ["nothing fetched" if report.error else "nothing new"]
    numbers = {"deleted": report.deleted, "refused by the filter": report.skipped, "too large": report.too_large}
    return words + [f"{number:,} {what}" for what, number in {**numbers, "left": report.left}.items() if number]


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"


def as_json(name: str, report: SyncReport, wishes: SyncOptions) -> dict[str, Any]:
    """A report for programs; docs/client.md has the names."""
    row: dict[str, Any] = {"account": name, "status": status_of(report).value}
    if wishes.dry_run:
        row |= {"fetch": report.would_fetch, "delete": report.would_delete}
    else:
        row |= {"fetched": report.fetched, "octets": report.octets, "deleted": report.deleted}
        row |= {"skipped": report.skipped}
    row |= {"too_large": report.too_large, "left": report.left, "problems": report.problems}
    return row | {"error": None if report.error is None else error_text(report.error)}
