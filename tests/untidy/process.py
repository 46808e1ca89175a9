"""The process under test: its calls to the system fail or end in a kill while one of its steps runs, here in ours."""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from pop3d.stores.maildir import memory_cache as recent

_STAMPS: Final = 5 if sys.platform == "linux" else time.CLOCK_REALTIME
"""The clock of files' times: CLOCK_REALTIME_COARSE, which goes in ticks of the kernel, 1 to 10 ms."""

CHANGING: Final = ("link", "unlink", "rename", "replace", "mkdir", "rmdir", "fsync", "write", "open")
"""What changes a disk, in `os`; ``open`` counts where it creates a file, ``rename`` also where it never replaces."""

_NEVER: Final = 10**18  # nanoseconds
_RENAME_NEW: Final = "rename_new"  # pop3d's own, which asks the kernel itself


class Killed(BaseException):
    """The process is dead: no call to the system has an effect any more, except that its descriptors are closed."""


class OurProcess:
    """Where pop3d's calls go through. ``failing``: names in `CHANGING` that raise OSError with ``number``.

    ``at_rest``: whether a folder always counts as at rest, so that its listing is remembered, or never does. Times tell
    all changes here: each is a tick behind the last look (`wait_for_tick`).
    """

    def __init__(self, *, at_rest: bool = False) -> None:
        self.failing: frozenset[str] = frozenset()
        self.number = errno.ENOSPC
        self.at_rest = at_rest
        self._renaming = [
            module for name, module in sys.modules.items() if name.startswith("pop3d.") and hasattr(module, _RENAME_NEW)
        ]
        self._left: int | None = None
        self._dead = False

    @contextlib.contextmanager
    def running(self, kill_at: int | None = None) -> Iterator[None]:
        """Run a step of ours. ``kill_at``: the process is killed instead of its n-th changing call."""
        self._left, self._dead = kill_at, False
        patched: list[tuple[Any, str, Any]] = [(os, name, getattr(os, name)) for name in CHANGING]
        patched += [(module, _RENAME_NEW, getattr(module, _RENAME_NEW)) for module in self._renaming]
        rest = recent._FINE
        try:
            for module, name, real in patched:
                setattr(module, name, self._watched("rename" if name == _RENAME_NEW else name, real))
            recent._FINE = 0 if self.at_rest else _NEVER  # type: ignore[misc]
            yield
        finally:
            recent._FINE = rest  # type: ignore[misc]
            for module, name, real in patched:
                setattr(module, name, real)

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._dead:
                raise Killed
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **kwargs)
            if self._left is not None and name != "mkdir":  # a kill beside those is as one before or behind them
                self._left -= 1
                if self._left <= 0:
                    self._dead = True
                    raise Killed
            if name in self.failing:
                raise OSError(self.number, os.strerror(self.number))
            # nobody takes the power away here, and a real sync takes most of a run's time
            return None if name == "fsync" else real(*args, **kwargs)

        return call


def wait_for_tick(moment: int) -> None:
    """Wait until files' times are later than ``moment`` (`time.time_ns`): the next change shows in them."""
    while time.clock_gettime_ns(_STAMPS) <= moment:
        time.sleep(0.0005)


def open_below(folder: str) -> list[int]:
    """Descriptors of this process that are open on something below a folder."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith(folder + "/"):
                found.append(int(name))
    return found
