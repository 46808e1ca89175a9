"""What can be said before and after every command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pop3cli.accounts.url import Settings

if TYPE_CHECKING:
    from pop3cli.net.trace import Trace

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """What can be said before and after every command.

    ``settings``: how the account is reached; ``new_trace``: of a connection, if any.
    """

    json: bool = False
    color: bool = True
    debug: bool = False
    settings: Settings = field(default_factory=Settings)
    new_trace: Callable[[], Trace | None] = lambda: None
