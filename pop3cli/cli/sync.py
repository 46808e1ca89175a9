"""Words and options of ``pop3cli sync``; `pop3cli.sync` is what is done about them."""

from __future__ import annotations

from typing import Annotated

import typer

from pop3cli.cli.runner import run_work, warn
from pop3cli.exit_status import ExitStatus
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
    judge: Annotated[
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
    from pop3cli.sync.app import Words, run_sync

    words = Words(
        delete, delete_after, dry_run, max_size, headers_only, judge, filter_timeout, state, watch, import_state
    )

    def work(terminal: Terminal) -> ExitStatus:
        warn(ctx.obj, terminal)
        return run_sync(accounts, destination, words, ctx.obj, terminal)

    return run_work(ctx.obj, work)
