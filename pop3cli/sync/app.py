"""The words of the command line, as what `pop3cli.sync.command` is told to do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from pop3cli.accounts.registry import find
from pop3cli.errors import UsageFault
from pop3cli.exit_status import ExitStatus
from pop3cli.options import Options
from pop3cli.sync.command import jobs_of, octets_of, seconds_of, sync
from pop3cli.sync.filters import Filter
from pop3cli.sync.output import Output
from pop3cli.sync.plan import Wishes
from pop3cli.terminal.terminal import Terminal

__all__ = ["Words", "run_sync"]


@dataclass(frozen=True, slots=True)
class Words:
    """Options as they were said."""

    delete: bool
    delete_after: str | None
    dry_run: bool
    max_size: str | None
    headers_only: bool
    judge: str | None
    filter_timeout: float
    state: str | None
    watch: str | None
    import_state: tuple[str, str] | None


def run_sync(
    accounts: Sequence[str], destination: str, words: Words, options: Options, terminal: Terminal
) -> ExitStatus:
    """Do what was said. What can be wrong on our side is found before a connection is made."""
    wishes = _wishes(words)
    watch = None if words.watch is None else seconds_of(words.watch, "--watch")
    if watch is not None and (words.dry_run or watch < 1):
        raise UsageFault("--watch", "does not go with --dry-run, nor with no time at all")
    found = [find(text, options.settings) for text in accounts]
    jobs = jobs_of(found, destination, words.state, words.import_state)
    output = Output(terminal, json=options.json)
    status = asyncio.run(sync(jobs, wishes, output, watch, options.new_trace))
    if status is ExitStatus.INTERRUPTED:
        raise KeyboardInterrupt  # told as everywhere else
    return status


def _wishes(words: Words) -> Wishes:
    if words.delete and words.delete_after is not None:
        raise UsageFault("--delete and --delete-after", "one of them is meant")
    if words.headers_only and (words.delete or words.delete_after is not None):
        raise UsageFault("--headers-only", "nothing is deleted of which only the headers were fetched")
    delete_after = 0.0 if words.delete else None
    if words.delete_after is not None:
        delete_after = seconds_of(words.delete_after, "--delete-after")
    max_size = None if words.max_size is None else octets_of(words.max_size, "--max-size")
    judge = None if words.judge is None else Filter(words.judge, words.filter_timeout)
    return Wishes(delete_after, max_size, words.headers_only, words.dry_run, judge)
