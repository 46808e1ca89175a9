"""What is below a folder that is open, by its descriptor: folders, opened without following a link, or made so that a
power cut leaves them there; and files that are written completely or not at all.

Blocking code.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["FOLDER", "exchange_inside", "open_inside", "open_or_make_inside", "written_inside"]

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


def exchange_inside(
    folder: int,
    name: str,
    octets: bytes,
    *,
    beside: str | None = None,
    finish: Callable[[int], None] = lambda _: None,
) -> None:
    """Put a file with these octets in the place of ``name`` in ``folder``, durably.

    A reader finds the old file or the new one, also behind a power cut. ``beside``, ``finish``: as for
    `written_inside`. Raises OSError, and what ``finish`` raises; the old file is then as it was. Two writers at once do
    not disturb each other: the later one wins.
    """
    with written_inside(folder, name, octets, beside=beside, finish=finish) as new:
        os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


@contextlib.contextmanager
def written_inside(
    folder: int,
    name: str,
    octets: bytes,
    *,
    beside: str | None = None,
    finish: Callable[[int], None] = lambda _: None,
) -> Iterator[str]:
    """The name of a new file of mode 0600 with these octets, on the disk, to be renamed or linked to ``name``.

    Behind the block it is gone, unless it was renamed. ``beside``: its name, which is this thread's own unless it is
    given; what a crash left there is removed. ``finish``: what else to do with its descriptor. Raises OSError.
    """
    beside = beside or f".{name}.{os.getpid()}.{threading.get_ident()}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(beside, flags, 0o600, dir_fd=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            finish(descriptor)
            os.fsync(descriptor)
        yield beside
    finally:
        with contextlib.suppress(OSError):
            os.unlink(beside, dir_fd=folder)
