"""`pop3d deliver`: one message from standard input into a user's mailbox."""

from __future__ import annotations

import sys
from pathlib import Path

from pop3d.commands.recipient import delivery_faults, recipient
from pop3d.stores import mbox

__all__ = ["deliver_stdin"]


def deliver_stdin(user: str, config: Path | None) -> None:
    """Deliver one message from standard input. Raises `CommandError`."""
    mailbox = recipient(user, config)
    with delivery_faults():
        mailbox.deliver(mbox.without_from_line(sys.stdin.buffer))
