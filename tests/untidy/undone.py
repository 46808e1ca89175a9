"""Repairs of `pop3cli sync` taken back, one at a time: what the random walks must find by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pop3cli.errors import refusal
from pop3cli.mailbox.index import Index
from pop3cli.net.session import Session
from pop3cli.sync import mbox, plan
from pop3cli.sync.run import SyncRun
from pop3cli.sync.state import Kind, LogEntry, PendingAppend, SyncState
from pop3core.commands import Dele
from pop3core.events import Replied


def mbox_room(patch: pytest.MonkeyPatch) -> None:
    """An append grows as it is written, and is cut back unless a line behind it begins another program's message."""

    def claim(fd: int, pending: PendingAppend) -> None:
        mbox.os.pwrite(fd, b"\n" * pending.padding, pending.offset)

    def cut_back(fd: int, pending: PendingAppend) -> bool:
        ours = f"From pop3cli-{pending.token} ".encode()
        tail = mbox.os.pread(fd, 1 << 20, pending.offset)
        if any(line.startswith(b"From ") and not line.startswith(ours) for line in tail.splitlines()):
            return False
        mbox.os.ftruncate(fd, pending.offset)
        return True

    patch.setattr(mbox, "_claim", claim)
    patch.setattr(mbox, "_cut_back", cut_back)


def reused_ids(patch: pytest.MonkeyPatch) -> None:
    """A unique-id that is known names the message that is known."""

    def forget(self: SyncState, uids: Iterable[str], now: int) -> None:
        self._move(((uid, False) for uid in uids), now)

    def doubtful(entry: LogEntry) -> bool:
        return entry.kind is Kind.ODD

    patch.setattr(SyncState, "forget", forget)
    patch.setattr(plan, "_doubtful", doubtful)


def refused_deletions(patch: pytest.MonkeyPatch) -> None:
    """What is asked of the server is changed while it is asked."""

    async def delete(self: SyncRun, session: Session, index: Index, uids: list[str]) -> list[str]:
        by_number = {index.places[uid].number: uid for uid in uids}
        async for said in session.pipeline(Dele(number) for number in by_number):
            if isinstance(said, Replied) and isinstance(said.command, Dele) and not said.ok:
                self.report.problem(str(refusal(session.where, said)))
                del by_number[said.command.number]
        return list(by_number.values())

    patch.setattr(SyncRun, "_delete", delete)


def quit_in_doubt(patch: pytest.MonkeyPatch) -> None:
    """What a QUIT without an answer was to remove is still taken for the message that is known."""
    patch.setattr(SyncState, "leaving", lambda *_: None)


def lost_state(patch: pytest.MonkeyPatch) -> None:
    """A file under the name of a unique-id is the message that has the id now."""
    from pop3cli.sync import maildir

    class Sure:
        def __call__(self, *arguments: Any, away: bool = False, **named: Any) -> LogEntry:
            return LogEntry(*arguments, **named)

    patch.setattr(maildir, "LogEntry", Sure())


UNDO: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "mbox-room": mbox_room,
    "reused-ids": reused_ids,
    "refused-deletions": refused_deletions,
    "quit-in-doubt": quit_in_doubt,
    "lost-state": lost_state,
}
