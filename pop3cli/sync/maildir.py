"""A Maildir as a destination: each message a file that is there whole, or not at all.

A message is written into tmp/, its octets reach the disk, it gets its name in new/, and that name reaches the disk.
Many messages share the last step, which is one for the folder.

The name is made of account and unique-id. So a message that got its name when the log had not recorded it yet is found
again, in new/ and in cur/, where a reader has moved it; in subfolders as well. A unique-id is foreign text and never
part of a path: the name has a hash of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from pop3cli.errors import SettingFault
from pop3cli.sync.draft import Draft
from pop3cli.sync.state import Entry, Kind, State, make_folder, sync_folder

__all__ = ["Maildir", "MaildirDraft"]

_FOLDERS: Final = ("tmp", "new", "cur")
_OURS: Final = re.compile(r"\d+\.M\d+_([0-9a-f]{48})\.")
_ACCOUNT_DIGITS: Final = 16  # of the 48: whose message it is
_PIECE: Final = 256 * 1024


class MaildirDraft(Draft):
    """A message on its way into a Maildir. ``name``: its file's."""

    def __init__(self, folder: bytes, name: bytes) -> None:
        super().__init__()
        self.name = name
        self._path = os.path.join(folder, b"tmp", name)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def fileno(self) -> int:
        """The file, positioned behind what was written."""
        return self._fd

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

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
    """The Maildir at ``path``, for messages of ``account``; ``variety``: sets apart what is not whole messages.

    All methods block, and raise OSError.
    """

    def __init__(self, path: Path, account: str, variety: str = "") -> None:
        self.path = path
        self._folder = os.fsencode(path)
        self._account = hashlib.sha256(account.encode()).hexdigest()[:_ACCOUNT_DIGITS]
        self._salt = f"{account}\n{variety}\n".encode()
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
        for name in os.listdir(self.path / "tmp"):
            ours = _OURS.match(name)
            # the state is locked, so nobody is writing for this account
            if ours and ours[1].startswith(self._account):
                with contextlib.suppress(FileNotFoundError):
                    (self.path / "tmp" / name).unlink()

    def begin(self, uid: str) -> MaildirDraft:
        """A message that is about to come."""
        now = time.time()
        name = b"%d.M%06d_%s.%s" % (now, now % 1 * 1e6, self._key(uid).encode(), self._host)
        return MaildirDraft(self._folder, name)

    def store(self, drafts: Sequence[Draft], state: State, done: Sequence[tuple[str, Entry]]) -> None:
        """Give messages their names, durably, and record what was done.

        All octets are on the disk before the first message has a name, all names before the first is recorded.
        """
        ours = [draft for draft in drafts if isinstance(draft, MaildirDraft)]
        if ours:
            state.begin_run()
        for draft in ours:
            os.fsync(draft.fileno())
        for draft in ours:
            draft.close()
            os.rename(os.path.join(self._folder, b"tmp", draft.name), os.path.join(self._folder, b"new", draft.name))
        if ours:
            sync_folder(self.path / "new")
        state.record(done)

    def recover(self, state: State, listed: Iterable[tuple[str, int]]) -> str | None:
        """Record the messages of ``listed`` (unique-id, octets) that are here, but in no log; no remark.

        So it is behind a run that was killed, and when the state was lost.
        """
        if not state.run_open and state.entries:
            return None
        keys = {self._key(uid): (uid, octets) for uid, octets in listed if uid not in state.entries}
        done: dict[str, Entry] = {}
        for key, path in self._files():
            if key in keys:
                uid, octets = keys[key]
                with contextlib.suppress(FileNotFoundError):
                    done[uid] = _entry(path, octets)
        if done:
            state.record(done.items())
        return None

    def _files(self) -> Iterator[tuple[str, str]]:
        """What has a name of ours, here and in subfolders, whatever became of its flags: its key, and where it is."""
        folders = [self.path, *(path for path in self.path.iterdir() if path.name.startswith(".") and path.is_dir())]
        for inside in ("new", "cur"):  # in this order: what a reader moves meanwhile is seen in one of them
            for folder in folders:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    for name in os.listdir(folder / inside):
                        if ours := _OURS.match(name):
                            yield ours[1], os.path.join(folder, inside, name)

    def _key(self, uid: str) -> str:
        # the account's digits let a crashed run's files in tmp/ be told from those of another account's run
        digits = 48 - _ACCOUNT_DIGITS
        return self._account + hashlib.sha256(self._salt + uid.encode()).hexdigest()[:digits]


def _entry(path: str, announced: int) -> Entry:
    """What the log would say of a file. It is whole, for it has its name; whether its size is odd is counted again."""
    octets, digest = 0, hashlib.sha256()
    with open(path, "rb") as file:
        when = int(os.fstat(file.fileno()).st_mtime)
        while piece := file.read(_PIECE):
            octets += len(piece) + piece.count(b"\n")
            digest.update(piece)
    if octets == announced:
        return Entry(Kind.FETCHED, when, announced)
    return Entry(Kind.ODD, when, announced, digest.hexdigest())
