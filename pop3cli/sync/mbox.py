"""An mbox as a destination: one file that grows, under the locks that other mail programs know.

It is locked by a file beside it (``.lock``) and by fcntl. Where it ends is written into the state before it grows, and
that it has grown behind it; so after a crash it is cut back to where it was, unless somebody else has added mail since.
Lines that look like the beginning of a message get a ">" more (mboxrd).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import socket
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, cast

from pop3cli.errors import InUse, SettingFault
from pop3cli.sync.draft import Draft
from pop3cli.sync.state import Entry, State, make_folder, sync_folder

__all__ = ["Mbox"]

LOCK_SECONDS: Final = 30.0
"""Patience with another program that has the mbox."""

_LOOK_SECONDS: Final = 0.1
_LOOK_OCTETS: Final = 4096  # in which an mbox has begun
_LINE_MAX: Final = 64 * 1024  # octets of a line read at a time
_FROM: Final = re.compile(rb">*From ")


class MboxDraft(Draft):
    """A message on its way into an mbox, in a file without a name."""

    def __init__(self) -> None:
        super().__init__()
        self.file = cast(BinaryIO, tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - see close

    def fileno(self) -> int:
        """The file, positioned behind what was written."""
        return self.file.fileno()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) :]

    def close(self) -> None:
        """The file is gone with it."""
        self.file.close()

    discard = close


class Mbox:
    """The mbox at ``path``. All methods block, and raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Raises `SettingFault` where no mbox can be."""
        if self.path.exists() and not stat.S_ISREG(self.path.stat().st_mode):
            raise SettingFault(f"destination {self.path}", "no mbox: not a regular file", "name a new file")
        if self.path.exists() and not _may_grow(self.path):
            raise SettingFault(f"destination {self.path}", "a file, and no mbox", "name a new or an empty one")
        make_folder(self.path.parent)

    def begin(self, uid: str) -> MboxDraft:
        """A message that is about to come."""
        return MboxDraft()

    def store(self, drafts: Sequence[Draft], state: State, done: Sequence[tuple[str, Entry]]) -> None:
        """Add messages, durably, and record what was done; all of them, or none."""
        if not drafts:
            state.record(done)
            return
        with self._locked() as fd:
            offset = os.fstat(fd).st_size
            token = secrets.token_hex(8)
            state.begin_append(offset, token)
            try:
                self._append(fd, offset, token, drafts)
                os.fsync(fd)
                if not offset:
                    sync_folder(self.path.parent)
                state.record(done)
            except BaseException:
                os.ftruncate(fd, offset)
                os.fsync(fd)
                raise
        for draft in drafts:
            draft.close()

    def _append(self, fd: int, offset: int, token: str, drafts: Sequence[Draft]) -> None:
        ends = os.pread(fd, 2, max(offset - 2, 0))
        with open(fd, "wb", closefd=False) as out:
            out.seek(0, os.SEEK_END)
            if offset and ends != b"\n\n":
                out.write(b"\n" if ends.endswith(b"\n") else b"\n\n")
            for draft in drafts:
                out.write(f"From pop3cli-{token} {time.asctime(time.gmtime())}\n".encode())
                os.lseek(draft.fileno(), 0, os.SEEK_SET)
                with open(draft.fileno(), "rb", closefd=False) as text:
                    last = _copy(text, out)
                out.write(b"\n" if last.endswith(b"\n") else b"\n\n")

    def recover(self, state: State, listed: Iterable[tuple[str, int]]) -> str | None:
        """Cut back what a crash has left; a remark, when that could not be done. ``listed`` is not looked at."""
        pending = state.pending
        if pending is None:
            return None
        remark = None
        with self._locked() as fd:
            size = os.fstat(fd).st_size
            if size < pending.offset:
                remark = f"{self.path} was changed by another program; messages may be in it twice"
            elif size > pending.offset:
                if _others(fd, pending.offset, f"From pop3cli-{pending.token} ".encode()):
                    remark = (
                        f"{self.path} has mail of another program behind a crash of ours; messages may be in it twice"
                    )
                else:
                    os.ftruncate(fd, pending.offset)
                    os.fsync(fd)
            # what was recorded of the append that was cut counts for nothing: so another one, of nothing
            state.begin_append(min(size, pending.offset), pending.token)
            state.record(())
        return remark

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        deadline = time.monotonic() + LOCK_SECONDS
        with self._dot_lock(deadline):
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                while True:
                    try:
                        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except (BlockingIOError, PermissionError):
                        self._wait(deadline)
                yield fd
            finally:
                os.close(fd)

    @contextlib.contextmanager
    def _dot_lock(self, deadline: float) -> Iterator[None]:
        path = f"{self.path}.lock"
        mine = f"{os.getpid()} pop3cli {socket.gethostname()}\n".encode()
        while True:
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                break
            except FileExistsError:
                if _left_behind(path):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)
                else:
                    self._wait(deadline)
            except PermissionError:  # a spool where only fcntl is for everyone
                yield
                return
        try:
            os.write(fd, mine)
            os.close(fd)
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _wait(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise InUse(f"mbox {self.path}", f"another program has had it locked for {LOCK_SECONDS:.0f} s")
        time.sleep(_LOOK_SECONDS)


def _may_grow(path: Path) -> bool:
    """Whether a file is an mbox, or nothing yet: mail is added to no other."""
    with path.open("rb") as file:
        text = file.read(_LOOK_OCTETS)
    begin = text.lstrip(b"\r\n")
    return begin.startswith(b"From ") if begin else len(text) < _LOOK_OCTETS


def _copy(text: BinaryIO, out: BinaryIO) -> bytes:
    """Copy a message, its From_ lines quoted; the last piece that was written."""
    piece, at_line_start = b"", True
    while line := text.readline(_LINE_MAX):
        if at_line_start and _FROM.match(line):
            out.write(b">")
        out.write(line)
        piece, at_line_start = line, line.endswith(b"\n")
    return piece


def _others(fd: int, offset: int, separator: bytes) -> bool:
    """Whether a message that is not ours begins behind ``offset``."""
    os.lseek(fd, offset, os.SEEK_SET)
    at_line_start = True
    with open(fd, "rb", closefd=False) as file:
        while line := file.readline(_LINE_MAX):
            if at_line_start and line.startswith(b"From ") and not line.startswith(separator):
                return not separator.startswith(line)  # cut within our own separator
            at_line_start = line.endswith(b"\n")
    return False


def _left_behind(path: str) -> bool:
    """Whether a lock is ours, of a process that is no more."""
    try:
        with open(path, "rb") as file:
            words = file.read(300).decode("ascii", "replace").split()
    except FileNotFoundError:
        return False
    if len(words) != 3 or words[1] != "pop3cli" or words[2] != socket.gethostname() or not words[0].isdigit():
        return False
    try:
        os.kill(int(words[0]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False
