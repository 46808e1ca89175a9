"""What was done with each message: a log that a crash cannot spoil.

A line is written behind each thing that was done, and never before; so whatever the log says is so, and the worst that
a crash leaves behind is something done that the log does not know of. `run_open` and `pending` say that this may be:

- The line "run" is written before a run's first message gets its name in a Maildir, the line "end" behind the last. A
  run without its end may have left messages there that no line names; they are found by their file names.
- The line "append" is written before an mbox grows; the lines of what was appended count only with the line "appended"
  behind them. Without it the mbox has to be cut back to where it was.

Each line has a checksum. Lines that do not agree with it at the end of the file were being written when the power went,
and are dropped; elsewhere somebody has changed the file, and then nothing is believed.

A unique-id names one message for as long as that message exists, and may be given to another one later (RFC 1939 §7).
So each entry has a digest of the message's text, and two rules say what an id is worth:

- What our own QUIT has removed is forgotten at once: the id is free for another message.
- What the server lists no more is remembered for `GONE_SECONDS`: a server that has lost its list for a day must not
  make us fetch everything again. But when it is listed again it is `LogEntry.away`, and is deleted only after its
  content was compared. What we are about to remove counts as gone before QUIT is said: if the answer to QUIT is lost,
  nobody knows whether the id still names the same message.

Version 0.1 wrote no digests, no "forgot", and no length behind "append" ("pop3cli sync 1"); such a log is read, and
rewritten in today's form when it is opened.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from pop3cli.errors import BadState, InUse, OutputFailed
from pop3cli.files import exchanged, make_folder, sync_folder, write_all
from pop3cli.sync.log import (
    APPEND,
    APPENDED,
    BACK,
    END,
    FORGOT,
    GONE,
    RUN,
    Kind,
    LogEntry,
    PendingAppend,
    fields_of,
    line_of,
)

__all__ = ["Kind", "LogEntry", "PendingAppend", "SyncState"]

GONE_SECONDS: Final = 90 * 24 * 3600
"""How long a message is remembered that the server does not list any more."""

ENTRIES_MAX: Final = 4_000_000
"""Messages that are remembered for one account; a server lists at most a million."""

_OCTETS_MAX: Final = 2 * 1024**3  # of the whole log; it is rewritten long before
_HEADER: Final = b"pop3cli sync 2 "
_HEADER_0_1: Final = b"pop3cli sync 1 "
_REWRITTEN_ABOVE: Final = 1000  # lines more than there are messages
_KINDS: Final = {kind.value: kind for kind in Kind}


class SyncState:
    """The log of one account, and what it says. One process at a time has it."""

    def __init__(self, path: Path, account: str) -> None:
        self._path = path
        self._account = account
        self._fd = -1
        self._lock = -1
        self._size = 0
        self._lines = 0
        self._spoilt = False  # the end of the file is not what we know
        self.entries: dict[str, LogEntry] = {}
        """Unique-id to what is remembered."""
        self.run_open = False
        """A run has not come to its end: a Maildir may have messages that the log does not know."""
        self.pending: PendingAppend | None = None
        """An mbox has to be cut back first."""

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, account: str, *, read_only: bool = False) -> Iterator[SyncState]:
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
            version_0_1 = self._read(iter(file))
        if read_only:
            return
        if self._size < os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, self._size)
        if not self._size:
            self._append(_HEADER + self._account.encode() + b"\n")
            sync_folder(self._path.parent)
        elif version_0_1:
            self._rewrite()

    def _read(self, lines: Iterator[bytes]) -> bool:
        """Read the log; whether version 0.1 wrote it."""
        header = next(lines, b"")
        account = self._account.encode()
        begun = any((version + account).startswith(header) for version in (_HEADER, _HEADER_0_1))
        if not header.endswith(b"\n") and begun:
            return False  # new, or a crash at its very beginning
        version_0_1 = header.startswith(_HEADER_0_1)
        if not version_0_1 and not header.startswith(_HEADER):
            raise self._bad("it is none of ours")
        if header[len(_HEADER) : -1] != account:
            whose = header[len(_HEADER) : -1].decode("utf-8", "replace")
            raise self._bad(f"it is that of {whose}, not of {self._account}", "give another file with --state")
        self._size = len(header)
        torn = 0
        held: list[tuple[str, LogEntry]] | None = None  # of an append that is not known to have ended
        for line in lines:
            fields = fields_of(line)
            if fields is None:
                torn += len(line)
                continue
            if torn:
                raise self._bad("lines in it are damaged", _START_ANEW)
            self._size += len(line)
            self._lines += 1
            held = self._told(fields, held)
        return version_0_1

    def _told(self, fields: list[str], held: list[tuple[str, LogEntry]] | None) -> list[tuple[str, LogEntry]] | None:
        try:
            word, when, octets, uid, *more = fields
            if word in (RUN, END):
                self.run_open = word == RUN
            elif word == APPEND:
                self.pending = PendingAppend(int(octets), uid, int(when), *map(int, more))
                return []
            elif word == APPENDED:
                self.entries.update(held or ())
                self.pending = None
                return None
            elif word == GONE:
                self.entries[uid] = replace(self.entries[uid], gone=int(when), away=True)
            elif word == BACK:
                self.entries[uid] = replace(self.entries[uid], gone=0)
            elif word == FORGOT:
                del self.entries[uid]
            else:
                entry = LogEntry(_KINDS[word], int(when), int(octets), more[0] if more else "")
                if held is not None:
                    held.append((uid, entry))
                else:
                    self.entries[uid] = entry
        except (ValueError, KeyError, TypeError):
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
            self._append(line_of(RUN, int(time.time()), 0, "-"))
            self.run_open = True

    def end_run(self) -> None:
        """All that was done is recorded. Raises OSError."""
        if self.run_open:
            self._append(line_of(END, int(time.time()), 0, "-"))
            self.run_open = False

    def begin_append(self, offset: int, token: str, octets: int = 0, padding: int = 0) -> PendingAppend:
        """Before an mbox grows, as `PendingAppend` says. Raises OSError."""
        pending = PendingAppend(offset, token, int(time.time()), octets, padding)
        self._append(pending.line())
        self.pending = pending
        return pending

    def settle(self) -> None:
        """The pending append is dealt with, and what was recorded of it counts for nothing. Raises OSError."""
        self.begin_append(0, "-")
        self.record(())

    def record(self, done: Iterable[tuple[str, LogEntry]]) -> None:
        """What was done, durably; the end of an append that was begun. Raises OSError, and then knows nothing of it."""
        entries = dict(done)
        lines = [line for uid, entry in entries.items() for line in entry.lines(uid)]
        if self.pending is not None:
            lines.append(line_of(APPENDED, int(time.time()), 0, "-"))
        if lines:
            self._append(b"".join(lines))
        self.entries |= entries
        self.pending = None

    def listed(self, uids: Iterable[str], now: int) -> None:
        """What the server lists; the rest is gone, which was listed before. Raises OSError."""
        there = set(uids)
        self._move(((uid, uid in there) for uid in list(self.entries)), now)

    def leaving(self, uids: Iterable[str], now: int) -> None:
        """Before the QUIT that removes them: they count as gone, whatever becomes of its answer. Raises OSError."""
        self._move(((uid, False) for uid in uids), now)

    def _move(self, found: Iterable[tuple[str, bool]], now: int) -> None:
        lines, changed = [], {}
        for uid, there in found:
            entry = self.entries[uid]
            if there != (not entry.gone):
                lines.append(line_of(BACK if there else GONE, now, 0, uid))
                changed[uid] = replace(entry, gone=0 if there else now, away=True)
        if lines:
            self._append(b"".join(lines))
        self.entries |= changed

    def forget(self, uids: Iterable[str], now: int) -> None:
        """What our QUIT has removed: the unique-ids are free for other messages (RFC 1939 §7). Raises OSError."""
        known = [uid for uid in uids if uid in self.entries]
        if known:
            self._append(b"".join(line_of(FORGOT, now, 0, uid) for uid in known))
        for uid in known:
            del self.entries[uid]

    def shorten(self, now: int) -> None:
        """Forget what is gone long enough, and rewrite the log when most of it is history. Raises OSError."""
        old = [uid for uid, entry in self.entries.items() if entry.gone and now - entry.gone > GONE_SECONDS]
        for uid in old:
            del self.entries[uid]
        if self._lines + len(old) > 2 * len(self.entries) + _REWRITTEN_ABOVE:
            self._rewrite()

    def _rewrite(self) -> None:
        """Put a log in its place that has the entries, a run that is open and an append that is pending, alone."""
        lines = [line for uid, entry in self.entries.items() for line in entry.lines(uid)]
        if self.run_open:
            lines.append(line_of(RUN, int(time.time()), 0, "-"))
        if self.pending is not None:
            lines.append(self.pending.line())
        try:
            with exchanged(self._path, mode=0o600) as log:
                log.write(_HEADER + self._account.encode() + b"\n" + b"".join(lines))
            fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        except BaseException:
            self._spoilt = True  # which of the two stands under the name is not known
            raise
        os.close(self._fd)
        self._fd, self._size, self._lines = fd, os.fstat(fd).st_size, len(lines)

    def _append(self, data: bytes) -> None:
        if self._spoilt:
            raise OSError(errno.EIO, "an earlier line could not be taken back")
        try:
            write_all(self._fd, data)
            os.fsync(self._fd)
        except OSError:
            # half of it may be there, and what comes behind it would be taken for damage
            self._spoilt = True
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
                self._spoilt = False
            raise
        self._size += len(data)
        self._lines += data.count(b"\n")


_START_ANEW: Final = (
    "restore it, or move it away: what is in a Maildir under our names is found again, other mail is fetched again"
)
