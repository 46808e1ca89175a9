"""What was done with each message: a log that a crash cannot spoil.

A line is written behind each thing that was done, and never before; so whatever the log says is so, and the worst that
a crash leaves behind is something done that the log does not know of. `run_open` and `pending` say that this may be:

- The line "run" is written before a run's first message gets its name in a Maildir, the line "end" behind the last. A
  run without its end may have left messages there that no line names; they are found by their file names.
- The line "append" is written before an mbox grows; the lines of what was appended count only with the line "appended"
  behind them. Without it the mbox has to be cut back to where it was.

Each line has a checksum. Lines that do not agree with it at the end of the file were being written when the power went,
and are dropped; elsewhere somebody has changed the file, and then nothing is believed.

What a server lists no more is forgotten after `GONE_SECONDS`, not at once: a server that has lost its list for a day
must not make us fetch everything again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

from pop3cli.errors import BadState, InUse, OutputFailed

__all__ = ["Entry", "Kind", "Pending", "State", "make_folder", "sync_folder"]

GONE_SECONDS: Final = 90 * 24 * 3600
"""How long a message is remembered that the server does not list any more."""

ENTRIES_MAX: Final = 4_000_000
"""Messages that are remembered for one account; a server lists at most a million."""

_OCTETS_MAX: Final = 2 * 1024**3  # of the whole log; it is rewritten long before
_HEADER: Final = b"pop3cli sync 1 "
_RUN, _END, _APPEND, _APPENDED, _GONE, _BACK = "run", "end", "append", "appended", "gone", "back"
_REWRITTEN_ABOVE: Final = 1000  # lines more than there are messages


class Kind(Enum):
    """What was done with a message."""

    FETCHED = "fetched"
    """It is in the destination, whole, and as large as announced."""

    ODD = "odd"
    """The same, but it is not as large as LIST announced: it is deleted only when it comes so a second time."""

    HEADERS = "headers"
    """Its headers are in the destination."""

    SKIPPED = "skipped"
    """The filter wants it left on the server."""

    UNWANTED = "unwanted"
    """The filter wants it deleted."""

    IMPORTED = "imported"
    """Another program has fetched it."""


_KINDS: Final = {kind.value: kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Entry:
    """What is remembered of a message. ``time``: when it was done, ``gone``: since when the server does not list it.

    Both are seconds of the Unix epoch; ``gone`` is 0 for a message that is listed. ``octets``: as announced by LIST, 0
    when unknown. ``digest``: of an odd message's text, else empty.
    """

    kind: Kind
    time: int
    octets: int
    digest: str = ""
    gone: int = 0


@dataclass(frozen=True, slots=True)
class Pending:
    """An mbox may have grown behind ``offset`` by messages whose separator lines have ``token``."""

    offset: int
    token: str


class State:
    """The log of one account, and what it says. One process at a time has it."""

    def __init__(self, path: Path, account: str) -> None:
        self._path = path
        self._account = account
        self._fd = -1
        self._lock = -1
        self._size = 0
        self._lines = 0
        self.entries: dict[str, Entry] = {}
        """Unique-id to what is remembered."""
        self.run_open = False
        """A run has not come to its end: a Maildir may have messages that the log does not know."""
        self.pending: Pending | None = None
        """An mbox has to be cut back first."""

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, account: str, *, read_only: bool = False) -> Iterator[State]:
        """The state at ``path``, made if it is not there; ``account`` must be the one it was made for.

        ``read_only``: nothing is made, locked or changed. Raises `InUse` while another process has it, `BadState` for
        a file that cannot be believed, `OutputFailed` where the disk refuses.
        """
        state = cls(path, account)
        try:
            try:
                if not read_only:
                    state._take()
                state._load(read_only)
            except OSError as fault:
                raise OutputFailed(f"state {path}", fault) from fault
            yield state
        finally:
            for fd in (state._fd, state._lock):
                if fd >= 0:
                    os.close(fd)

    def _take(self) -> None:
        make_folder(self._path.parent)
        # a file of its own, for the log itself is replaced when it is rewritten
        self._lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(f"sync of {self._account}", "another one is running") from None

    # --- reading ---

    def _load(self, read_only: bool) -> None:
        try:
            if read_only:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            else:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return
        if os.fstat(self._fd).st_size > _OCTETS_MAX:
            raise self._bad("it is too large")
        with open(self._fd, "rb", closefd=False) as file:
            self._read(iter(file))
        if read_only:
            return
        if self._size < os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, self._size)
        if not self._size:
            self._append(_HEADER + self._account.encode() + b"\n")
            sync_folder(self._path.parent)

    def _read(self, lines: Iterator[bytes]) -> None:
        header = next(lines, b"")
        if not header.endswith(b"\n") and (_HEADER + self._account.encode()).startswith(header):
            return  # new, or a crash at its very beginning
        if not header.startswith(_HEADER):
            raise self._bad("it is none of ours")
        if header[len(_HEADER) : -1] != self._account.encode():
            whose = header[len(_HEADER) : -1].decode("utf-8", "replace")
            raise self._bad(f"it is that of {whose}, not of {self._account}", "give another file with --state")
        self._size = len(header)
        torn = 0
        held: list[tuple[str, Entry]] | None = None  # of an append that is not known to have ended
        for line in lines:
            fields = _fields(line)
            if fields is None:
                torn += len(line)
                continue
            if torn:
                raise self._bad("lines in it are damaged", _START_ANEW)
            self._size += len(line)
            self._lines += 1
            held = self._told(fields, held)

    def _told(self, fields: list[str], held: list[tuple[str, Entry]] | None) -> list[tuple[str, Entry]] | None:
        try:
            word, when, octets, uid, *more = fields
            if word in (_RUN, _END):
                self.run_open = word == _RUN
            elif word == _APPEND:
                self.pending = Pending(int(octets), uid)
                return []
            elif word == _APPENDED:
                self.entries.update(held or ())
                self.pending = None
                return None
            elif word in (_GONE, _BACK):
                gone = int(when) if word == _GONE else 0
                self.entries[uid] = replace(self.entries[uid], gone=gone)
            else:
                entry = Entry(_KINDS[word], int(when), int(octets), more[0] if more else "")
                if held is not None:
                    held.append((uid, entry))
                else:
                    self.entries[uid] = entry
        except (ValueError, KeyError):
            raise self._bad("a line in it cannot be understood", _START_ANEW) from None
        if len(self.entries) > ENTRIES_MAX:
            raise self._bad(f"it remembers more than {ENTRIES_MAX:,} messages")
        return held

    def _bad(self, why: str, remedy: str = "") -> BadState:
        return BadState(f"state {self._path}", why, remedy)

    # --- writing ---

    def begin_run(self) -> None:
        """Before the first message gets its name. Raises OSError."""
        if not self.run_open:
            self._append(_line(_RUN, int(time.time()), 0, "-"))
            self.run_open = True

    def end_run(self) -> None:
        """All that was done is recorded. Raises OSError."""
        if self.run_open:
            self._append(_line(_END, int(time.time()), 0, "-"))
            self.run_open = False

    def begin_append(self, offset: int, token: str) -> None:
        """Before an mbox grows behind ``offset``. Raises OSError."""
        self._append(_line(_APPEND, int(time.time()), offset, token))
        self.pending = Pending(offset, token)

    def record(self, done: Iterable[tuple[str, Entry]]) -> None:
        """What was done, durably; the end of an append that was begun. Raises OSError, and then knows nothing of it."""
        entries = dict(done)
        lines = [_line(entry.kind.value, entry.time, entry.octets, uid, entry.digest) for uid, entry in entries.items()]
        if self.pending is not None:
            lines.append(_line(_APPENDED, int(time.time()), 0, "-"))
        if lines:
            self._append(b"".join(lines))
        self.entries |= entries
        self.pending = None

    def listed(self, uids: Iterable[str], now: int) -> None:
        """What the server lists: the rest is gone, or was, or is forgotten. Raises OSError."""
        there = set(uids)
        lines = []
        for uid, entry in list(self.entries.items()):
            if (uid in there) == (not entry.gone):
                continue
            lines.append(_line(_BACK if entry.gone else _GONE, now, 0, uid))
            self.entries[uid] = replace(entry, gone=0 if entry.gone else now)
        if lines:
            self._append(b"".join(lines))

    def shorten(self, now: int) -> None:
        """Forget what is gone long enough, and rewrite the log when most of it is history. Raises OSError."""
        old = [uid for uid, entry in self.entries.items() if entry.gone and now - entry.gone > GONE_SECONDS]
        for uid in old:
            del self.entries[uid]
        if self._lines + len(old) <= 2 * len(self.entries) + _REWRITTEN_ABOVE or self.pending or self.run_open:
            return
        lines = [_HEADER + self._account.encode() + b"\n"]
        for uid, entry in self.entries.items():
            lines.append(_line(entry.kind.value, entry.time, entry.octets, uid, entry.digest))
            if entry.gone:
                lines.append(_line(_GONE, entry.gone, 0, uid))
        beside = f"{self._path}.new"
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(beside, flags, 0o600)
        try:
            _write(fd, b"".join(lines))
            os.fsync(fd)
            os.rename(beside, self._path)
            sync_folder(self._path.parent)
        except BaseException:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._size, self._lines = fd, os.fstat(fd).st_size, len(lines) - 1

    def _append(self, data: bytes) -> None:
        try:
            _write(self._fd, data)
            os.fsync(self._fd)
        except OSError:
            # half of it may be there, and what comes behind it would be taken for damage
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)
        self._lines += data.count(b"\n")


_START_ANEW: Final = (
    "restore it, or move it away: what is in a Maildir under our names is found again, other mail is fetched again"
)


def _line(word: str, when: int, octets: int, uid: str, *more: str) -> bytes:
    text = " ".join(filter(None, (word, str(when), str(octets), uid, *more))).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _fields(line: bytes) -> list[str] | None:
    """The words of a line; None when it is not whole."""
    if line[8:9] != b" " or not line.endswith(b"\n"):
        return None
    text = line[9:-1]
    if b"%08x" % zlib.crc32(text) != line[:8]:
        return None
    return text.decode("ascii", "replace").split(" ")


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, durably, for their owner alone. Raises OSError."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True, mode=0o700)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make names in a folder durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
