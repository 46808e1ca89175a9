"""What openat2(2) is called with (Linux 5.6): Python has no function for it.

Two modules call it, each by a library of its own: one that keeps the interpreter's lock, and one that does not.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["AT_FDCWD", "OPENAT2", "RESOLVE_CACHED", "RESOLVE_NO_SYMLINKS", "open_how"]

OPENAT2: Final = 437
"""The call's number, the same on all architectures."""

AT_FDCWD: Final = -100
"""In place of a folder's descriptor: the current folder."""

RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_CACHED: Final = 0x20
"""Linux 5.12: fail with EAGAIN where the disk would have to be waited for."""


def open_how(flags: int, resolve: int) -> bytes:
    """``struct open_how``: flags as for open(2), mode (none: nothing is made), and how the path is resolved."""
    return struct.pack("=QQQ", flags, 0, resolve)
