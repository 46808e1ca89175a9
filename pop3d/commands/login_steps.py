"""What `pop3d user test` shows, step by step; what it asks for; and what it overhears of the daemon's parts."""

from __future__ import annotations

import getpass
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.text import Text

from pop3d.auth.passwords import PASSWORD_OCTETS_MAX
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.observe.log import sanitized

__all__ = ["LoginSteps", "overheard", "secret_asked_for"]

_TOKEN_OCTETS_MAX: Final = 12 * 1024  # octets of a token, as the engine takes them


@dataclass(slots=True)
class LoginSteps:
    """Shows each step when it is done."""

    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))

    def ok(self, name: str, text: str) -> None:
        """It would be passed."""
        self._show("ok", "green", name, text)

    def note(self, name: str, text: str) -> None:
        """Neither right nor wrong."""
        self._show("-", "", name, text)

    def failed(self, name: str, text: str) -> None:
        """It would not."""
        self._show("failed", "bold red", name, text)

    def _show(self, word: str, style: str, name: str, text: str) -> None:
        if self.console.is_terminal:
            self.console.print(Text.assemble((f"{word:<6}", style), f"  {name:<10}  ", sanitized(text)))
        else:
            print(f"{word}\t{name}\t{sanitized(text)}", flush=True)


def secret_asked_for(name: str, what: str, *, from_stdin: bool) -> bytes:
    """A password or token (``what``), from standard input or a terminal, octets as typed. Raises `CommandError`."""
    if from_stdin:
        most = _TOKEN_OCTETS_MAX if what == "token" else PASSWORD_OCTETS_MAX
        octets = sys.stdin.buffer.readline(most + 2).rstrip(b"\r\n")
        if len(octets) > most:
            raise CommandError(f"the {what} has more than {most} octets", ExitStatus.DATAERR)
        return octets
    if not sys.stdin.isatty():
        raise CommandError(f"no terminal to ask for the {what} on; use --password-stdin", ExitStatus.USAGE)
    try:
        return getpass.getpass(f"{what.capitalize()} for {name}: ").encode("utf-8", "surrogateescape")
    except EOFError:
        raise CommandError(f"no {what} was given", ExitStatus.USAGE) from None


class _Hearing(logging.Handler):
    """Keeps what the parts of the daemon log: to the client they tell less."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__()
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.append(record.getMessage())


@contextmanager
def overheard() -> Iterator[list[str]]:
    """Collects what is logged, which is shown beside the step that it belongs to."""
    log, heard = logging.getLogger("pop3d"), list[str]()
    handler, before = _Hearing(heard), (log.level, log.propagate)
    log.addHandler(handler)
    log.setLevel("INFO")
    log.propagate = False
    try:
        yield heard
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before
