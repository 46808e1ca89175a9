"""Exit codes, after sysexits.h where it has one. Both programs use the same."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitStatus"]


class ExitStatus(IntEnum):
    """What a process ends with."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    DATA = 65
    NO_USER = 67
    UNAVAILABLE = 69
    SOFTWARE = 70
    CANNOT_WRITE = 74
    TRY_LATER = 75
    PROTOCOL = 76
    NO_PERMISSION = 77
    CONFIG = 78
    INTERRUPTED = 130
