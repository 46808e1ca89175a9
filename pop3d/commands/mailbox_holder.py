"""Who has a mailbox: the process by its lock, and the session, where a daemon that runs tells."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from pop3d.config import Config
from pop3d.control.client import NoAnswer, NoDaemon, ask

__all__ = ["MailboxHolder", "holder_of"]


@dataclass(frozen=True, slots=True)
class MailboxHolder:
    """``pid``: the process that has the lock, of a database: its own; ``node``: the address of whose connection it is.

    ``address`` and ``since`` (seconds since 1970): of the session, where the daemon of this state folder has it. None:
    not known.
    """

    pid: int | None = None
    node: str | None = None
    address: str | None = None
    since: float | None = None

    def __str__(self) -> str:
        from pop3d.commands.asking import iso

        parts = [f"process {self.pid}"] if self.pid is not None else []
        if self.node is not None:
            parts.append(f"of {self.node}")
        if self.address is not None:
            parts.append(f"session from {self.address}")
        if self.since is not None:
            parts.append(f"since {iso(self.since)}")
        return ", ".join(parts) or "not known"


def holder_of(config: Config, user: str, pid: int | None, node: str | None = None) -> MailboxHolder:
    """What is known of the holder of a user's mailbox, which is locked."""
    with contextlib.suppress(NoDaemon, NoAnswer, OSError):
        for answer in ask(config.state, {"ask": "who", "whom": user}):
            for line in answer.lines:
                if line.get("user") == user:
                    return MailboxHolder(pid, node, str(line.get("address")), line.get("since"))
    return MailboxHolder(pid, node)
