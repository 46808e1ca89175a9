"""A process that dies at one of its calls to the system, or is told of an error there; within this process.

The modules of `pop3cli.sync` get an `os` that counts the calls which change files. At the chosen one a `Crash` is
raised, before or behind it, and from then on at each: nothing tidies up behind a crash. What stays open is closed, as
the system would do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from pop3cli import files
from pop3cli.sync import maildir, mbox, mbox_lock, run, state, writer

CHANGING = ("open", "write", "copy", "fsync", "link", "unlink", "rename", "ftruncate", "mkdir")
"""Calls that change files: ``open`` is one that may make a file, ``copy`` a write of a message into an mbox."""


class Crash(BaseException):
    """The process is no more."""


class System:
    """An `os` that ends at the ``at``-th ``call`` of `CHANGING`, or of any of them; 0 for never.

    ``error``: it is an OSError instead of a crash, once. ``behind``: the call is done before.
    """

    def __init__(self, at: int = 0, call: str = "any", *, error: bool = False, behind: bool = False) -> None:
        self._call, self._at, self._error, self._behind = call, at, error, behind
        self.calls = 0
        self.crashed = False
        self.failed = False
        self.fds: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name == "open":
            return self._opened
        if name == "close":
            return self._closed
        return self._counted(name, real) if name in CHANGING else real

    def _opened(self, path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        def do(*_: Any) -> int:
            fd = os.open(path, flags, *arguments, **named)
            self.fds.add(fd)
            return fd

        return int(self._counted("open", do)()) if flags & os.O_CREAT else do()

    def _closed(self, fd: int) -> None:
        self.fds.discard(fd)
        os.close(fd)

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if self.crashed:
                raise Crash
            self.calls += self._call in ("any", name)
            if self.calls != self._at or self.failed:
                return real(*arguments, **named)
            if self._behind:
                real(*arguments, **named)
            self.crashed, self.failed = not self._error, self._error
            raise OSError(errno.ENOSPC, "No space left on device") if self._error else Crash

        return call

    def copied(self, real: Callable[[Any, Any], bytes]) -> Callable[[Any, Any], bytes]:
        """`mbox._copy` whose writes count too, and end half way."""

        def copy(text: Any, out: Any) -> bytes:
            class Out:
                @staticmethod
                def write(data: bytes) -> None:
                    try:
                        self._counted("copy", out.write)(data)
                    except (Crash, OSError):
                        if not self._behind:
                            out.write(data[: len(data) // 2])
                        raise

            return real(text, Out)

        return copy


class Clock:
    """A `time` that stands still but for a millisecond a look, so that each name has another one."""

    def __init__(self) -> None:
        self.now = time.time()

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        self.now += 0.001
        return self.now


class AtOnce(Executor):
    """A thread that has done its work when it is asked for: a run is the same each time, and quicker."""

    def __init__(self, threads: int, name: str) -> None:
        pass

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments, **named))
        except BaseException as fault:
            future.set_exception(fault)
        return future


@contextlib.contextmanager
def patched(system: System, clock: Clock) -> Iterator[None]:
    """`pop3cli.sync` lives in this system, by this clock."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (files, maildir, mbox, mbox_lock, state):
            patch.setattr(module, "os", system)
        for module in (maildir, run, state, writer):
            patch.setattr(module, "time", clock)
        patch.setattr(mbox_lock, "LOCK_SECONDS", 1.0)
        patch.setattr(writer, "BATCH_MESSAGES", 2)
        patch.setattr(run, "ThreadPoolExecutor", AtOnce)
        patch.setattr(mbox, "_copy", system.copied(mbox._copy))
        try:
            yield
        finally:
            for fd in system.fds:
                with contextlib.suppress(OSError):
                    os.close(fd)
