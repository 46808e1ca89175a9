"""Folders below one that is open: opened without following a link, or made so that a power cut leaves them there.

Blocking code.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Final

__all__ = ["FOLDER", "open_inside", "open_or_make_inside"]

FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
"""Flags that open a folder to be read, synced and worked in by its descriptor."""

_MODE: Final = 0o700  # of folders that are made: what is in them is for their owner alone


def open_inside(folder: int, name: str | bytes) -> int:
    """A descriptor of the folder ``name`` in ``folder``. Raises OSError; NotADirectoryError where it is a link."""
    try:
        return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except NotADirectoryError:
        what = f"{os.fsdecode(name)}/ is not a folder of its own, but a file or a symbolic link"
        raise NotADirectoryError(errno.ENOTDIR, what) from None


def open_or_make_inside(folder: int, name: str | bytes) -> int:
    """The same, of a folder that is made when it is not there: with mode 0700, and durable. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        return open_inside(folder, name)
    made = True
    try:
        os.mkdir(name, _MODE, dir_fd=folder)
    except FileExistsError:  # another process was quicker; both see to it that it stays
        made = False
    try:
        descriptor = open_inside(folder, name)
        try:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if made and mode & 0o777 != _MODE:  # an odd umask
                os.fchmod(descriptor, mode & ~0o777 | _MODE)
            os.fsync(folder)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError:
        if made:  # the next attempt would find it, and take it for durable
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=folder)
        raise
    return descriptor
