"""What `pop3d import` reads from: an mbox file, a Maildir, or a mailbox on another POP3 server."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.stores.arriving import MailSource, SourceUnusable
from pop3d.stores.maildir.source import MaildirSource
from pop3d.stores.mbox_source import MboxSource
from pop3d.uidl_format import UidSource

__all__ = ["PASSWORD_VARIABLE", "ImportOptions", "Opener", "is_url", "opener_of", "source_fault", "source_password"]

PASSWORD_VARIABLE: Final = "POP3D_IMPORT_PASSWORD"  # noqa: S105 - the variable's name
"""The variable of the environment that the other server's password is taken from."""

Opener: TypeAlias = Callable[[], MailSource]
"""Opens a source. Raises `pop3d.stores.arriving.SourceUnusable`."""

_SETTING = re.compile(r"`(\w+)(?:=([A-Z]+))?`")  # as the client's library names settings


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What can be said of a source, and of an import.

    ``uidl``, ``control``: see `pop3d.stores.maildir.source.MaildirSource`; ``x_uidl``: see
    `pop3d.stores.mbox_source.MboxSource`; ``cacert``, ``pins``: see `pop3d.stores.upstream.source.login_plan`;
    ``password_command``: prints the other server's password; ``again``: what earlier runs have imported counts no more.
    """

    uidl: UidSource | None = None
    control: str | None = None
    x_uidl: bool = False
    cacert: Path | None = None
    pins: tuple[str, ...] = ()
    password_command: str | None = None
    again: bool = False


def is_url(source: str) -> bool:
    """Whether a source is on another server."""
    return "://" in source


def source_password(whose: str, options: ImportOptions) -> bytes:
    """The password for another server; may ask at the terminal. Raises `CommandError`."""
    from pop3d.stores.upstream.source import password_of  # speaks POP3, which files do not need

    try:
        return password_of(options.password_command, PASSWORD_VARIABLE, whose)
    except SourceUnusable as fault:
        raise source_fault(fault) from None


def opener_of(source: str, options: ImportOptions, password: Callable[[], bytes]) -> Opener:
    """What opens a source later. What it takes to get into another server is read now: this process may become a user
    who may not.

    ``password``: for another server. Raises `CommandError`.
    """
    if not is_url(source):
        return lambda: _from_path(Path(source), options)
    from pop3d.stores.upstream.source import Pop3Source, login_plan

    try:
        plan = login_plan(source, password, cacert=options.cacert, pins=options.pins)
    except SourceUnusable as fault:
        raise source_fault(fault) from None
    return lambda: Pop3Source(plan)


def _from_path(path: Path, options: ImportOptions) -> MailSource:
    if os.path.isdir(path):
        return MaildirSource(path, uidl=options.uidl, control=options.control)
    return MboxSource(path, x_uidl=options.x_uidl)


def source_fault(fault: SourceUnusable) -> CommandError:
    """A source that cannot be used, as an error of the command: settings are its options."""
    text = _SETTING.sub(_as_option, str(fault)).replace("POP3CLI_PASSWORD", PASSWORD_VARIABLE)
    return CommandError(text, ExitStatus(fault.status))


def _as_option(found: re.Match[str]) -> str:
    option = f"--{found[1].replace('_', '-')}"
    return f"{option} {found[2]}" if found[2] else option
