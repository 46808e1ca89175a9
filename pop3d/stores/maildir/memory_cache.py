"""Listings of mailboxes that were opened lately, for those who come again and find nothing changed.

Most logins are of clients that ask whether there is new mail, and mostly there is none. A folder whose times of change
are what they were has the same names in it, so its listing need not be made again. Times have a grain: a folder that
was changed shortly before it was listed might have been changed again in the same grain, and is not remembered. Memory
is bounded: the listings used least recently go.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, TypeAlias

from pop3d.stores.maildir.nowait import open_cached
from pop3d.stores.maildir.scan import Scan

__all__ = ["RecentScans", "Stamps", "at_rest", "stamps_at_once", "stamps_of"]

_COARSE: Final = 2_000_000_000  # nanoseconds: more than the grain of any file system's times
_FINE: Final = 100_000_000  # more than that of one whose times have fractions of seconds: a tick of the kernel
_MESSAGES_MAX: Final = 1_000_000  # remembered in all: some 60 octets each

Stamps: TypeAlias = tuple[tuple[int, int, int, int] | None, ...]
"""Device, inode, times of modification and of change in nanoseconds of each path; None where nothing is there."""


def stamps_of(root: int, paths: tuple[str, ...]) -> Stamps:
    """How ``paths`` below the folder ``root``, a descriptor, are now. Raises OSError. In a thread."""
    found: list[tuple[int, int, int, int] | None] = []
    for path in paths:
        try:
            found.append(_stamp(os.stat(path, dir_fd=root, follow_symlinks=False)))
        except FileNotFoundError:
            found.append(None)
    return tuple(found)


def stamps_at_once(root: int, paths: tuple[str, ...]) -> Stamps | None:
    """The same without waiting for a disk; None where that cannot be, or where one of the paths is not there."""
    found = []
    for path in paths:
        descriptor = open_cached(path, os.O_PATH | os.O_NOFOLLOW, root)
        if descriptor is None:
            return None
        found.append(_stamp(os.fstat(descriptor)))
        os.close(descriptor)
    return tuple(found)


def _stamp(entry: os.stat_result) -> tuple[int, int, int, int]:
    return entry.st_dev, entry.st_ino, entry.st_mtime_ns, entry.st_ctime_ns


def at_rest(stamps: Stamps) -> bool:
    """Whether any change from now on will show in the stamps."""
    now = time.time_ns()
    changes = [max(stamp[2:]) for stamp in stamps if stamp is not None]
    return all(change <= now - (_FINE if change % 1_000_000_000 else _COARSE) for change in changes)


class RecentScans:
    """The listings of one store. May be used by many threads."""

    def __init__(self) -> None:
        self._scans: OrderedDict[Hashable, tuple[Stamps, Scan]] = OrderedDict()
        self._messages = 0
        self._lock = threading.Lock()

    def find(self, key: Hashable, stamps: Stamps) -> Scan | None:
        """What was kept under ``key`` when all was as ``stamps`` say."""
        with self._lock:
            kept = self._scans.get(key)
            if kept is None or kept[0] != stamps:
                return None
            self._scans.move_to_end(key)
            return kept[1]

    def last(self, key: Hashable) -> Scan | None:
        """What is kept under ``key``, whatever has happened since."""
        with self._lock:
            kept = self._scans.get(key)
        return None if kept is None else kept[1]

    def device(self, key: Hashable) -> int | None:
        """The device (``st_dev``) of what is kept under ``key``."""
        with self._lock:
            kept = self._scans.get(key)
        stamps = () if kept is None else kept[0]
        return next((stamp[0] for stamp in stamps if stamp is not None), None)

    def keep(self, key: Hashable, stamps: Stamps, scan: Scan) -> None:
        """Remember a listing made behind ``stamps``, which were `at_rest` then."""
        self.forget(key)
        if len(scan.listing) > _MESSAGES_MAX:
            return
        with self._lock:
            self._scans[key] = stamps, scan
            self._messages += len(scan.listing)
            while self._messages > _MESSAGES_MAX:
                _, (_, oldest) = self._scans.popitem(last=False)
                self._messages -= len(oldest.listing)

    def forget(self, key: Hashable) -> None:
        """Drop what is kept under ``key``."""
        with self._lock:
            kept = self._scans.pop(key, None)
            if kept is not None:
                self._messages -= len(kept[1].listing)
