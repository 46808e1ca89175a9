"""What the program asks of the kernel for its own process; a library that is imported asks nothing."""

from __future__ import annotations

import contextlib
import ctypes
import sys

__all__ = ["no_core"]

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def no_core() -> None:
    """A crash writes no core file: passwords and tokens would be in it.

    The limit alone does not hold where the kernel pipes cores to a program; the flag does, and lets nobody but root
    look into the process. A program that is started inherits the limit
    only, and may raise it.
    """
    if sys.platform == "win32":
        return
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:  # Linux only
        prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
