"""Editing a small text file in place, so that a reader sees it before or after, and never in between.

*Lock.* The file itself is exchanged by a rename, so a lock on it would be a lock on what was there before. The folder
stays: `flock` on it lets one editor in at a time, leaves nothing behind and dies with its holder.

*Exchange.* What is new is written beside the file under one fixed name (whoever holds the lock may remove what a crash
left there), gets the owner, mode and extended attributes of the old one, is synced and renamed, and the folder is
synced. A symbolic link stays; what it leads to is exchanged.

*Root.* The folder may belong to somebody else, who may exchange what is in it while it is edited. So all is done by
descriptor, and root follows links of its own only: what it reads is what it exchanges, and its owner stays the same.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from pop3d.system.folders import exchange_inside
from pop3d.system.ownership import open_as_root

__all__ = ["edit"]

_LOCK_PATIENCE: Final = 30.0  # seconds; an edit takes milliseconds, so a holder of this long is stuck
_LOCK_PAUSE: Final = 0.01
_LINKS_MAX: Final = 40  # as in Linux
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def edit(path: Path, change: Callable[[BinaryIO | None], bytes]) -> None:
    """Exchange the file at ``path``, which is made with mode 0600 when it is not there.

    ``change``: given the file that is there, reads it and returns what is to be in it; what it raises leaves the file
    as it is. Raises OSError, TimeoutError when another editor does not come to an end. Blocking.
    """
    path = _behind_links(path)
    beside = f".{path.name}.new"
    with _locked(path.parent) as folder:
        try:
            descriptor = os.open(path.name, _READ, dir_fd=folder)
        except FileNotFoundError:
            exchange_inside(folder, path.name, change(None), beside=beside)
            return
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            with open(descriptor, "rb", closefd=False) as old:
                octets = change(old)
            exchange_inside(folder, path.name, octets, beside=beside, finish=lambda new: _resemble(new, descriptor))
        finally:
            os.close(descriptor)


def _behind_links(path: Path) -> Path:
    """The file that ``path`` leads to; links in the folders above it are followed by whoever opens them."""
    for _ in range(_LINKS_MAX):
        try:
            found = path.lstat()
        except FileNotFoundError:
            return path
        if not stat.S_ISLNK(found.st_mode):
            return path
        if os.geteuid() == 0 and found.st_uid != 0:
            raise PermissionError(errno.EPERM, "a symbolic link that is not root's, which root does not write through")
        path = path.parent / os.readlink(path)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    if os.geteuid() == 0:
        descriptor = open_as_root(folder)
    else:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        patience = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= patience:
                    text = f"another process has held the lock on {folder} for {_LOCK_PATIENCE:.0f} s; try again later"
                    raise OSError(errno.ETIMEDOUT, text) from None
            time.sleep(_LOCK_PAUSE)
        yield descriptor
    finally:
        os.close(descriptor)


def _resemble(new: int, old: int) -> None:
    """Owner, mode and extended attributes, which hold access lists, as they were; not the time."""
    was, now = os.fstat(old), os.fstat(new)
    if (was.st_uid, was.st_gid) != (now.st_uid, now.st_gid):
        try:
            os.fchown(new, was.st_uid, was.st_gid)
        except PermissionError:
            text = f"its owner, {was.st_uid}:{was.st_gid}, could not be kept; run this as root"
            raise PermissionError(errno.EPERM, text) from None
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # this file system has none
            for attribute in os.listxattr(old):
                with contextlib.suppress(OSError):  # one that is not ours to give
                    os.setxattr(new, attribute, os.getxattr(old, attribute))
    os.fchmod(new, stat.S_IMODE(was.st_mode))
