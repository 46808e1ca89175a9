"""What `pop3d check` finds: one line for each, made of where, what, and what to do."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CheckFinding", "counted", "fault", "mode_faults", "warning"]


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One line. ``fault``: else it is a warning."""

    fault: bool
    text: str


def fault(where: object, what: str, remedy: str) -> CheckFinding:
    """Something that keeps the daemon from serving, or somebody from the mail, or shows a secret."""
    return CheckFinding(True, f"{where}: {what}; {remedy}")


def warning(where: object, what: str, remedy: str) -> CheckFinding:
    """Something less."""
    return CheckFinding(False, f"{where}: {what}; {remedy}")


def mode_faults(path: Path, what: str) -> Iterator[CheckFinding]:
    """Whether everybody on this machine gets at a file, which holds ``what``."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return  # told by whoever reads it
    if mode & stat.S_IRWXO:
        yield fault(
            path, f"everybody on this machine gets at {what} (mode {mode:04o})", f"chmod o= {shlex.quote(str(path))}"
        )


def counted(number: int, word: str) -> str:
    """``1 fault``, ``2 faults``, ``no faults``."""
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
