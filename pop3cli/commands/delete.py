"""``pop3cli delete``: all messages that are named, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pop3cli.accounts.url import Account
from pop3cli.commands.message_table import Row, count_of, mail_table
from pop3cli.errors import NoSuchMessage, Refused, UsageFault
from pop3cli.exit_status import ExitStatus
from pop3cli.mailbox.visit import Visit, logged_in
from pop3cli.message.reading import summarize
from pop3cli.net.session import Session
from pop3cli.options import Options
from pop3cli.terminal.terminal import Terminal

__all__ = ["delete"]

_NAMED_MAX: Final = 20
"""Messages that are named before they are deleted; of more, only how many."""


def delete(account: Account, numbers: Sequence[int], options: Options, terminal: Terminal, *, yes: bool) -> ExitStatus:
    """Delete messages: all that are named, or none."""
    if not yes and not terminal.can_ask:
        raise UsageFault("delete", "there is no terminal to ask at", "give --yes to delete without being asked")
    wanted = sorted(set(numbers))
    with logged_in(account, options) as visit:
        sizes = visit.do(_check(visit.session, wanted))
        if not yes and not _confirmed(visit, account, sizes, terminal):
            visit.do(visit.session.quit())
            terminal.line("nothing was deleted")
            return ExitStatus.SOME_FAILED
        visit.do(_mark(visit.session, wanted))  # RFC 1939 §8: nothing is left to the server's own tidying
        visit.do(visit.session.quit())  # RFC 1939 §6: only this removes them, and only its +OK says so
    if options.json:
        terminal.json({"deleted": wanted})
    else:
        terminal.line((f"{count_of(len(wanted))} deleted", "ok"))
    return ExitStatus.OK


async def _check(session: Session, wanted: Sequence[int]) -> dict[int, int]:
    """The sizes of the messages wanted. Raises `NoSuchMessage` unless all are there."""
    missing = set(wanted)
    sizes = {item.number: item.octets async for item in session.list() if item.number in missing}
    missing -= sizes.keys()
    if missing:
        named = ", ".join(map(str, sorted(missing)[:_NAMED_MAX]))
        raise NoSuchMessage(f"message {named}", "no such message", "nothing was deleted", code=None, text="")
    return sizes


def _confirmed(visit: Visit, account: Account, sizes: dict[int, int], terminal: Terminal) -> bool:
    if len(sizes) <= _NAMED_MAX:
        visit.do(_name_them(visit.session, sizes, mail_table(terminal, aside=True)))
    question = f"Delete {'this' if len(sizes) == 1 else 'these'} {count_of(len(sizes))} of {account.name}? [y/N] "
    return terminal.ask(question) in ("y", "yes")


async def _name_them(session: Session, sizes: dict[int, int], show: Row) -> None:
    async for number, headers in session.headers(sorted(sizes)):
        show(number, sizes[number], summarize(headers) if isinstance(headers, bytes) else None)


async def _mark(session: Session, wanted: Sequence[int]) -> None:
    try:
        for number in wanted:
            await session.dele(number)
    except Refused as fault:
        fault.add_note("nothing was deleted")
        raise
