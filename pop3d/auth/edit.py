"""Editing a small text file in place, so that a reader sees it before or after, and never in between.

*Lock.* The file itself is exchanged by a rename, so a lock on it would be a lock on what was there before. The folder
stays: `flock` on it lets one editor in at a time, leaves nothing behind and dies with its holder.

*Exchange.* What is new is written beside the file under one fixed name (whoever holds the lock may remove what a crash
left there), gets the owner, mode and extended attributes of the old one, is synced and renamed, and the folder is
synced. A symbolic link stays; what it leads to is exchanged.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["edit"]

_LOCK_PATIENCE: Final = 30.0  # seconds; an edit takes milliseconds, so a holder of this long is stuck
_LOCK_PAUSE: Final = 0.01


def edit(path: Path, change: Callable[[Path], bytes]) -> None:
    """Exchange the file at ``path``, which is made with mode 0600 when it is not there.

    ``change``: given the file behind all links, reads it and returns what is to be in it; what it raises leaves
    the file as it is. Raises OSError, TimeoutError when another editor does not come to an end. Blocking.
    """
    path = Path(os.path.realpath(path))
    with _locked(path.parent):
        _exchange(path, change(path))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
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
        yield
    finally:
        os.close(descriptor)


def _exchange(path: Path, octets: bytes) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            with contextlib.suppress(FileNotFoundError):
                _resemble(beside, path, descriptor)
            os.fsync(descriptor)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _resemble(beside: Path, path: Path, descriptor: int) -> None:
    """Owner, mode and extended attributes, which hold access lists, as they were; not the time."""
    old, new = path.stat(), os.fstat(descriptor)
    if not stat.S_ISREG(old.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        try:
            os.fchown(descriptor, old.st_uid, old.st_gid)
        except PermissionError:
            text = f"its owner, {old.st_uid}:{old.st_gid}, could not be kept; run this as root"
            raise PermissionError(errno.EPERM, text) from None
    shutil.copystat(path, beside)
    os.utime(beside)
