"""Arguments and options of ``pop3cli sync``; what it does is in `pop3cli.sync`."""

from __future__ import annotations

from typing import Annotated

import typer

from pop3cli.cli.runner import run_work, warn
from pop3cli.errors import UsageFault
from pop3cli.exit_status import ExitStatus
from pop3cli.options import Options
from pop3cli.terminal.terminal import Terminal

__all__ = ["sync"]


def sync(
    ctx: typer.Context,
    accounts: Annotated[
        list[str],
        typer.Argument(metavar="ACCOUNT...", help="Names, or pop3s://user@host[:port]", show_default=False),
    ],
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="A Maildir, or FILE.mbox; {account} in it.", show_default=False)
    ],
    delete: Annotated[bool, typer.Option("--delete/--keep", help="Delete what was fetched; or keep it there.")] = False,
    delete_after: Annotated[
        str | None, typer.Option("--delete-after", metavar="TIME", help="Delete what was fetched so long ago: 30d.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    max_size: Annotated[
        str | None, typer.Option("--max-size", metavar="SIZE", help="Leave larger ones on the server: 25M.")
    ] = None,
    headers_only: Annotated[
        bool, typer.Option("--headers-only", help="Fetch headers alone, and delete nothing.")
    ] = False,
    filter_command: Annotated[
        str | None,
        typer.Option("--filter", metavar="CMD", help="Ask CMD about each: status 0 keep, 100 skip, 101 delete."),
    ] = None,
    filter_timeout: Annotated[
        float, typer.Option("--filter-timeout", metavar="SECONDS", min=0.1, help="How long CMD may take.")
    ] = 60.0,
    state: Annotated[
        str | None, typer.Option("--state", metavar="FILE", help="What remembers; {account} in it.")
    ] = None,
    watch: Annotated[str | None, typer.Option("--watch", metavar="TIME", help="Go on, every so often: 5m.")] = None,
    import_state: Annotated[
        tuple[str, str] | None,
        typer.Option("--import-state", metavar="PROGRAM FILE", help="Know first what mpop, getmail or fetchmail knew."),
    ] = None,
) -> int:
    """Fetch what is new into a Maildir or an mbox; what a cut or a crash interrupts goes on where it was."""

    def work(terminal: Terminal) -> ExitStatus:
        import asyncio  # these are slow to import, and only this command needs them

        from pop3cli.accounts.registry import find
        from pop3cli.sync.command import jobs_of, octets_of, seconds_of, sync_all
        from pop3cli.sync.filters import Filter
        from pop3cli.sync.output import Output
        from pop3cli.sync.plan import SyncOptions

        options: Options = ctx.obj
        warn(options, terminal)
        if delete and delete_after is not None:
            raise UsageFault("--delete and --delete-after", "one of them is meant")
        if headers_only and (delete or delete_after is not None):
            raise UsageFault("--headers-only", "nothing is deleted of which only the headers were fetched")
        age = 0.0 if delete else None if delete_after is None else seconds_of(delete_after, "--delete-after")
        most = None if max_size is None else octets_of(max_size, "--max-size")
        judge = None if filter_command is None else Filter(filter_command, filter_timeout)
        interval = None if watch is None else seconds_of(watch, "--watch")
        if interval is not None and (dry_run or interval < 1):
            raise UsageFault("--watch", "does not go with --dry-run, nor with no time at all")
        found = [find(text, options.settings) for text in accounts]
        jobs = jobs_of(found, destination, state, import_state)
        wishes = SyncOptions(age, most, headers_only, dry_run, judge)
        output = Output(terminal, json=options.json)
        status = asyncio.run(sync_all(jobs, wishes, output, interval, options.new_trace))
        if status is ExitStatus.INTERRUPTED:
            raise KeyboardInterrupt  # told as everywhere else
        return status

    return run_work(ctx.obj, work)
