"""Opening and reading files on the event loop, without ever waiting for a disk.

``RWF_NOWAIT`` reads what the page cache has and says so when it has not; ``openat2`` with ``RESOLVE_CACHED`` (Linux
5.12) is the same for opening: it succeeds when each folder on the way is in memory, and else says that it would have to
wait. Python has no function for it. A hop to a thread costs some 60 us, this 2.

What answers for its disk must be one: behind a network's file system the kernel may still ask a server that hangs. So
whoever calls this knows the device, from an earlier and slower opening, and `is_local`.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import sys
from typing import Final

from pop3d.stores.maildir.openat2 import AT_FDCWD, OPENAT2, RESOLVE_CACHED, RESOLVE_NO_SYMLINKS, open_how

__all__ = ["fstat_local", "is_local", "open_cached", "read_cached"]

_RESOLVE: Final = RESOLVE_CACHED | RESOLVE_NO_SYMLINKS  # a link is judged where there is time for it
_RWF_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0)  # Linux; elsewhere every read goes through a thread


# PyDLL keeps the interpreter's lock: to give it away around a call that does not wait is what makes threads slow. No
# argument types are named: all here are small numbers and bytes, and to check them takes a fifth of the call's time.
_syscall = ctypes.PyDLL(None).syscall if sys.platform == "linux" else None


fstat_local: Final = os.fstat
"""For a descriptor of `open_cached` on a disk of this machine: its inode is in memory, so that nothing has to wait."""


def is_local(device: int) -> bool:
    """Whether files of this device (``st_dev``) are on a disk of this machine: other file systems have no major number.

    Some local ones have none either (Btrfs, ZFS, tmpfs); for them the long way is taken.
    """
    return os.major(device) != 0


def open_cached(path: str | bytes | os.PathLike[str], flags: int, root: int = AT_FDCWD) -> int | None:
    """A descriptor of what is at ``path`` below the folder ``root``; None where it cannot be had at once.

    No symbolic link on the way is followed. Whatever the reason is: whoever then opens it in a thread finds out.
    """
    if _syscall is None:
        return None
    octets = path if isinstance(path, bytes) else os.fsencode(path)
    how = _how(flags)
    descriptor: int = _syscall(OPENAT2, root, octets, how, len(how))
    return descriptor if descriptor >= 0 else None


@functools.cache
def _how(flags: int) -> bytes:
    return open_how(flags | os.O_CLOEXEC, _RESOLVE)


def read_cached(descriptor: int, into: memoryview, position: int) -> int | None:
    """Read the octets of a file from ``position`` on: how many there were, or None where that would have to wait.

    Fewer than there are means nothing: perhaps only those are in memory. Raises OSError.
    """
    if not _RWF_NOWAIT:
        return None
    try:
        return os.preadv(descriptor, [into], position, _RWF_NOWAIT)
    except OSError as fault:
        # not in the page cache, or a file system that cannot tell
        if fault.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
            return None
        raise
