"""When a file was made, which no program can set: the one time that tells a file from another with its inode number.

Linux has it by ``statx``, and Python no function for it before 3.15.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from typing import Final

__all__ = ["born"]

_EMPTY_PATH: Final = 0x1000  # AT_EMPTY_PATH: the descriptor itself
_BIRTH: Final = 0x800  # STATX_BTIME
_OCTETS: Final = 256  # of struct statx
_MASK: Final = struct.Struct("=I")
_TIME: Final = struct.Struct("=qI")  # seconds and nanoseconds of struct statx_timestamp
_BIRTH_AT: Final = 80

_statx = getattr(ctypes.CDLL(None), "statx", None) if sys.platform == "linux" else None


def born(descriptor: int) -> int | None:
    """When an open file was made, in nanoseconds of the Unix epoch; None where the system does not know."""
    if _statx is None:
        made: float | None = getattr(os.fstat(descriptor), "st_birthtime", None)
        return None if made is None else int(made * 1_000_000_000)
    found = ctypes.create_string_buffer(_OCTETS)
    if _statx(descriptor, b"", _EMPTY_PATH, _BIRTH, found) or not _MASK.unpack_from(found)[0] & _BIRTH:
        return None
    seconds, nanoseconds = _TIME.unpack_from(found, _BIRTH_AT)
    return int(seconds * 1_000_000_000 + nanoseconds)
