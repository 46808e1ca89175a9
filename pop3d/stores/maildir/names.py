"""The names of a Maildir's files: which are messages, what in a name never changes, and which file a name stands for.

A message is ``new/UNIQUE`` or ``cur/UNIQUE:2,FLAGS``; some programs put fields behind a comma, such as
``UNIQUE,S=1234:2,S``. The unique part, up to the first "," or ":", is all that never changes in a message's life, so it
gives the unique-id (RFC 1939 §7 UIDL). Delivery agents begin it with the time: sorting by it is sorting by arrival.

A name alone does not say which file it stands for: a backup that was restored, or a copy, may have the unique part of
another message, and a program may put another file in a message's place. So each name is read together with the inode
number of its file, which a folder gives without a look at the file. An *entry* is both in one string,
``b"cur/1.M1:2,S:\\0" + hex``: a pair for each of a million messages would cost several times the memory, and this sorts
as the name does. 0 is an inode number that is not known.

All of it is blocking code for a worker thread, on a descriptor of the Maildir's folder; ``new`` and ``cur`` are opened
without following links.
"""

from __future__ import annotations

import contextlib
import os
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final, Self

from pop3d.system.folders import open_inside

__all__ = [
    "FOLDERS",
    "SLICE",
    "OpenFolders",
    "all_entries",
    "base_of",
    "entries_of",
    "file_of",
    "find_again",
    "folder_of",
    "name_and_inode",
    "size_key",
    "sorted_in_slices",
    "unique_part",
]

FOLDERS: Final = (b"new", b"cur")
"""Where messages are; in this order, so that what is moved from new/ to cur/ meanwhile is seen at least once."""

SLICE: Final = 4096
"""Names sorted at once: some milliseconds that no other thread has."""

_SAMPLED = 64  # every so-manieth name is looked at to find where slices end
_GRAIN = 100_000_000  # nanoseconds; a folder changed so lately may have changed again, and not show it
_INODE: Final = (
    b":\0"  # before the inode number: no name has a NUL, and whoever looks for the unique part stops at the colon
)


def unique_part(name: bytes) -> bytes:
    """What of a file's name never changes: all before the first "," or ":". ``name``: with or without its folder."""
    # called several times for each message of a mailbox: this is a third quicker than looking for both
    base = name.rpartition(b"/")[2]
    return base.partition(b":")[0].partition(b",")[0] or base.partition(_INODE)[0]


def size_key(name: bytes) -> bytes:
    """What a message's size is kept under: its file name without folder and flags."""
    return name[len(b"cur/") :].partition(b":")[0]


def name_and_inode(entry: bytes) -> tuple[bytes, int]:
    """A file's name below the Maildir, such as ``b"cur/1.M1:2,S"``, and its inode number."""
    name, _, inode = entry.rpartition(_INODE)
    return name, int(inode, 16)


class OpenFolders:
    """``new`` and ``cur`` below the Maildir ``root``, opened when they are wanted, and held for the block."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._held: dict[bytes, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._held:
            os.close(self._held.popitem()[1])

    def of(self, name: bytes) -> int:
        """A descriptor of the folder that ``name``, such as ``b"cur/1.M1:2,S"``, is in (or is). Raises OSError."""
        folder = folder_of(name)
        if (held := self._held.get(folder)) is None:
            held = self._held[folder] = open_inside(self._root, folder)
        return held


def folder_of(name: bytes) -> bytes:
    """``b"new"`` or ``b"cur"``: the folder that a name below the Maildir is in."""
    return name[: len(b"cur")]


def base_of(name: bytes) -> bytes:
    """A name without its folder."""
    return name[len(b"cur/") :]


def entries_of(root: int) -> Iterator[bytes]:
    """An entry for each message below the Maildir. Raises OSError, except for a folder that is not there."""
    for folder in FOLDERS:
        try:
            descriptor = open_inside(root, folder)
        except FileNotFoundError:
            continue
        try:
            yield from _entries_in(descriptor, folder + b"/")
        finally:
            os.close(descriptor)


def _entries_in(descriptor: int, folder: bytes) -> Iterator[bytes]:
    told = None  # whether the folder tells inode numbers as stat does; layered file systems may do so for some layers
    with os.scandir(descriptor) as found:
        for one in found:
            # names that begin with a dot are not messages (maildir(5)); only regular files are
            if one.name.startswith(".") or not one.is_file(follow_symlinks=False):
                continue
            inode = one.inode()
            if not told:
                with contextlib.suppress(FileNotFoundError):
                    really = one.stat(follow_symlinks=False)
                    told = really.st_ino == inode and really.st_dev == os.fstat(descriptor).st_dev
                    inode = really.st_ino
            yield b"%b%b:\0%x" % (folder, os.fsencode(one.name), inode)


def all_entries(root: int) -> list[bytes]:
    """Every message's entry, also when other programs set flags meanwhile.

    A file that is renamed while its folder is read may show under neither name. So when a folder has changed, all is
    read once more, and a message that only the first reading saw counts when it is there. Missing one would make a
    client forget the message, and download it again.
    """
    before = _changed(root)
    found = list(entries_of(root))
    if _changed(root) == before and max(before) < time.time_ns() - _GRAIN:
        return found
    again = list(entries_of(root))
    seen = set(map(file_of, again))
    return again + [entry for entry in found if file_of(entry) not in seen and _is_there(root, entry)]


def file_of(entry: bytes) -> bytes:
    """What of an entry stays when flags are set."""
    return unique_part(entry) + b"/" + entry.rpartition(_INODE)[2]


def _changed(root: int) -> tuple[int, ...]:
    """When the folders changed last, in nanoseconds; 0 for one that is not there."""
    times = []
    for folder in FOLDERS:
        try:
            times.append(os.stat(folder, dir_fd=root, follow_symlinks=False).st_mtime_ns)
        except FileNotFoundError:
            times.append(0)
    return tuple(times)


def _is_there(root: int, entry: bytes) -> bool:
    name, inode = name_and_inode(entry)
    try:
        return os.stat(name, dir_fd=root, follow_symlinks=False).st_ino == inode
    except FileNotFoundError:
        return False


def find_again(root: int, listed: Sequence[tuple[bytes, int]]) -> list[bytes | None]:
    """The names that listed files have now, when another program has renamed them; None for one that is gone.

    ``listed``: name and inode number of each, as listed. The folders are read once, however many there are. Another
    file with the same unique part is another message. Where inode numbers are not known (0), the only file with the
    unique part is taken for it.
    """
    uniques = {unique_part(name) for name, _ in listed}
    names: dict[tuple[bytes, int], list[bytes]] = {(unique_part(name), inode): [] for name, inode in listed}
    for entry in entries_of(root):
        if (unique := unique_part(entry)) in uniques:
            found, number = name_and_inode(entry)
            for key in {(unique, number), (unique, 0)}:
                if key in names:
                    names[key].append(found)
    return [_name_now(name, inode, names[unique_part(name), inode]) for name, inode in listed]


def _name_now(name: bytes, inode: int, found: list[bytes]) -> bytes | None:
    if not inode:
        return found[0] if len(found) == 1 else None
    return name if name in found else next(iter(found), None)


def sorted_in_slices(names: list[bytes]) -> list[bytes]:
    """Ascending. Other threads have the interpreter meanwhile: one sort of all would hold it to its end."""
    sample = sorted(names[::_SAMPLED])
    bounds = sample[:: SLICE // _SAMPLED]
    slices: list[list[bytes]] = [[] for _ in range(len(bounds) + 1)]
    for name in names:
        slices[bisect_left(bounds, name)].append(name)
    found: list[bytes] = []
    for one in slices:
        one.sort()
        found += one
        one.clear()
    return found
