"""The process under test: its calls to the system fail or end in a kill while one of its steps runs, here in ours."""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

TICK: Final = 0.005
"""Seconds: more than a tick of the kernel's coarse clock (4 ms at 250 Hz), by which files' times of change go."""

CHANGING: Final = ("link", "unlink", "rename", "replace", "mkdir", "rmdir", "fsync", "write", "open")
"""What changes a disk, in `os`; ``open`` counts where it creates a file."""

AHEAD: Final = 1_000_000_000  # nanoseconds


class Killed(BaseException):
    """The process is dead: no call to the system has an effect any more, except that its descriptors are closed."""


class OurProcess:
    """Where pop3d's calls go through. ``failing``: names in `CHANGING` that raise OSError with ``number``."""

    def __init__(self, *, clock_ahead: bool = False) -> None:
        self.failing: frozenset[str] = frozenset()
        self.number = errno.ENOSPC
        self._clock_ahead = clock_ahead
        self._left: int | None = None
        self._dead = False

    @contextlib.contextmanager
    def running(self, kill_at: int | None = None) -> Iterator[None]:
        """Run a step of ours. ``kill_at``: the process is killed instead of its n-th changing call."""
        self._left, self._dead = kill_at, False
        real = {name: getattr(os, name) for name in CHANGING}
        clock = time.time_ns
        try:
            for name in CHANGING:
                setattr(os, name, self._watched(name, real[name]))
            if self._clock_ahead:
                # A listing is remembered when its folders have been at rest for a while. Here they always have: every
                # change by anybody is a tick behind the one before it, so the times of the folders tell.
                time.time_ns = lambda: clock() + AHEAD
            yield
        finally:
            time.time_ns = clock
            for name in CHANGING:
                setattr(os, name, real[name])

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._dead:
                raise Killed
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **kwargs)
            if self._left is not None:
                self._left -= 1
                if self._left <= 0:
                    self._dead = True
                    raise Killed
            if name in self.failing:
                raise OSError(self.number, os.strerror(self.number))
            # nobody takes the power away here, and a real sync takes most of a run's time
            return None if name == "fsync" else real(*args, **kwargs)

        return call


def open_below(folder: str) -> list[int]:
    """Descriptors of this process that are open on something below a folder."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith(folder + "/"):
                found.append(int(name))
    return found
