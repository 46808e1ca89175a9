"""``pop3cli stats``: who and what fills the mailbox, as bars in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pop3cli.accounts.url import Account
from pop3cli.commands.message_table import count_of, gather
from pop3cli.exit_status import ExitStatus
from pop3cli.mailbox.visit import logged_in
from pop3cli.message.statistics import Share, Statistics
from pop3cli.options import Options
from pop3cli.terminal.tables import Column
from pop3cli.terminal.terminal import Terminal
from pop3cli.terminal.units import human_size

__all__ = ["TOP", "stats"]

TOP: Final = 10
"""Senders, and months, that are shown unless said otherwise."""

_BAR: Final = 20  # columns
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def stats(account: Account, options: Options, terminal: Terminal, top: int = TOP) -> ExitStatus:
    """Count all messages by sender, month and size. SOME_FAILED where headers were refused."""
    found = Statistics()
    with logged_in(account, options) as visit:
        outcome = visit.do(gather(visit.session, terminal, found.add, quietly=True))
    if options.json:
        terminal.json(found.as_json())
        return outcome.tell(terminal)
    total = found.total
    average = f", {human_size(total.octets // total.messages)} on average" if total.messages else ""
    terminal.line((count_of(total.messages), "strong"), f", {human_size(total.octets)}{average}")
    if total.messages:
        _draw("Senders", found.by_octets(top), terminal)
        _draw("Months", found.by_month(top), terminal)
        _draw("Sizes", list(found.sizes.items()), terminal)
        _largest(found, terminal)
    return outcome.tell(terminal)


def _draw(title: str, shares: Sequence[tuple[str, Share]], terminal: Terminal) -> None:
    """A table with a bar for each row, as long as its octets' part of the most."""
    terminal.line()
    table = terminal.table(
        (
            Column(title, 28, share=1),
            Column("Messages", 9, "number", right=True, narrowest=60),
            Column("Size", 10, "label", right=True),
            Column("", _BAR, "ok", narrowest=70),
        )
    )
    most = max((share.octets for _, share in shares), default=0)
    fine = terminal.can_show(_EIGHTHS)
    for name, share in shares:
        table.row(name, f"{share.messages:,}", human_size(share.octets), bar(share.octets, most, fine=fine))


def bar(part: int, most: int, *, fine: bool = True) -> str:
    """A bar of up to 20 columns; the smallest part of anything is seen. Not ``fine``: of ASCII."""
    if not part or not most:
        return ""
    if not fine:
        return "#" * max(part * _BAR // most, 1)
    eighths = max(part * _BAR * 8 // most, 1)
    return _EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _largest(found: Statistics, terminal: Terminal) -> None:
    terminal.line()
    table = terminal.table(
        (
            Column("Largest", 7, "number", right=True),
            Column("Size", 10, "label", right=True),
            Column("From", 24, share=2, narrowest=60),
            Column("Subject", 30, "strong", share=3),
        )
    )
    for number, octets, sender, subject in found.biggest():
        table.row(str(number), human_size(octets), sender, subject)
