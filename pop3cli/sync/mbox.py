"""An mbox as a destination: one file that grows, under the locks that other mail programs know.

Other programs add mail to it as well, also behind a crash of ours, when our locks are no more. Their mail must never be
cut off with what is left of ours, so we have to know whose an octet is. Three things see to that:

- Where the mbox ends, and how many octets are to come, is written into the state before it grows (`PendingAppend`).
- The room for them is claimed first: so many octets, a separator line of ours and line ends, are added to the end of
  the file, and reach the disk. Then the messages are written into that room. Whoever adds mail does so behind it.
- That all is there is written into the state behind it.

So a crash leaves a part of the room, or the room with a part of the messages in it, and the file ends where the room
does: it is cut back. When the file is longer, or the separator line is not where it was, others have been there: then
nothing is cut, what is left of ours stays, and the messages are fetched again.

Lines that look like the beginning of a message get a ">" more (mboxrd).
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, cast

from pop3cli.errors import SettingFault
from pop3cli.files import make_folder, sync_folder, write_all
from pop3cli.sync.mbox_lock import locked, same_file
from pop3cli.sync.spool import Spool
from pop3cli.sync.state import LogEntry, PendingAppend, SyncState

__all__ = ["Mbox"]

_LOOK_OCTETS: Final = 4096  # in which an mbox has begun
_LINE_MAX: Final = 64 * 1024  # octets of a line read at a time
_LINE_ENDS: Final = b"\n" * (1024 * 1024)  # written at a time
_FROM: Final = re.compile(rb">*From ")


class MboxSpool(Spool):
    """A message on its way into an mbox, in a file without a name."""

    def __init__(self) -> None:
        super().__init__()
        self.file = cast(BinaryIO, tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - see close

    def fileno(self) -> int:
        """The file, positioned behind what was written."""
        return self.file.fileno()

    @property
    def octets(self) -> int:
        """How many it takes in an mbox, behind its separator line."""
        os.lseek(self.fileno(), 0, os.SEEK_SET)
        octets, last = 0, b""
        with open(self.fileno(), "rb", closefd=False) as text:
            for last in _quoted(text):
                octets += len(last)
        return octets + (1 if last.endswith(b"\n") else 2)

    def _write(self, text: bytes) -> None:
        write_all(self.fileno(), text)

    def close(self) -> None:
        """The file is gone with it."""
        self.file.close()

    discard = close


class Mbox:
    """The mbox at ``path``, or where that leads as a link. All methods block, and raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = Path(os.path.realpath(path))  # whose name with .lock other programs know

    def prepare(self) -> None:
        """Raises `SettingFault` where no mbox can be."""
        if self._file.exists() and not stat.S_ISREG(self._file.stat().st_mode):
            raise SettingFault(f"destination {self.path}", "no mbox: not a regular file", "name a new file")
        if self._file.exists() and not _may_grow(self._file):
            raise SettingFault(f"destination {self.path}", "a file, and no mbox", "name a new or an empty one")
        make_folder(self._file.parent)

    def begin(self, uid: str) -> MboxSpool:
        """A message that is about to come."""
        return MboxSpool()

    def store(self, drafts: Sequence[Spool], state: SyncState, done: Sequence[tuple[str, LogEntry]]) -> None:
        """Add messages, durably, and record what was done; all of them, or none."""
        if not drafts:
            state.record(done)
            return
        texts = [draft for draft in drafts if isinstance(draft, MboxSpool)]
        with locked(self._file) as fd:
            offset = os.fstat(fd).st_size
            ends = os.pread(fd, 2, max(offset - 2, 0))
            padding = 0 if not offset or ends == b"\n\n" else 1 if ends.endswith(b"\n") else 2
            token = secrets.token_hex(8)
            octets = padding + sum(len(_separator(token, 0)) + draft.octets for draft in texts)
            pending = state.begin_append(offset, token, octets, padding)
            try:
                self._append(fd, pending, texts)
            except BaseException:
                _cut_back(fd, pending)
                raise
            if not offset:
                sync_folder(self._file.parent)
            state.record(done)
        for draft in drafts:
            draft.close()

    def _append(self, fd: int, pending: PendingAppend, drafts: Sequence[MboxSpool]) -> None:
        """Claim the room that the messages need, as one addition to the file's end, then write them into it.

        So whoever adds to the file meanwhile, or behind a crash of ours, does so behind our room and never within.
        """
        _claim(fd, pending)
        with open(fd, "wb", closefd=False) as out:
            out.seek(pending.offset + pending.padding)
            for draft in drafts:
                out.write(_separator(pending.token, pending.time))
                os.lseek(draft.fileno(), 0, os.SEEK_SET)
                with open(draft.fileno(), "rb", closefd=False) as text:
                    last = _copy(text, out)
                out.write(b"\n" if last.endswith(b"\n") else b"\n\n")
            if out.tell() != pending.offset + pending.octets:
                raise OSError(errno.EIO, "not as many octets as were counted")
        os.fsync(fd)
        if not same_file(fd, self._file):
            raise OSError(errno.ESTALE, "another program has put another file in its place")

    def recover(self, state: SyncState, listed: Iterable[tuple[str, int]]) -> str | None:
        """Cut back what a crash has left; a remark, when that could not be done. ``listed`` is not looked at."""
        pending = state.pending
        if pending is None:
            return None
        remark = None
        with locked(self._file) as fd:
            size = os.fstat(fd).st_size
            if size < pending.offset:
                remark = f"{self.path} was changed by another program; messages may be in it twice"
            elif size > pending.offset and not _cut_back(fd, pending):
                remark = (
                    f"{self.path} may have mail of another program behind a crash of ours; nothing was cut off, and"
                    " messages may be in it twice"
                )
            state.settle()
        return remark


def _may_grow(path: Path) -> bool:
    """Whether a file is an mbox, or nothing yet: mail is added to no other."""
    with path.open("rb") as file:
        text = file.read(_LOOK_OCTETS)
    begin = text.lstrip(b"\r\n")
    return begin.startswith(b"From ") if begin else len(text) < _LOOK_OCTETS


def _quoted(text: BinaryIO) -> Iterator[bytes]:
    """A message in pieces, its From_ lines quoted."""
    at_line_start = True
    while line := text.readline(_LINE_MAX):
        if at_line_start and _FROM.match(line):
            yield b">"
        yield line
        at_line_start = line.endswith(b"\n")


def _copy(text: BinaryIO, out: BinaryIO) -> bytes:
    """Copy a message, its From_ lines quoted; the last piece that was written."""
    piece = b""
    for piece in _quoted(text):
        out.write(piece)
    return piece


def _separator(token: str, when: int) -> bytes:
    """The line before a message of ours; ``when`` does not change its length."""
    return f"From pop3cli-{token} {time.asctime(time.gmtime(when))}\n".encode()


def _room(pending: PendingAppend) -> Iterator[bytes]:
    """What claims the room of an append, in pieces: a first separator, and line ends."""
    head = b"\n" * pending.padding + _separator(pending.token, pending.time)
    yield head
    left = pending.octets - len(head)
    while left > 0:
        yield _LINE_ENDS[:left]
        left -= len(_LINE_ENDS)


def _claim(fd: int, pending: PendingAppend) -> None:
    """Add the room to the file's end, durably. Raises OSError, also when somebody else has added to it meanwhile."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_APPEND)  # another descriptor's end would end the lock
    try:
        for piece in _room(pending):
            write_all(fd, piece)
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    if os.lseek(fd, 0, os.SEEK_CUR) != pending.offset + pending.octets:
        raise OSError(errno.EBUSY, "another program adds to it without a lock")
    os.fsync(fd)  # before a message is written: behind a power cut the size says whose an octet is


def _cut_back(fd: int, pending: PendingAppend) -> bool:
    """Cut the file back to where it was before an append, if all behind that is ours beyond doubt; whether it is.

    Either the room has not been claimed to its end, and nothing else is there; or it ends where the file does, and
    begins as it should. Anything more is mail of others, and an append of version 0.1 has no room. What cannot be told
    from others' mail stays as it is.
    """
    size = os.fstat(fd).st_size
    if size <= pending.offset:
        return True
    if not pending.octets or size > pending.offset + pending.octets:
        return False
    position = pending.offset
    for piece in _room(pending):
        there = os.pread(fd, len(piece), position)
        if not piece.startswith(there):
            if position == pending.offset or size < pending.offset + pending.octets:
                return False
            break
        position += len(there)
        if len(there) < len(piece):
            break
    os.ftruncate(fd, pending.offset)
    os.fsync(fd)
    return True
