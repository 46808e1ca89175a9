"""What can be said before and after every command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["TIMEOUT", "Options"]

TIMEOUT: Final = 60.0
"""Seconds the server may take for each thing, unless said otherwise."""


@dataclass(frozen=True, slots=True)
class Options:
    """What can be said before and after every command. ``timeout``: seconds."""

    json: bool = False
    color: bool = True
    cacert: Path | None = None
    timeout: float = TIMEOUT
    password_command: str | None = None
    debug: bool = False
