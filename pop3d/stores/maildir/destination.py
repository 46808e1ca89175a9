"""A Maildir that messages are brought into by groups (`pop3d.stores.arriving`), each of them once.

A message is written to tmp/, and its octets are on the disk before its name is recorded. Then it is renamed into new/
or cur/. While it is in tmp/ it was not published, and when it is gone from there it was, whatever became of it since: a
client may have deleted it. Only what programs remove from tmp/ as left over (36 hours, maildir(5)) is in doubt, and is
looked for.

*Names* sort in the order of the messages, for that is the order of a Maildir: they have the time when the import began
for the first time, and a number. A unique-id that is a Maildir's file name, and sorts behind the one before, becomes
the name. Any other is kept by `pop3d.stores.maildir.kept_ids`, before the message is visible.

*Speed*: the octets of a whole group are on their way to the disk before the first file is waited for, and many files
are waited for at once.

Blocking code for a process of its own, on descriptors of the folders, like `pop3d.stores.maildir.delivery`.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from pop3core.maildrop import UID_OCTETS_MAX
from pop3d.stores.arriving import ArrivingMessage, Intent
from pop3d.stores.maildir.delivery import (
    OpenMaildir,
    file_name,
    opened_maildir,
    remove_stale,
    write_message,
)
from pop3d.stores.maildir.folders import rename_new
from pop3d.stores.maildir.kept_ids import KeptIds, can_be_told
from pop3d.stores.maildir.names import entries_of, unique_part
from pop3d.stores.maildir.quota_file import add_to_quota_file
from pop3d.stores.quota import Quota

__all__ = ["MaildirDestination", "new_stamp"]

_FILE_NAME = re.compile(rb"[0-9]{9,10}\.[!-+\--.0-9;-~]+")
"""A unique-id that is the unique part of a delivered file's name: no comma, slash or colon in it."""

_SYNCS: Final = 16  # files that are waited for at once

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def new_stamp() -> str:
    """What all file names of an import have in common, with ``*`` for a message's number; no other import has it."""
    return file_name("I*")


@dataclass(frozen=True, slots=True)
class _Staged:
    """A message in tmp/. ``beside``: its name there; ``name``, ``folder``: of its file to be; ``octets``: as stored."""

    descriptor: int
    beside: bytes
    unique: bytes
    name: bytes
    folder: int
    uid: bytes | None
    arrived: int | None
    octets: int


class MaildirDestination:
    """The Maildir at ``path``, made when it is not there; see `pop3d.stores.arriving.MailDestination`.

    ``kept``: where unique-ids are kept; ``stamp``: of `new_stamp`, the same whenever this import is taken up again;
    ``first``: the first message's number, which none had before; ``last``: what was prepared last of all. ``ids``:
    unique-ids that messages in it have, beside those that names give and that are kept; ``keep_all``: unique-ids that
    names give are kept as well, since another server may give others. Raises OSError.
    """

    def __init__(
        self,
        path: str,
        quota: Quota,
        kept: KeptIds,
        stamp: str,
        first: int = 1,
        last: Intent | None = None,
        ids: Iterable[bytes] = (),
        keep_all: bool = False,
    ) -> None:
        self._path, self._quota, self._kept = path, quota, kept
        self._before, _, self._behind = os.fsencode(stamp).partition(b"*")
        self._next, self._keep_all = first, keep_all
        # unique part of the message before
        self._last = max((os.fsencode(unique) for _, unique, _ in last["files"]), default=b"") if last else b""
        self._staged: list[_Staged] = []
        self._prepared = False
        self._stack = contextlib.ExitStack()
        self._folders: OpenMaildir = self._stack.enter_context(opened_maildir(path))
        self._pool = self._stack.enter_context(ThreadPoolExecutor(_SYNCS))
        with contextlib.ExitStack() as undone:
            undone.callback(self._stack.close)
            remove_stale(self._folders.tmp)
            entries = list(entries_of(self._folders.root))
            self._ids = set(map(unique_part, entries))
            # what is kept for a message that is not there is free: perhaps an import was killed before it came
            self._ids.update([uid for unique, uid in kept.load(path).items() if unique in self._ids], ids)
            self._messages = len(entries)
            self._octets = sum(map(self._octets_of, entries)) if quota.octets else 0
            undone.pop_all()

    def close(self) -> None:
        """Free what it holds; what was staged and not prepared is gone."""
        self.drop()
        self._stack.close()

    def can_keep(self, uid: bytes) -> bool:
        """See `pop3d.stores.arriving.MailDestination.can_keep`."""
        return can_be_told(uid)

    def has_id(self, uid: bytes) -> bool:
        """See `pop3d.stores.arriving.MailDestination.has_id`."""
        return uid in self._ids

    def stage(self, message: ArrivingMessage, uid: bytes | None) -> int:
        """See `pop3d.stores.arriving.MailDestination.stage`."""
        beside = b"%b%07d%b" % (self._before, self._next, self._behind)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=self._folders.tmp)  # of a run that was killed, before it was recorded
        descriptor = os.open(beside, _NEW, 0o600, dir_fd=self._folders.tmp)
        try:
            stored, sent = write_message(descriptor, message.content())
            self._quota.check(self._messages, self._octets, stored)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(beside, dir_fd=self._folders.tmp)
            raise
        unique = beside
        if uid is not None and _FILE_NAME.fullmatch(uid) and len(uid) <= UID_OCTETS_MAX and uid > self._last:
            unique = uid
        name, folder = b"%b,S=%d,W=%d" % (unique, stored, sent), self._folders.new
        if message.flags is not None:
            name, folder = b"%b:2,%b" % (name, "".join(sorted(message.flags)).encode("ascii")), self._folders.cur
        self._staged.append(_Staged(descriptor, beside, unique, name, folder, uid, message.arrived, stored))
        self._next += 1
        self._last = unique
        self._ids.update((unique, uid) if uid is not None else (unique,))
        self._octets += stored
        self._messages += 1
        return stored

    def _octets_of(self, entry: bytes) -> int:
        """Of the file of an entry; 0 when it is gone by now."""
        try:
            return os.stat(entry.rpartition(b":\0")[0], dir_fd=self._folders.root, follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0

    def prepare(self) -> Intent:
        """See `pop3d.stores.arriving.MailDestination.prepare`."""
        for one in self._staged if hasattr(os, "posix_fadvise") else ():
            # this starts the writing and does not wait for it, so that the disk has work while the first is waited for
            os.posix_fadvise(one.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        # at once: a file system has one commit, and a disk one flush, for all that wait for one
        for _ in self._pool.map(os.fsync, [one.descriptor for one in self._staged]):
            pass
        os.fsync(self._folders.tmp)
        self._prepared = True
        return {"files": [[os.fsdecode(one.beside), os.fsdecode(one.unique), one.arrived] for one in self._staged]}

    def publish(self) -> None:
        """See `pop3d.stores.arriving.MailDestination.publish`."""
        assert self._prepared, "not recorded"
        ids = {one.unique: one.uid for one in self._staged if one.uid is not None}
        if not self._keep_all:
            ids = {unique: uid for unique, uid in ids.items() if unique != uid}
        self._kept.add(self._path, ids)
        for one in self._staged:
            rename_new(one.beside, one.name, source_fd=self._folders.tmp, target_fd=one.folder)
            _date(one.descriptor, one.arrived)  # not before: what is old in tmp/ is removed by whoever sees it
        for folder in {one.folder for one in self._staged}:
            os.fsync(folder)
        add_to_quota_file(self._folders.root, sum(one.octets for one in self._staged), len(self._staged))
        self._end()

    def drop(self) -> None:
        """See `pop3d.stores.arriving.MailDestination.drop`."""
        if not self._prepared:  # else it is recorded, and what is in tmp/ says how far it came
            for one in self._staged:
                with contextlib.suppress(OSError):
                    os.unlink(one.beside, dir_fd=self._folders.tmp)
                self._ids.discard(one.unique)
                self._ids.discard(one.uid or b"")
                self._octets -= one.octets
                self._messages -= 1
        self._end()

    def _end(self) -> None:
        for one in self._staged:
            os.close(one.descriptor)
        self._staged.clear()
        self._prepared = False

    def settle(self, intent: Intent, *, lately: bool) -> Sequence[bool]:
        """See `pop3d.stores.arriving.MailDestination.settle`."""
        there = {unique_part(entry): entry for entry in entries_of(self._folders.root)}
        verdicts = []
        for beside, unique, arrived in intent["files"]:
            entry = there.get(os.fsencode(unique))
            waiting = _inode(os.fsencode(beside), self._folders.tmp)
            published = None if entry is None else self._published(entry)
            try:
                if published is not None and waiting in (None, os.fstat(published).st_ino):
                    _date(published, arrived)
                    verdicts.append(True)
                else:
                    # what is neither here nor there was published, and a client has deleted it
                    verdicts.append(waiting is None and lately)
            finally:
                if published is not None:
                    os.close(published)
        return verdicts

    def _published(self, entry: bytes) -> int | None:
        """A descriptor of a message's file; None where it is gone."""
        name = entry.rpartition(b":\0")[0]
        try:
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._folders.root)
        except FileNotFoundError:
            return None

    def tidy(self) -> None:
        """See `pop3d.stores.arriving.MailDestination.tidy`."""
        with os.scandir(self._folders.tmp) as entries:
            for one in entries:
                if os.fsencode(one.name).startswith(self._before):
                    with contextlib.suppress(OSError):
                        os.unlink(one.name, dir_fd=self._folders.tmp)


def _date(descriptor: int, arrived: int | None) -> None:
    """Give a file the time at which its message came, which IMAP tells as INTERNALDATE."""
    if arrived is not None:
        with contextlib.suppress(OSError, OverflowError):  # a file system may refuse; it is mail all the same
            os.utime(descriptor, ns=(time.time_ns(), arrived))


def _inode(name: bytes, folder: int) -> int | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None
