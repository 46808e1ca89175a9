"""What can be said before and after every command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pop3cli.trace import Trace

__all__ = ["TIMEOUT", "Options"]

TIMEOUT: Final = 60.0
"""Seconds the server may take for each thing, unless said otherwise."""


@dataclass(frozen=True, slots=True)
class Options:
    """What can be said before and after every command. ``timeout``: seconds; ``new_trace``: of a connection, if any."""

    json: bool = False
    color: bool = True
    cacert: Path | None = None
    timeout: float = TIMEOUT
    password_command: str | None = None
    debug: bool = False
    new_trace: Callable[[], Trace | None] = lambda: None
