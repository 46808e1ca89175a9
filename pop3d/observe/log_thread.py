"""The log while the daemon serves: a thread shapes the lines and writes them, so that nobody waits for who reads them.

A pipe that nobody reads, a full disk, a terminal that was stopped: whoever says something only puts it in a queue. When
that is full, what comes is dropped and counted, and the log says how much once there is room again. Whatever goes wrong
in the thread costs the lines that it had in hand, which are counted too, and never the thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Final, TypeAlias

from pop3d.observe.log import Event, log

__all__ = ["LogWriter", "beside"]

_QUEUED_MAX: Final = 4096
"""Lines that wait to be written: some 6 MiB at most, and a good second of the busiest daemon."""
_GATHERED: Final = 0.05  # seconds behind the first line, for others: to wake a thread costs more than a line
_AT_ONCE: Final = 32  # lines shaped in one go; then they are written, which lets others have the interpreter
_END_SECONDS: Final = 2.0  # at the end, for what is queued; a pipe that nobody reads must not keep us
_FULL_SECONDS: Final = 1.0  # between two looks at a standard error that is full and, by whoever shares it, never waits
_STUCK_SECONDS: Final = 5.0  # a write that takes longer: there is no log, and whoever watches should know


class _Reopen:
    """In the queue: what comes behind goes to the file that has the name by then."""


_REOPEN: Final = _Reopen()
_Queued: TypeAlias = "logging.LogRecord | str"


class LogWriter(logging.Handler):
    """Writes what it is handed to a descriptor, in a thread of its own. `start`, then `end`.

    ``open_file``: opens the file that the descriptor is of, again, for `reopen`; None where it is no file.
    """

    def __init__(
        self,
        descriptor: int,
        encoding: str,
        formatter: logging.Formatter | None,
        open_file: Callable[[], int] | None = None,
    ) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._descriptor, self._encoding, self._open_file = descriptor, encoding, open_file
        self._queue: SimpleQueue[_Queued | _Reopen | None] = SimpleQueue()
        self._dropping = threading.Lock()  # held for an instant
        self._dropped = 0  # in all; of them told: by the thread alone
        self._told = 0
        self._torn = False  # a line has been written in part
        self._failed = False  # the last write
        self._since: float | None = None  # when the write under way began, by the monotonic clock
        # nobody waits for it but `end`: it may hang in a write for ever
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    @property
    def lost(self) -> int:
        """Lines that nobody can read: the queue was full, or they could not be written."""
        return self._dropped

    @property
    def works(self) -> bool:
        """False while lines cannot be written, or the thread is gone."""
        since = self._since
        stuck = since is not None and time.monotonic() - since > _STUCK_SECONDS
        return self._thread.is_alive() and not self._failed and not stuck

    def handle(self, record: logging.LogRecord) -> bool:
        """Queue it. Not `emit`: that comes with a lock, which a queue does not need."""
        if self._queue.qsize() >= _QUEUED_MAX:
            self._lose(1)
            return True
        # only what is small and never changes may wait as it is; a traceback would keep alive what it passed through
        plain = isinstance(record.msg, Event) and not record.exc_info
        self._queue.put(record if plain else self._shaped(record))
        return True

    def reopen(self) -> None:
        """Open the file again, by its name, behind what is queued; for signal handlers too. Nothing without a file."""
        self._queue.put(_REOPEN)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def end(self) -> None:
        """Write what is queued, as far as that goes in a bounded time, and end."""
        self._queue.put(None)
        self._thread.join(_END_SECONDS)

    def _shaped(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception as fault:  # "%d" of a word, in a plug-in perhaps: neither it nor the thread ends by that
            return self.format(_record(Event("a line cannot be shaped", of=record.name, why=type(fault).__name__)))

    def _lose(self, lines: int) -> None:
        with self._dropping:
            self._dropped += lines

    # --- in the thread ---

    def _run(self) -> None:
        going = True
        while going:
            batch: list[_Queued] = []
            try:
                going = self._gather(batch)
            except Exception:  # to sleep can fail, where somebody bends the clock; what was gathered is not lost by it
                _pause()
            self._write(batch)
            # told when half of it is free again: of a reader that is merely slow it is not told line by line
            if self._dropped > self._told and (not going or self._queue.qsize() <= _QUEUED_MAX // 2):
                dropped = self._dropped
                if self._write([_record(Event("log lines dropped", number=dropped - self._told))], counted=False):
                    self._told = dropped

    def _gather(self, batch: list[_Queued]) -> bool:
        """Take what is queued, up to a reopening, which is done; False when nothing will come any more."""
        first = self._queue.empty()
        queued = self._queue.get()
        while queued is not None:
            if isinstance(queued, _Reopen):
                self._write(batch)
                batch.clear()
                self._reopened()
            else:
                batch.append(queued)
            if first:
                first = False
                time.sleep(_GATHERED)
            if len(batch) >= _AT_ONCE or self._queue.empty():
                return True
            queued = self._queue.get()
        return False

    def _write(self, batch: list[_Queued], *, counted: bool = True) -> bool:
        """False when some of it could not be written, and then, if it is ``counted``, that is counted."""
        octets: list[bytes] = []
        rest = memoryview(b"")
        try:
            lines = [line if isinstance(line, str) else self._shaped(line) for line in batch]
            octets = [f"{line}\n".encode(self._encoding, "backslashreplace") for line in lines]
            rest = memoryview((b"\n" if self._torn and octets else b"") + b"".join(octets))
            self._since = time.monotonic()
            while rest:
                try:
                    # not by sys.stderr: its lock, held by a write that hangs, would hold up or break our end
                    rest = rest[os.write(self._descriptor, rest) :]
                    self._since, self._torn, self._failed = time.monotonic(), False, False
                except BlockingIOError:
                    select.select((), (self._descriptor,), (), _FULL_SECONDS)
        except Exception:  # the reader is gone, the disk is full: there is nobody to tell but who comes later
            lost, left = 0, len(rest)
            while left > 0 and lost < len(octets):
                lost += 1
                left -= len(octets[-lost])
            self._failed, self._torn = True, self._torn or left < 0
            if counted:
                self._lose(lost if octets else len(batch))
            return False
        finally:
            self._since = None
        return True

    def _reopened(self) -> None:
        if self._open_file is None:
            return
        try:
            fresh = self._open_file()
            try:
                os.dup2(fresh, self._descriptor, inheritable=False)
            finally:
                os.close(fresh)
        except OSError as fault:
            self._write([_record(Event("log file not reopened, the one that is open goes on", why=fault.strerror))])
        else:
            self._torn = False


def _record(event: Event) -> logging.LogRecord:
    return logging.LogRecord(log.name, logging.WARNING, "", 0, event, (), None)


def _pause() -> None:
    with contextlib.suppress(Exception):
        select.select((), (), (), _GATHERED)


@contextlib.contextmanager
def beside(open_file: Callable[[], int] | None = None) -> Iterator[LogWriter | None]:
    """While it lasts, all that is logged is written in a thread, what libraries warn of too; before and after at once.

    ``open_file``: opens a file for appending, where the log goes instead of to standard error; what it raises at first,
    this raises. None is told of a process that has neither.

    Needs `pop3d.observe.log.configure`. At the end what is queued is written, but for what takes more than two seconds.
    """
    before, others = log.handlers[:], logging.getLogger()
    if not before or (open_file is None and sys.__stderr__ is None):
        yield None  # the number of standard error may be that of a client's connection
        return
    if open_file is not None:
        descriptor, encoding = open_file(), "utf-8"
    else:
        assert sys.__stderr__ is not None
        descriptor, encoding = sys.__stderr__.fileno(), sys.__stderr__.encoding
    writer = LogWriter(descriptor, encoding, before[0].formatter, open_file)
    writer.start()
    log.handlers[:] = [writer]
    others.addHandler(writer)
    try:
        yield writer
    finally:
        others.removeHandler(writer)
        for one in before:
            one.setFormatter(writer.formatter)  # it may be another by now
        log.handlers[:] = before
        writer.end()
