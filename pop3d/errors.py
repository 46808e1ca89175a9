"""What a command raises when it cannot go on."""

from __future__ import annotations

from pop3d.exit_status import ExitStatus

__all__ = ["CommandError"]


class CommandError(Exception):
    """One line, or one line per fault: what failed, why, what to do. ``status``: what the process ends with."""

    def __init__(self, text: str, status: ExitStatus) -> None:
        super().__init__(text)
        self.status = status
