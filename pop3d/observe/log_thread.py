"""The log while the daemon serves: a thread shapes the lines and writes them, so that nobody waits for who reads them.

A pipe that nobody reads, a full disk, a terminal that was stopped: whoever says something only puts it in a queue. When
that is full, what comes is dropped and counted, and the log says how much once there is room again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Final, TypeAlias

from pop3d.observe.log import Event, log

__all__ = ["beside"]

_QUEUED_MAX: Final = 4096
"""Lines that wait to be written: some 6 MiB at most, and a good second of the busiest daemon."""
_GATHERED: Final = 0.05  # seconds behind the first line, for others: to wake a thread costs more than a line
_AT_ONCE: Final = 32  # lines shaped in one go; then they are written, which lets others have the interpreter
_END_SECONDS: Final = 2.0  # at the end, for what is queued; a pipe that nobody reads must not keep us
_FULL_SECONDS: Final = 1.0  # between two looks at a standard error that is full and, by whoever shares it, never waits

_Queued: TypeAlias = "logging.LogRecord | str"


class _Writer(logging.Handler):
    """Writes what it is handed to a descriptor, in a thread of its own. `start`, then `end`."""

    def __init__(self, descriptor: int, encoding: str, formatter: logging.Formatter | None) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._descriptor, self._encoding = descriptor, encoding
        self._queue: SimpleQueue[_Queued | None] = SimpleQueue()
        self._dropping = threading.Lock()  # held for an instant
        self._dropped = 0  # in all; of them told: by the thread alone
        self._told = 0
        # nobody waits for it but `end`: it may hang in a write for ever
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    def handle(self, record: logging.LogRecord) -> bool:
        """Queue it. Not `emit`: that comes with a lock, which a queue does not need."""
        if self._queue.qsize() >= _QUEUED_MAX:
            with self._dropping:
                self._dropped += 1
            return True
        # only what is small and never changes may wait as it is; a traceback would keep alive what it passed through
        plain = isinstance(record.msg, Event) and not record.exc_info
        self._queue.put(record if plain else self._shaped(record))
        return True

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
            return self.format(_warning(Event("a line cannot be shaped", of=record.name, why=type(fault).__name__)))

    def _run(self) -> None:
        going = True
        while going:
            batch: list[_Queued] = []
            first = self._queue.empty()
            queued = self._queue.get()
            if first and queued is not None:
                time.sleep(_GATHERED)
            while queued is not None:
                batch.append(queued)
                if len(batch) == _AT_ONCE or self._queue.empty():
                    break
                queued = self._queue.get()
            going = queued is not None
            self._write(batch)
            # told when half of it is free again: of a reader that is merely slow it is not told line by line
            if self._dropped > self._told and (not going or self._queue.qsize() <= _QUEUED_MAX // 2):
                dropped, self._told = self._dropped - self._told, self._dropped
                self._write([_warning(Event("log lines dropped", number=dropped))])

    def _write(self, batch: list[_Queued]) -> None:
        text = "".join(f"{line if isinstance(line, str) else self._shaped(line)}\n" for line in batch)
        rest = memoryview(text.encode(self._encoding, "backslashreplace"))
        while rest:
            try:
                # not by sys.stderr: its lock, held by a write that hangs, would hold up or break the end of the process
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                select.select((), (self._descriptor,), (), _FULL_SECONDS)
            except OSError:  # the reader is gone, the disk is full: there is nobody to tell but who comes later
                with self._dropping:
                    self._dropped += len(batch)
                return


def _warning(event: Event) -> logging.LogRecord:
    return logging.LogRecord(log.name, logging.WARNING, "", 0, event, (), None)


@contextlib.contextmanager
def beside() -> Iterator[None]:
    """While it lasts, all that is logged is written in a thread, what libraries warn of too; before and after at once.

    Needs `pop3d.observe.log.configure`. At the end what is queued is written, but for what takes more than two seconds.
    """
    if sys.__stderr__ is None or not log.handlers:  # no standard error: its number may be that of a client's connection
        yield
        return
    before, others = log.handlers[:], logging.getLogger()
    writer = _Writer(sys.__stderr__.fileno(), sys.__stderr__.encoding, before[0].formatter)
    writer.start()
    log.handlers[:] = [writer]
    others.addHandler(writer)
    try:
        yield
    finally:
        others.removeHandler(writer)
        for one in before:
            one.setFormatter(writer.formatter)  # it may be another by now
        log.handlers[:] = before
        writer.end()
