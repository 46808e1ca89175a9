"""What to do about a file that this process may not read."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
from pathlib import Path

__all__ = ["let_us_read", "our_name", "which_folder_is_closed"]


def our_name() -> str:
    """Who this process is, for a line of text: ``'vmail'``, or ``user 999``."""
    try:
        return repr(pwd.getpwuid(os.geteuid()).pw_name)
    except KeyError:
        return f"user {os.geteuid()}"


def which_folder_is_closed(path: Path) -> Path | None:
    """The first folder on the way to a file that this process may not enter."""
    effective = os.access in os.supports_effective_ids
    for folder in (above for place in (path, Path(os.path.realpath(path))) for above in reversed(place.parents)):
        if folder.exists() and not os.access(folder, os.X_OK, effective_ids=effective):
            return folder
    return None


def let_us_read(path: Path) -> str:
    """What root has to say for a file that gave *Permission denied*: a command that works as it is."""
    folder = which_folder_is_closed(path.absolute())
    place, mode = (path, "0640") if folder is None else (folder, "0750")
    what = "read it" if folder is None else f"enter {folder}"
    quoted = shlex.quote(str(place))
    return f"let {our_name()} {what}: chgrp {_our_group()} {quoted} && chmod {mode} {quoted}"


def _our_group() -> str:
    try:
        return shlex.quote(grp.getgrgid(os.getegid()).gr_name)
    except KeyError:
        return str(os.getegid())
