"""A secret of this site's own: salts of users who do not exist are made from it, and hashes of users who are known.

It lies in ``keep/`` of the state folder. Without it, or where it cannot be written, there is a new one at each start:
then a name's salt changes, by which one could tell that there is no such user, and nobody is known any more.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

from pop3d.system.folders import written_inside
from pop3d.system.state_folder import KEEP, opened_part, prepare

__all__ = ["secret_of"]

log = logging.getLogger("pop3d.secret")

_NAME: Final = "secret"
_OCTETS: Final = 32


def secret_of(state: Path) -> bytes:
    """32 octets, made when they are not there; that of version 0.1 is moved. Blocking: for the start."""
    try:
        prepare(state)
        with opened_part(state, KEEP) as keep:
            return _kept(_NAME, keep) or _made(keep)
    except OSError as fault:
        with contextlib.suppress(OSError):
            if old := _kept(state / _NAME):
                return old  # of version 0.1, and it could not be moved
        what = "salts of unknown users change, and known ones are forgotten, at each start"
        log.warning("%s: %s; %s", state / KEEP / _NAME, fault.strerror, what)
    return os.urandom(_OCTETS)


def _made(keep: int) -> bytes:
    made = os.urandom(_OCTETS)

    def give_away(descriptor: int) -> None:
        if os.geteuid() == 0:
            folder = os.fstat(keep)
            os.fchown(descriptor, folder.st_uid, folder.st_gid)  # whom we become

    with written_inside(keep, _NAME, made, finish=give_away) as new:
        try:
            os.link(new, _NAME, src_dir_fd=keep, dst_dir_fd=keep)  # of processes that start at once the first wins
        except FileExistsError:
            if kept := _kept(_NAME, keep):
                return kept
            os.replace(new, _NAME, src_dir_fd=keep, dst_dir_fd=keep)  # what was there is torn
    os.fsync(keep)
    return made


def _kept(name: str | Path, folder: int | None = None) -> bytes | None:
    """The secret in the file ``name``, in the folder of that descriptor; None when there is none. Raises OSError."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        kept = file.read(_OCTETS + 1)
    return kept if len(kept) == _OCTETS else None
