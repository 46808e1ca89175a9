"""What this process asks of the C library and the kernel: less memory, no privileges for ever, no core files."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from typing import Final

__all__ = ["SWITCH_SECONDS", "no_core", "no_new_privileges", "tune"]

SWITCH_SECONDS: Final = 0.001
"""How long a thread that lists a mailbox may hold the interpreter while the event loop wants it; Python's own 5 ms add
up, several times over in one reply."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38  # linux/prctl.h


def tune() -> None:
    """Threads give way sooner, and share one heap, which gives large blocks back; before the first thread begins.

    A heap for each thread keeps some 5 MiB more with ten sessions, for a contention that threads which wait for disks
    do not have. A fixed threshold gives the 19 MiB of an Argon2 hash back each time. Nothing happens without glibc.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    # what was made for the start stays: no collection looks at it again
    gc.collect()
    gc.freeze()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        mallopt(_M_TRIM_THRESHOLD, 1 << 20)


def no_new_privileges() -> None:
    """No program that this process starts can have more privileges than it has itself (Linux only)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def no_core() -> None:
    """A crash writes no core file: passwords, keys and tokens would be in it.

    The limit alone does not hold where the kernel pipes cores to a program; the flag does, and lets nobody but root
    look into the process. An exec and a change of user take the flag back.
    """
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:  # Linux only
        prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
