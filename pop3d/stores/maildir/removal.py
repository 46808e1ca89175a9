"""Removing messages from a Maildir, durably: what is confirmed is gone after a power cut too.

A message is unlinked under whatever name it has now, then the folder it was in is synced; both must work before anybody
says +OK (RFC 1939 §6). Only the very file that was listed is removed, as `pop3d.stores.maildir.identity` tells. With
soft deletion it is moved to a Maildir of deleted ones instead, on the same file system, from where
`pop3d.stores.maildir.deleted` brings it home; what lies there longer than the retention is unlinked at the next
removal. A Maildir++ quota file is told of what went (`pop3d.stores.maildir.quota_file`).

Plain, blocking code for a worker thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from pop3d.stores.maildir.deleted import open_deleted
from pop3d.stores.maildir.folders import rename_new
from pop3d.stores.maildir.identity import ListedFiles, Located
from pop3d.stores.maildir.names import (
    OpenFolders,
    base_of,
    entries_of,
    file_of,
    folder_of,
    name_and_inode,
    unique_part,
)
from pop3d.stores.maildir.quota_file import add_to_quota_file, counted_octets

__all__ = ["Removal", "SoftDelete", "mark_seen"]

_DAY: Final = 86_400  # seconds
_RENAMED_MAX: Final = 10  # times that a message is looked for, because it was renamed while it was removed
_TRIES: Final = 100  # names tried when that of a deleted message is taken already


@dataclass(frozen=True, slots=True)
class SoftDelete:
    """Deleted messages are kept in the Maildir at ``path``. ``retention_days``: then they go; None: never."""

    path: str
    retention_days: float | None = None


class Removal:
    """One removal of messages of a listing."""

    def __init__(self, files: ListedFiles, soft: SoftDelete | None = None) -> None:
        self._files, self._soft = files, soft
        self.details: list[str] = []
        """What went wrong, for the log."""
        self._folders: dict[bytes, list[int]] = {}  # to be synced, and for which messages
        self._linked: dict[bytes, int] = {}  # files with more than one name, removed by one of them; see `file_of`
        self._octets = self._messages = 0  # that went, as a quota file counts them

    def run(self, numbers: Iterable[int]) -> list[int]:
        """Remove messages; the numbers of those that may still be there."""
        try:
            return self._run(list(numbers))
        finally:
            add_to_quota_file(self._files.root, -self._octets, -self._messages)

    def _run(self, numbers: list[int]) -> list[int]:
        with OpenFolders(self._files.root) as folders:
            if self._soft is None:
                return self._remove(numbers, folders, _unlink, None)
            try:
                deleted = open_deleted(self._soft.path, self._files.root)
            except OSError as fault:
                self.details.append(f"{self._soft.path}: {fault.strerror}")
                return numbers
            try:
                left = self._remove(numbers, folders, lambda located: _move(located, deleted), deleted)
                if self._soft.retention_days is not None:
                    _expire(deleted, time.time() - self._soft.retention_days * _DAY)
                return left
            finally:
                os.close(deleted)

    def _remove(
        self, numbers: list[int], folders: OpenFolders, take: Callable[[Located], None], also: int | None
    ) -> list[int]:
        left: set[int] = set()
        for number in numbers:
            try:
                self._take(number, folders, take)
            except OSError as fault:
                left.add(number)
                self.details.append(f"{os.fsdecode(self._files.name(number))!r}: {fault.strerror}")
        try:
            # where messages were moved to comes first: a power cut in between leaves two, never none
            if also is not None:
                os.fsync(also)
        except OSError as fault:
            self.details.append(f"sync of deleted messages: {fault.strerror}")
            return numbers
        left |= self._remove_other_names(folders)
        for folder, removed in self._folders.items():
            try:
                os.fsync(folders.of(folder))
            except OSError as fault:
                # gone now, but nobody can promise for after a power cut
                left.update(removed)
                self.details.append(f"sync of {os.fsdecode(folder)}: {fault.strerror}")
        return sorted(left)

    def _take(self, number: int, folders: OpenFolders, take: Callable[[Located], None]) -> None:
        """Take a message away under whatever name it has; note the folder to be synced."""
        # FileNotFoundError: another program has removed it, so be it, durably
        with contextlib.suppress(FileNotFoundError):
            located = self._taken(number, folders, take)
            if located.found.st_nlink > 1:
                self._linked[b"%b/%x" % (unique_part(located.name), located.found.st_ino)] = number
        self._folders.setdefault(folder_of(self._files.name(number)), []).append(number)

    def _taken(self, number: int, folders: OpenFolders, take: Callable[[Located], None]) -> Located:
        for _ in range(_RENAMED_MAX):
            located = self._files.locate(number, folders)
            try:
                take(located)
            except FileNotFoundError:
                continue  # renamed at this moment: it is looked for again
            self._count(located.name, located.found)
            return located
        raise OSError(errno.EBUSY, "another program renames it all the time")

    def _count(self, name: bytes, found: os.stat_result) -> None:
        self._octets += counted_octets(name, found.st_size)
        self._messages += 1

    def _remove_other_names(self, folders: OpenFolders) -> set[int]:
        """Messages of which another name may be left: a program that links and unlinks was killed in between."""
        if not self._linked:
            return set()
        left = set()
        try:
            for entry in entries_of(self._files.root):
                if (number := self._linked.get(file_of(entry))) is not None:
                    name, inode = name_and_inode(entry)
                    left.add(number)
                    found = os.stat(base_of(name), dir_fd=folders.of(name), follow_symlinks=False)
                    if found.st_ino == inode:
                        os.unlink(base_of(name), dir_fd=folders.of(name))
                        self._count(name, found)
                    self._folders.setdefault(folder_of(name), []).append(number)
                    left.discard(number)
        except OSError as fault:
            self.details.append(f"other names of removed messages: {fault.strerror}")
            return set(self._linked.values())
        return left


def _unlink(located: Located) -> None:
    os.unlink(base_of(located.name), dir_fd=located.folder)


def mark_seen(files: ListedFiles, number: int) -> None:
    """Move a message to cur/ with the flag S, where it has not got it. Raises OSError. Not durable: only a flag.

    FileExistsError where another file has that name: nothing is ever replaced.
    """
    with OpenFolders(files.root) as folders:
        located = files.locate(number, folders)
        base = base_of(located.name)
        unique, _, info = base.partition(b":")
        flags = set(info.removeprefix(b"2,").decode("ascii", "replace")) if info.startswith(b"2,") else set()
        if info and not info.startswith(b"2,"):
            return  # flags of a kind that is not known here are left alone
        if "S" in flags and folder_of(located.name) == b"cur":
            return
        seen = b"%b:2,%b" % (unique, "".join(sorted(flags | {"S"})).encode("ascii", "ignore"))
        rename_new(base, seen, source_fd=located.folder, target_fd=folders.of(b"cur"))


def _move(located: Located, deleted: int) -> None:
    """Move a message to the deleted ones. One of the same name there stays."""
    base = base_of(located.name)
    for attempt in range(_TRIES):
        unique, colon, info = base.partition(b":")
        target = base if not attempt else b"%b,D=%d%b%b" % (unique, attempt, colon, info)
        try:
            os.link(base, target, src_dir_fd=located.folder, dst_dir_fd=deleted, follow_symlinks=False)
        except FileExistsError:
            if not _same_file(located, target, deleted):
                continue  # another message; the same one is there when a removal before was killed
        else:
            if not _same_file(located, target, deleted):
                os.unlink(target, dir_fd=deleted)
                raise OSError(errno.ESTALE, "another file took its name at this moment")
        os.unlink(base, dir_fd=located.folder)
        return
    raise OSError(errno.EEXIST, f"{_TRIES} deleted messages have that name")


def _same_file(located: Located, target: bytes, deleted: int) -> bool:
    return os.path.samestat(located.found, os.stat(target, dir_fd=deleted, follow_symlinks=False))


def _expire(deleted: int, before: float) -> None:
    """Unlink what was deleted before that time: linking it there has set its time of change."""
    with contextlib.suppress(OSError), os.scandir(deleted) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_ctime < before:
                    os.unlink(entry.name, dir_fd=deleted)
