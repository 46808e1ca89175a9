"""A bar that shows how far long work is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from pop3cli.sanitize import sanitized
from pop3cli.terminal.units import human_size

if TYPE_CHECKING:  # rich is slow to import, and short work does without
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["Meter"]

_SOON: Final = 0.5  # seconds of work before a progress bar is worth showing


class Meter:
    """How far the work is."""

    def __init__(self, label: str, total: int, octets: bool, console: Console | None) -> None:
        self._label, self._total, self._octets, self._console = label, total, octets, console
        self._began = time.monotonic()
        self._done = 0
        self._bar: Progress | None = None

    def expect(self, more: int) -> None:
        """So much is to be done beside what was known."""
        self._total += more

    def advance(self, more: int) -> None:
        """So much more is done."""
        self._done += more
        if self._bar is None and self._console is not None and time.monotonic() - self._began > _SOON:
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                MofNCompleteColumn,
                Progress,
                ProgressColumn,
                Task,
                TextColumn,
                TimeRemainingColumn,
            )
            from rich.text import Text

            class Speed(ProgressColumn):  # rich's own counts in powers of 1000, beside sizes in powers of 1024
                def render(self, task: Task) -> Text:
                    speed = task.finished_speed or task.speed
                    return Text(f"{human_size(int(speed))}/s" if speed else "", style="progress.data.speed")

            counted = (DownloadColumn(binary_units=True), Speed()) if self._octets else (MofNCompleteColumn(),)
            columns = (TextColumn("{task.description}"), BarColumn(), *counted, TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.add_task(sanitized(self._label), total=self._total)
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, total=self._total)

    def stop(self) -> None:
        """The work has ended, or something else is to be shown; nothing of the bar stays."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
