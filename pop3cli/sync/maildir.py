"""A Maildir as a destination: each message a file that is there whole, or not at all.

A message is written into tmp/, its octets reach the disk, it gets its name in new/, and that name reaches the disk.
Many messages share the last step, which is one for the folder.

The name is made of account and unique-id. So a message that got its name when the log had not recorded it yet is found
again, in new/ and in cur/, where a reader has moved it; in subfolders as well. A unique-id is foreign text and never
part of a path: the name has a hash of it. Nothing here is ever replaced.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import socket
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from pop3cli.errors import SettingFault
from pop3cli.files import make_folder, sync_folder, write_all
from pop3cli.sync.spool import Spool
from pop3cli.sync.state import Kind, LogEntry, SyncState

__all__ = ["Maildir", "MaildirSpool"]

_FOLDERS: Final = ("tmp", "new", "cur")
_OURS: Final = re.compile(r"(\d+)\.M(\d+)_([0-9a-f]{48})\.")  # seconds, microseconds, key
_ACCOUNT_DIGITS: Final = 16  # of the 48: whose message it is
_PIECE: Final = 256 * 1024
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # of a file system that has no hard links


class MaildirSpool(Spool):
    """A message on its way into a Maildir. ``name``: its file's."""

    def __init__(self, folder: bytes, name: bytes) -> None:
        super().__init__()
        self.name = name
        self._path = os.path.join(folder, b"tmp", name)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def fileno(self) -> int:
        """The file, positioned behind what was written."""
        return self._fd

    def _write(self, text: bytes) -> None:
        write_all(self._fd, text)

    def close(self) -> None:
        """No more is written or read."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """It is not wanted after all."""
        self.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)


class Maildir:
    """The Maildir at ``path``, for messages of ``account``, or their headers alone, whose files are others.

    All methods block, and raise OSError.
    """

    def __init__(self, path: Path, account: str, *, headers_only: bool = False) -> None:
        self.path = path
        self._kind = Kind.HEADERS if headers_only else Kind.FETCHED
        self._folder = os.fsencode(path)
        self._account = hashlib.sha256(account.encode()).hexdigest()[:_ACCOUNT_DIGITS]
        self._account_name = account
        host = socket.gethostname().replace("/", "\\057").replace(":", "\\072") or "localhost"
        self._host = host.encode("ascii", "replace")

    def prepare(self) -> None:
        """Make it if it is not there, and clear away what a crash has left in tmp/. Raises `SettingFault`."""
        if self.path.exists() and not self.path.is_dir():
            raise SettingFault(f"destination {self.path}", "no folder, and no Maildir", "name a new or an empty one")
        if self.path.is_dir() and not (self.path / "cur").is_dir() and any(self.path.iterdir()):
            raise SettingFault(f"destination {self.path}", "a folder, and no Maildir", "name a new or an empty one")
        for folder in _FOLDERS:
            make_folder(self.path / folder)
        self._clear_tmp()

    def _clear_tmp(self) -> None:
        """Remove what a run of this account, on this machine, has left in tmp/; where that is a link, nothing."""
        try:
            folder = os.open(self.path / "tmp", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            for name in os.listdir(folder):
                ours = _OURS.match(name)
                # the state is locked, so nobody on this machine is writing for this account
                if ours and ours[3].startswith(self._account) and os.fsencode(name[ours.end() :]) == self._host:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)

    def begin(self, uid: str) -> MaildirSpool:
        """A message that is about to come."""
        now = time.time()
        name = b"%d.M%06d_%s.%s" % (now, now % 1 * 1e6, self._key(uid, self._kind).encode(), self._host)
        return MaildirSpool(self._folder, name)

    def store(self, drafts: Sequence[Spool], state: SyncState, done: Sequence[tuple[str, LogEntry]]) -> None:
        """Give messages their names, durably, and record what was done.

        All octets are on the disk before the first message has a name, all names before the first is recorded.
        """
        ours = [draft for draft in drafts if isinstance(draft, MaildirSpool)]
        if ours:
            state.begin_run()
        for draft in ours:
            os.fsync(draft.fileno())
        for draft in ours:
            draft.close()
            _move(os.path.join(self._folder, b"tmp", draft.name), os.path.join(self._folder, b"new", draft.name))
        if ours:
            sync_folder(self.path / "new")
        state.record(done)

    def recover(self, state: SyncState, listed: Iterable[tuple[str, int]]) -> str | None:
        """Record the messages of ``listed`` (unique-id, octets) that are here, but in no log; no remark.

        So it is behind a run that was killed, and when the state was lost. The id may have been given out again since
        such a file got its name, so it counts as `LogEntry.away`. Messages whose ids have become doubtful, and of which
        the log of version 0.1 has no digest, get the digest of their file.
        """
        if state.pending is not None:  # of an mbox, which was the destination before
            state.settle()
        unrecorded = state.run_open or not state.entries
        wanted: dict[str, tuple[str, int]] = {}
        headers: set[str] = set()  # keys of what are headers alone
        for uid, octets in listed:
            entry = state.entries.get(uid)
            if entry is None and unrecorded:
                headers.add(key := self._key(uid, Kind.HEADERS))
                wanted[key] = uid, octets
            if unrecorded if entry is None else _worth_a_look(entry, octets, unrecorded):
                wanted[self._key(uid, Kind.FETCHED)] = uid, octets
        done: dict[str, LogEntry] = {}
        for key, seconds, path in self._newest(wanted):
            uid, octets = wanted[key]
            if (found := _read(path)) is None or (key in headers and uid in done):
                continue
            counted, when, digest = found
            entry = state.entries.get(uid)
            if key in headers:
                done[uid] = LogEntry(Kind.HEADERS, when, octets, digest, away=True)
            elif entry is not None and entry.kind is Kind.FETCHED and not entry.digest:
                done[uid] = replace(entry, digest=digest)
            elif entry is None or (unrecorded and digest != entry.digest and seconds >= entry.time):
                done[uid] = LogEntry(Kind.FETCHED, when, counted, digest, away=True)
        if done:
            state.record(done.items())
        return None

    def _newest(self, keys: Collection[str]) -> Iterator[tuple[str, int, str]]:
        """Of each of ``keys`` the file that came last: its time (seconds of the Unix epoch), and where it is."""
        found: dict[str, tuple[tuple[int, int], str]] = {}
        for key, when, path in self._files() if keys else ():
            if key in keys and (key not in found or when >= found[key][0]):
                found[key] = when, path
        return ((key, seconds, path) for key, ((seconds, _), path) in found.items())

    def _files(self) -> Iterator[tuple[str, tuple[int, int], str]]:
        """What has a name of ours, here and in subfolders, whatever became of its flags: key, time, and where it is."""
        folders = [self.path, *(path for path in self.path.iterdir() if path.name.startswith(".") and path.is_dir())]
        for inside in ("new", "cur"):  # in this order: what a reader moves meanwhile is seen in one of them
            for folder in folders:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    for name in os.listdir(folder / inside):
                        if ours := _OURS.match(name):
                            yield ours[3], (int(ours[1]), int(ours[2])), os.path.join(folder, inside, name)

    def _key(self, uid: str, kind: Kind) -> str:
        # the account's digits let a crashed run's files in tmp/ be told from those of another account's run
        digits, variety = 48 - _ACCOUNT_DIGITS, "headers" if kind is Kind.HEADERS else ""
        return self._account + hashlib.sha256(f"{self._account_name}\n{variety}\n{uid}".encode()).hexdigest()[:digits]


def _worth_a_look(entry: LogEntry, octets: int, unrecorded: bool) -> bool:
    """Whether a file may say more than an entry: what a killed run has fetched of an id that it knew, or a digest.

    What the server has listed all along, with the same size, was not fetched again.
    """
    if entry.kind is Kind.FETCHED:
        return (entry.away or entry.octets != octets) and (unrecorded or not entry.digest)
    return unrecorded


def _move(source: bytes, target: bytes) -> None:
    """Give a message its name in new/: never one that something has already, which a rename would replace."""
    try:
        os.link(source, target)
    except OSError as fault:
        if fault.errno not in _NO_LINKS or os.path.lexists(target):
            raise
        os.rename(source, target)  # nobody else makes names with our key, and the state is locked
        return
    os.unlink(source)


def _read(path: str) -> tuple[int, int, str] | None:
    """A message's octets as sent, when it was written (seconds of the Unix epoch), its digest; None if it is gone.

    It is whole, for it has its name.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    octets, digest = 0, hashlib.sha256()
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        while piece := os.read(fd, _PIECE):
            octets += len(piece) + piece.count(b"\n")
            digest.update(piece)
    finally:
        os.close(fd)
    return octets, int(status.st_mtime), digest.hexdigest()
