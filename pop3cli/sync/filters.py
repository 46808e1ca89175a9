"""A program of the user's that decides about each message: keep it, leave it on the server, or delete it there.

It gets the message on standard input, and says with its exit status what becomes of it. Those numbers are none that a
program ends with by mistake: whatever else it ends with, the message stays on the server and is tried again next time.
There is no shell: who wants one names it (``sh -c '...'``).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
from enum import Enum
from typing import Final

from pop3cli.errors import FilterFailed, UsageFault

__all__ = ["DELETE", "KEEP", "SKIP", "Filter", "FilterVerdict"]

KEEP: Final = 0
"""Exit status: into the destination with it."""

SKIP: Final = 100
"""Exit status: leave it on the server, and do not ask again."""

DELETE: Final = 101
"""Exit status: not into the destination, and away from the server."""

SECONDS: Final = 60.0
"""How long it may take for a message, unless said otherwise."""


class FilterVerdict(Enum):
    """What becomes of a message."""

    KEEP = KEEP
    SKIP = SKIP
    DELETE = DELETE


class Filter:
    """The command ``words``, which may take ``seconds``. Raises `UsageFault` for a command that cannot be read."""

    def __init__(self, command: str, seconds: float = SECONDS) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as fault:
            raise UsageFault("--filter", f"its quotes do not match ({fault})") from None
        if not self._words:
            raise UsageFault("--filter", "it is empty")
        self._seconds = seconds
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def judge(self, fd: int) -> FilterVerdict:
        """What the program says of the message in the file ``fd``. Blocks; raises `FilterFailed`."""
        name = self._words[0]
        os.lseek(fd, 0, os.SEEK_SET)
        try:
            with self._lock:
                if self._stopped:
                    raise FilterFailed(f"filter {name}", "stopped")
                # a group of its own, so that what it has started ends with it
                process = subprocess.Popen(  # noqa: S603 - no shell: the words are the user's own
                    self._words, stdin=fd, stdout=subprocess.DEVNULL, start_new_session=True
                )
                self._running.add(process)
        except OSError as fault:
            raise FilterFailed(f"filter {name}", fault.strerror or str(fault)) from None
        try:
            status = process.wait(self._seconds)
        except subprocess.TimeoutExpired:
            why = f"did not end within {self._seconds:g} s"
            raise FilterFailed(f"filter {name}", why, "the message is tried again next time") from None
        finally:
            _end(process)
            with self._lock:
                self._running.discard(process)
        try:
            return FilterVerdict(status)
        except ValueError:
            why = f"ended with status {status}, which is neither {KEEP}, {SKIP} nor {DELETE}"
            raise FilterFailed(f"filter {name}", why, "the message is tried again next time") from None

    def stop(self) -> None:
        """End what is running, from another thread; its verdict does not count."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
