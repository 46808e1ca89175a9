"""``pop3cli stat``, ``uidl`` and ``list``: what there is in a mailbox."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from pop3cli.accounts.url import Account
from pop3cli.commands.message_table import NUMBER, as_json, count_of, gather, mail_table
from pop3cli.exit_status import ExitStatus
from pop3cli.mailbox.visit import logged_in
from pop3cli.net.session import Session
from pop3cli.options import Options
from pop3cli.terminal.tables import Column
from pop3cli.terminal.terminal import Terminal
from pop3cli.terminal.units import human_size

__all__ = ["list_messages", "stat", "uidl"]


def stat(account: Account, options: Options, terminal: Terminal) -> ExitStatus:
    """How many messages, how large together."""
    with logged_in(account, options) as visit:
        item = visit.do(visit.session.stat())
        visit.do(visit.session.quit())
    if options.json:
        terminal.json({"messages": item.messages, "octets": item.octets})
    else:
        size = f", {human_size(item.octets)}"
        terminal.line((count_of(item.messages), "strong"), size, (f" ({item.octets:,} octets)", "faint"))
    return ExitStatus.OK


def uidl(account: Account, options: Options, terminal: Terminal) -> ExitStatus:
    """Number and unique-id of each message."""
    with logged_in(account, options) as visit, ExitStack() as output:
        if options.json:
            add = output.enter_context(terminal.json_array())
            visit.do(_uidl(visit.session, lambda number, uid: add({"number": number, "uid": uid})))
        else:
            table = terminal.table((NUMBER, Column("Unique id", 20, share=1)))
            visit.do(_uidl(visit.session, lambda number, uid: table.row(str(number), uid)))
    return ExitStatus.OK


async def _uidl(session: Session, show: Callable[[int, str], None]) -> None:
    async for item in session.uidl():
        show(item.number, item.uid)
    await session.quit()


def list_messages(account: Account, options: Options, terminal: Terminal, last: int | None = None) -> ExitStatus:
    """From, Subject, Date and size of each message, or of the ``last`` ones: those are the newest, as a rule."""
    with logged_in(account, options) as visit, ExitStack() as output:
        if options.json:
            add = output.enter_context(terminal.json_array())
            outcome = visit.do(gather(visit.session, terminal, lambda *row: add(as_json(*row)), last))
        else:
            show = mail_table(terminal)
            outcome = visit.do(gather(visit.session, terminal, show, last))
    return outcome.tell(terminal)
