"""The log, written behind the event loop's back.

Standard error is mostly a pipe, and whoever reads it may be slow, or stuck: a write to it then waits, and the event
loop with all its sessions would wait too. So while the daemon serves, records are only put into a queue; a thread makes
lines of them and writes, some at a time. The queue is bounded: what does not fit is counted, and told once there is
room.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator
from typing import Final

__all__ = ["LogWriter", "written_behind"]

_RECORDS_MAX: Final = 10_000  # that wait: some 10 MiB, the lines of ten seconds of a thousand sessions each
_GATHERED: Final = 0.05  # seconds that lines are gathered in before they leave together
_AT_ONCE: Final = 64 * 1024  # octets of one write: what a pipe takes
_PATIENCE: Final = 2.0  # seconds that a reader who is stuck may hold up the end


class LogWriter(logging.Handler):
    """Writes records to a descriptor, in a thread of its own that begins with the first of them; then `stop` it."""

    def __init__(self, descriptor: int, formatter: logging.Formatter | None, records_max: int = _RECORDS_MAX) -> None:
        super().__init__()
        self.lock = None  # nothing here needs one: a deque's ends can be used by different threads
        self.setFormatter(formatter)
        self._descriptor = descriptor
        self._records: deque[logging.LogRecord] = deque()
        self._records_max = records_max
        self._dropped = 0
        self._something = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`. Never waits."""
        if len(self._records) >= self._records_max:
            self._dropped += 1
            return
        self._records.append(record)
        if not self._something.is_set():
            self._something.set()
            if self._thread is None:
                # a reader who is stuck for ever must not keep the process
                self._thread = threading.Thread(target=self._run, name="pop3d-log", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Write what waits; a reader who is stuck gets `_PATIENCE` seconds."""
        self._stopping.set()
        self._something.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    # --- in the thread ---

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._something.wait()
            self._stopping.wait(_GATHERED)
            self._something.clear()
            self._write_all()
        self._write_all()

    def _write_all(self) -> None:
        while self._records:
            lines, octets = [], 0
            while self._records and octets < _AT_ONCE:
                lines.append(self._line(self._records.popleft()))
                octets += len(lines[-1])
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                lines.append(self._line(_told(dropped)))
            with contextlib.suppress(OSError):  # nobody reads any more: there is nobody to tell
                _write(self._descriptor, b"".join(lines))

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")


def _told(dropped: int) -> logging.LogRecord:
    text = f"{dropped} lines of the log are lost: nobody read it for too long"
    return logging.LogRecord("pop3d", logging.WARNING, __file__, 0, text, None, None)


def _write(descriptor: int, octets: bytes) -> None:
    while octets:
        octets = octets[os.write(descriptor, octets) :]


@contextlib.contextmanager
def written_behind(log: logging.Logger) -> Iterator[None]:
    """Meanwhile what ``log`` would write to a stream is written by a `LogWriter`, if the stream is of a descriptor."""
    before = log.handlers[:]
    meanwhile: list[logging.Handler] = []
    for handler in before:
        with contextlib.suppress(OSError):  # no descriptor: a test's
            if isinstance(handler, logging.StreamHandler):
                handler = LogWriter(handler.stream.fileno(), handler.formatter)
        meanwhile.append(handler)
    try:
        log.handlers[:] = meanwhile
        yield
    finally:
        log.handlers[:] = before
        for handler in meanwhile:
            if isinstance(handler, LogWriter):
                handler.stop()
