"""Removing messages from a Maildir, durably: what is confirmed is gone after a power cut too.

A message is unlinked under whatever name it has now, then the folder it was in is synced; both must work before anybody
says +OK (RFC 1939 §6). With soft deletion it is moved by rename to a Maildir of deleted ones instead, on the same file
system, from where `pop3d.stores.maildir_deleted` brings it home; what lies there longer than the retention is unlinked
at the next removal.

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

from pop3d.stores.maildir_deleted import open_deleted

__all__ = ["Removal", "SoftDelete", "mark_seen"]

_DAY: Final = 86_400  # seconds
_TRIES: Final = 100  # names tried when that of a deleted message is taken already

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class SoftDelete:
    """Deleted messages are kept in the Maildir at ``path``. ``retention_days``: then they go; None: never."""

    path: str
    retention_days: float | None = None


class Removal:
    """One removal of messages from the Maildir ``root``.

    ``name_of``: a message's file below it; ``find``: looks for one that has another name now, raises FileNotFoundError.
    """

    def __init__(
        self, root: int, name_of: Callable[[int], bytes], find: Callable[[int], None], soft: SoftDelete | None = None
    ) -> None:
        self._root, self._name_of, self._find, self._soft = root, name_of, find, soft
        self.details: list[str] = []
        """What went wrong, for the log."""

    def run(self, numbers: Iterable[int]) -> list[int]:
        """Remove messages; the numbers of those that may still be there."""
        numbers = list(numbers)
        if self._soft is None:
            return self._remove(numbers, self._unlink, [])
        try:
            deleted = open_deleted(self._soft.path, self._root)
        except OSError as fault:
            self.details.append(f"{self._soft.path}: {fault.strerror}")
            return numbers
        try:
            left = self._remove(numbers, lambda name: _move(self._root, name, deleted), [deleted])
            if self._soft.retention_days is not None:
                _expire(deleted, time.time() - self._soft.retention_days * _DAY)
            return left
        finally:
            os.close(deleted)

    def _remove(self, numbers: list[int], take: Callable[[bytes], None], also: list[int]) -> list[int]:
        left: list[int] = []
        folders: dict[bytes, list[int]] = {}
        for number in numbers:
            try:
                folders.setdefault(self._take(number, take), []).append(number)
            except OSError as fault:
                left.append(number)
                self.details.append(f"{os.fsdecode(self._name_of(number))!r}: {fault.strerror}")
        try:
            # where messages were moved to comes first: a power cut in between leaves two, never none
            for descriptor in also:
                os.fsync(descriptor)
        except OSError as fault:
            self.details.append(f"sync of deleted messages: {fault.strerror}")
            return numbers
        for folder, removed in folders.items():
            try:
                _sync(self._root, folder)
            except OSError as fault:
                # gone now, but nobody can promise for after a power cut
                left += removed
                self.details.append(f"sync of {os.fsdecode(folder)}: {fault.strerror}")
        return sorted(left)

    def _take(self, number: int, take: Callable[[bytes], None]) -> bytes:
        """Take a message away under whatever name it has; the folder to be synced."""
        try:
            take(self._name_of(number))
        except FileNotFoundError:
            try:
                self._find(number)
            except FileNotFoundError:
                return self._name_of(number)[:3]  # another program has removed it: so be it, durably
            take(self._name_of(number))
        return self._name_of(number)[:3]

    def _unlink(self, name: bytes) -> None:
        os.unlink(name, dir_fd=self._root)


def mark_seen(root: int, name: bytes) -> None:
    """Move a message to cur/ with the flag S, where it has not got it. Raises OSError. Not durable: only a flag."""
    unique, _, info = name[len(b"cur/") :].partition(b":")
    flags = set(info.removeprefix(b"2,").decode("ascii", "replace")) if info.startswith(b"2,") else set()
    if info and not info.startswith(b"2,"):
        return  # flags of a kind that is not known here are left alone
    if "S" in flags and name.startswith(b"cur/"):
        return
    seen = b"cur/%b:2,%b" % (unique, "".join(sorted(flags | {"S"})).encode("ascii", "ignore"))
    os.rename(name, seen, src_dir_fd=root, dst_dir_fd=root)


def _move(root: int, name: bytes, deleted: int) -> None:
    """Move a message to the deleted ones. One of the same name there stays."""
    base = name[len(b"cur/") :]
    for attempt in range(_TRIES):
        unique, colon, info = base.partition(b":")
        target = base if not attempt else b"%b,D=%d%b%b" % (unique, attempt, colon, info)
        try:
            os.link(name, target, src_dir_fd=root, dst_dir_fd=deleted, follow_symlinks=False)
        except FileExistsError:
            continue
        os.unlink(name, dir_fd=root)
        return
    raise OSError(errno.EEXIST, f"{_TRIES} deleted messages have that name")


def _expire(deleted: int, before: float) -> None:
    """Unlink what was deleted before that time: linking it there has set its time of change."""
    with contextlib.suppress(OSError), os.scandir(deleted) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_ctime < before:
                    os.unlink(entry.name, dir_fd=deleted)


def _sync(root: int, folder: bytes) -> None:
    descriptor = os.open(folder, _FOLDER, dir_fd=root)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
