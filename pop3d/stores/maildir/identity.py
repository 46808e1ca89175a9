"""Whether a file is still the message that was listed: before it is sent, and above all before it is removed.

Other programs rename messages, put copies and restored backups beside them, and put other files in their place, at any
moment between the listing and QUIT. A name is therefore no proof. A file is what was listed when it is on the same
device, has the same inode number, and has not been written to since: an inode number is given to a new file as soon as
the old one is gone.

*Since* goes by the file's own times. A file whose status has not changed since the listing (ctime, which no program can
set) is what was listed: one call tells. Else it was renamed, linked or written to, or made anew; then its times of
birth and of modification have to be older than the listing, and its octets as many as listed. What cannot be told
apart is not removed.

Times have the grain of the kernel's clock, 1 to 10 ms: what another program writes within that of the login, in place
and without changing the number of octets, counts as listed. When the clock was set back or forth meanwhile, times say
nothing, and the octets decide.

*Renamed.* When all messages of a mailbox have other names since the listing, the folders are not read once for each:
one reading finds the names of many. They are a hint of where to look, and what is there is judged as ever.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from pop3d.stores.maildir.birth import born
from pop3d.stores.maildir.content import OPEN_MESSAGE, octets_sent
from pop3d.stores.maildir.memory_cache import Stamps, at_rest, stamps_of
from pop3d.stores.maildir.names import OpenFolders, base_of, find_again
from pop3d.stores.maildir.nowait import is_local
from pop3d.stores.maildir.scan import Scan

__all__ = ["Listed", "ListedFiles", "Located", "listed_now"]

_STAMPS: Final = 5 if sys.platform == "linux" else time.CLOCK_REALTIME
"""The clock of files' times: CLOCK_REALTIME_COARSE, for which Python has no name."""

_BESIDE: Final = 256
"""Messages that are looked for in the first reading of the folders: less than a millisecond more than for one."""

_BESIDE_GROWS: Final = 4  # times, with each further reading

_BESIDE_MAX: Final = 16_384  # some tens of milliseconds, and some MiB of names

_JUMP: Final = 1_000_000_000
"""Nanoseconds that the clock may gain or lose beside the monotonic one, before it counts as set."""


@dataclass(frozen=True, slots=True)
class Listed:
    """When a listing held, in nanoseconds.

    Files' times lag behind the clock by as much as a tick of the kernel: what happens from now on bears ``stamp`` or
    later, what has happened bears ``wall`` or earlier.
    """

    stamp: int
    wall: int
    monotonic: int


def listed_now() -> Listed:
    """This moment."""
    return Listed(time.clock_gettime_ns(_STAMPS), time.time_ns(), time.monotonic_ns())


@dataclass(frozen=True, slots=True)
class Located:
    """Where a message's file is now: its name below the Maildir, a descriptor of the folder, and what stat says."""

    name: bytes
    folder: int
    found: os.stat_result


class ListedFiles:
    """The files of one session's listing.

    ``root``: descriptor of the Maildir. ``devices``: of the folders that were listed (``st_dev``). ``surrogates``:
    sizes are of these; ``refuse``: of compressed files they are as stored. Methods block, but for `name` and `is_it`.
    """

    def __init__(
        self,
        root: int,
        scan: Scan,
        devices: Collection[int],
        listed: Listed,
        *,
        surrogates: bool = False,
        refuse: bool = False,
    ) -> None:
        self.root = root
        self.sizes = scan.listing.sizes
        self._names, self._inodes = scan.names, scan.inodes
        self._devices, self._listed, self._surrogates, self._refuse = devices, listed, surrogates, refuse
        # A layered file system, such as a container's own, may tell other devices for files than for their folders. It
        # has no major number itself. Inode numbers are still compared.
        self._any_device = not all(map(is_local, devices))
        self._renamed: dict[int, bytes] = {}
        self._beside = _BESIDE
        self._gone: tuple[Stamps, set[int]] = (), set()  # not found while the folders are as the stamps say

    def __len__(self) -> int:
        return len(self.sizes)

    def name(self, number: int) -> bytes:
        """The file of message ``number`` below the Maildir, as far as is known."""
        return self._renamed.get(number) or self._names[number - 1]

    def inode(self, number: int) -> int:
        """Its inode number; 0 where the file system tells none."""
        return self._inodes[number - 1]

    def is_it(self, number: int, found: os.stat_result) -> bool:
        """Whether a file may be read as message ``number``: it is the file listed, perhaps changed in place."""
        return (
            found.st_ino == (self._inodes[number - 1] or found.st_ino)
            and stat.S_ISREG(found.st_mode)
            and (found.st_dev in self._devices or self._any_device)
        )

    def is_unchanged(self, number: int, found: os.stat_result) -> bool:
        """Whether it is, beyond doubt, the file listed, and nothing was done to it since."""
        return (
            found.st_ino == self._inodes[number - 1]
            and found.st_ctime_ns < self._listed.stamp
            and (found.st_dev in self._devices or self._any_device)
        )

    def open(self, number: int, folders: OpenFolders) -> tuple[int, int]:
        """A descriptor of message ``number``, and its size in octets as stored, whatever name it has now.

        Raises FileNotFoundError where it is gone, and OSError.
        """
        try:
            return self._open(number, folders)
        except FileNotFoundError:
            self._find(number)
            return self._open(number, folders)

    def _open(self, number: int, folders: OpenFolders) -> tuple[int, int]:
        name = self.name(number)
        descriptor = os.open(base_of(name), OPEN_MESSAGE, dir_fd=folders.of(name))
        try:
            found = os.fstat(descriptor)
            if not self.is_it(number, found) or self._made_since(descriptor, found):
                raise FileNotFoundError(errno.ENOENT, "another file has its name")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, found.st_size

    def _find(self, number: int) -> None:
        """Look for a message that has another name now. Raises FileNotFoundError when it is gone."""
        stamps = stamps_of(self.root, ("new", "cur"))
        read_at, gone = self._gone
        if read_at != stamps or number not in gone:
            resting = at_rest(stamps)  # else what is renamed from now on may not show in the stamps
            gone = self._find_beside(number)
            self._gone = (stamps, gone) if resting else ((), set())
        if number in gone:
            raise FileNotFoundError(errno.ENOENT, "gone")

    def _find_beside(self, number: int) -> set[int]:
        """Look for a message, and for those that are listed beside it: they are likely to be asked for next.

        The numbers of those that are gone.
        """
        first = (number - 1) // self._beside * self._beside  # a client may read from the last message to the first
        end = first + self._beside
        self._beside = min(_BESIDE_GROWS * self._beside, _BESIDE_MAX)
        names, inodes = self._names[first:end], self._inodes[first:end]
        found = find_again(self.root, list(zip(names, inodes, strict=True)))
        gone = set()
        for one, (before, now) in enumerate(zip(names, found, strict=True), first + 1):
            if now is None:
                gone.add(one)
            elif now != before or one in self._renamed:
                self._renamed[one] = now
        return gone

    def locate(self, number: int, folders: OpenFolders) -> Located:
        """Where message ``number`` is, proved to be what was listed.

        Raises FileNotFoundError where it is gone and nothing has its place, and OSError where it cannot be told apart
        from what is there now.
        """
        try:
            return self._locate(number, folders)
        except FileNotFoundError:
            self._find(number)
        except _Otherwise as other:
            try:
                self._find(number)
            except FileNotFoundError:
                raise other from None
        return self._locate(number, folders)

    def _locate(self, number: int, folders: OpenFolders) -> Located:
        name = self.name(number)
        folder = folders.of(name)
        found = os.stat(base_of(name), dir_fd=folder, follow_symlinks=False)
        if not self.is_it(number, found):
            raise _Otherwise("another file has its name")
        if self._changed_since(found) and not self._is_as_listed(number, folder, base_of(name)):
            raise _Otherwise("its file was changed after it was listed")
        return Located(name, folder, found)

    def _changed_since(self, found: os.stat_result) -> bool:
        return found.st_ctime_ns >= self._listed.stamp or self._clock_was_set()

    def _is_as_listed(self, number: int, folder: int, base: bytes) -> bool:
        """Whether a file that was renamed, linked or more since the listing has the octets that it had then."""
        descriptor = os.open(base, OPEN_MESSAGE, dir_fd=folder)
        try:
            found = os.fstat(descriptor)
            if not self.is_it(number, found):
                return False
            moments = (found.st_mtime_ns, born(descriptor))
            if any(moment is not None and self._is_since(moment) for moment in moments):
                return False
            octets = octets_sent(descriptor, surrogate=self._surrogates, refuse=self._refuse)
            return octets == self.sizes[number - 1]
        finally:
            os.close(descriptor)

    def _made_since(self, descriptor: int, found: os.stat_result) -> bool:
        """Whether an open file was made after the listing, and so has only the inode number of what was listed."""
        if not self._changed_since(found):
            return False
        made = born(descriptor)
        return made is not None and self._is_since(made)

    def _is_since(self, moment: int) -> bool:
        """Whether a time lies between the listing and now: one in the future was not written by this clock."""
        return self._listed.wall < moment <= time.time_ns() and not self._clock_was_set()

    def _clock_was_set(self) -> bool:
        gained = (time.time_ns() - self._listed.wall) - (time.monotonic_ns() - self._listed.monotonic)
        return abs(gained) > _JUMP


class _Otherwise(OSError):
    """Something else is where the message was."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.ESTALE, why)
