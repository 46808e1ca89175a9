"""Reading a Maildir: which messages it has, in which order, with which unique-ids and sizes.

All of it is plain, blocking code for a worker thread, on a descriptor of the Maildir's folder: names never go through a
path that somebody may exchange meanwhile. `pop3d.stores.maildir.names` says which files are messages.

The unique part of a name is the unique-id when it is 1 to 70 octets of 0x21 to 0x7E (RFC 1939 §7 UIDL), else a hash of
it is; `pop3d.stores.maildir.duplicates` has what happens where several files have the same, and
`pop3d.stores.maildir.given_ids` where ids were told or kept before.

*Sizes* are counted by the code that sends. A name's ``W=`` is believed only where the administrator wants it so. What
was counted before comes in the order of the unique parts, so that it is laid beside the names like two sorted decks of
cards: a million messages take no table in memory. It holds for the very file that was counted: another one of that
name is counted anew.
"""

from __future__ import annotations

import contextlib
import os
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final

from pop3core.maildrop import Listing, PackedOctets
from pop3d.stores.maildir.content import OPEN_MESSAGE, octets_sent
from pop3d.stores.maildir.duplicates import SameName, unique_ids
from pop3d.stores.maildir.given_ids import GivenIds, IdGiver, id_of_name
from pop3d.stores.maildir.mailbox_records import ToldId
from pop3d.stores.maildir.names import (
    SLICE,
    OpenFolders,
    all_entries,
    base_of,
    entries_of,
    file_of,
    name_and_inode,
    size_key,
    sorted_in_slices,
    unique_part,
)
from pop3d.stores.maildir.packed_ids import UniqueIds

__all__ = ["Scan", "ScanOptions", "Sizes", "announced", "scan"]

_READINGS_MAX: Final = 10
"""Of the folders, once more, in one scan; bounds the time that a busy neighbour can cost."""

_SENT_SIZE = re.compile(rb",W=([0-9]{1,15})(?=[,:]|$)")


@dataclass(slots=True)
class Scan:
    """A Maildir as it was found. ``names[number - 1]`` is the file of message ``number``, ``inodes`` its number."""

    names: PackedOctets = field(default_factory=lambda: PackedOctets(()))
    listing: Listing = field(default_factory=Listing)
    inodes: array[int] = field(default_factory=lambda: array("Q"))
    """0: not known."""
    counted: int = 0
    """How many files had to be read to know their size."""
    forgotten: int = 0
    """How many sizes known before belong to no message any more."""
    troubles: list[str] = field(default_factory=list)
    """What the log should say."""
    unread: set[int] = field(default_factory=set)
    """Numbers of messages whose file could not be read: their sizes are guesses, not to be kept."""
    told: tuple[ToldId, ...] | None = None
    """Unique-ids to be remembered from now on; None when these are as before."""
    fresh: dict[bytes, bytes] = field(default_factory=dict)
    """Unique-ids to be kept before a client is told them, by the unique part of the name."""

    def sizes(self) -> Sizes:
        """What a cache of sizes may keep: see `Sizes`."""
        for name, inode, octets in zip(self.names, self.inodes, self.listing.sizes, strict=True):
            yield size_key(name), inode, octets

    def only(self, entries: Sequence[bytes]) -> Scan | None:
        """What a scan would find where only ``entries`` are left of this one; None where it would find anything else.

        A fifth of the work, for what most sessions leave behind. For small mailboxes only: it holds all names at once.
        """
        uids = self.listing.uids
        if len(self.names) > SLICE or self.troubles or not isinstance(uids, UniqueIds) or uids.others:
            return None
        left = dict(map(name_and_inode, entries))
        found = zip(self.names, self.inodes, self.listing.sizes, strict=True)
        kept = [one for one in found if left.get(one[0]) == one[1]]
        if len(kept) != len(left):
            return None
        packed = PackedOctets(name for name, _, _ in kept)
        listing = Listing(array("Q", [octets for _, _, octets in kept]), UniqueIds(packed, {}))
        inodes = array("Q", [inode for _, inode, _ in kept])
        return Scan(packed, listing, inodes, forgotten=len(self.names) - len(kept))


Sizes = Iterator[tuple[bytes, int, int]]
"""Sizes counted before: `size_key`, inode number (0: not known) and octets as sent, ascending by the unique part."""


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """How sizes and unique-ids are found.

    ``surrogates``: what is sent is these. ``believe_names``: ``W=`` in a file's name is its size (unless it is of
    surrogates). ``ids``: what gives unique-ids beside the names. ``told``: those that were told for one of several
    files with the same unique part. ``refuse``: compressed messages are not unpacked.
    """

    surrogates: bool = False
    believe_names: bool = False
    ids: GivenIds = field(default_factory=GivenIds)
    told: Sequence[ToldId] = ()
    refuse: bool = False


def announced(name: bytes) -> int | None:
    """The octets as sent that a file's name says (``W=``), if it does."""
    found = _SENT_SIZE.search(size_key(name))
    return None if found is None else int(found[1])


def scan(root: int, before: Scan | None = None, scan_options: ScanOptions | None = None) -> Scan:
    """List the messages below ``root``, a descriptor of the Maildir. ``before``: as they were, in the same ways.

    Raises OSError when a folder cannot be listed: an error never shows as an empty mailbox. A file that cannot be read
    is listed all the same, for a client forgets what is not, and named in ``troubles``; one that went meanwhile is left
    out.
    """
    # Sorted twice, and never as pairs: of a million freed pairs the interpreter keeps some for later, one here, one
    # there, and with them nearly all the memory that they had.
    entries = all_entries(root)
    scan_options = scan_options or ScanOptions()
    if (
        before is not None
        and scan_options.ids.only_names
        and not scan_options.told
        and (left := before.only(entries)) is not None
    ):
        return left
    entries = sorted_in_slices(entries)
    entries.sort(key=unique_part)
    with OpenFolders(root) as folders:
        result = _Collector(
            root, folders, entries, _Known(iter(()) if before is None else before.sizes()), scan_options
        )
        for unique, group in groupby(entries, key=unique_part):
            same = list(group)
            if len(same) == 1 and unique not in result.told:
                result.add(unique, same[0])
            else:
                result.add_duplicates(unique, same)
    return result.scan()


class _Known:
    """Sizes counted before, asked for in ascending order."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._next = next(self._sizes, None)
        self.any = self._next is not None
        """Whether there are any."""
        self.forgotten = 0

    def size(self, unique: bytes, key: bytes, inode: int) -> int | None:
        """The size kept under ``key``, whose unique part is ``unique``; what stands before it is forgotten."""
        while self._next is not None:
            known, counted, octets = self._next
            if known == key and (counted == inode or not counted):
                self._next = next(self._sizes, None)
                return octets
            if unique_part(known) > unique:
                return None
            self.forgotten += 1
            self._next = next(self._sizes, None)
        return None

    def single(self, unique: bytes) -> tuple[int, int] | None:
        """Inode number and octets of the one file that had the unique part ``unique``; None where not one had it."""
        found = []
        while self._next is not None and (part := unique_part(self._next[0])) <= unique:
            if part == unique:
                found.append(self._next[1:])
            self.forgotten += 1
            self._next = next(self._sizes, None)
        return found[0] if len(found) == 1 else None

    def rest(self) -> int:
        """How many were never asked for, once all have been asked for."""
        return self.forgotten + (self._next is not None) + sum(1 for _ in self._sizes)


class _Collector:
    """A scan as it grows. ``found``: all entries, ascending by the unique part."""

    def __init__(
        self, root: int, folders: OpenFolders, found: Sequence[bytes], known: _Known, scan_options: ScanOptions
    ) -> None:
        self._root, self._folders, self._found, self._known, self._scan_options = (
            root,
            folders,
            found,
            known,
            scan_options,
        )
        self._giver = (
            None
            if scan_options.ids.only_names
            else IdGiver(scan_options.ids, map(unique_part, found), self._is_a_unique_part)
        )
        self._keyed = known.any or self._giver is not None  # else nothing is kept under the names
        self._believes = scan_options.believe_names and not scan_options.surrogates
        self._names: list[bytes] = []
        self._inodes = array("Q")
        self._others: dict[int, bytes] = {}
        self._taken: set[bytes] = set()  # unique-ids of files with the same unique part
        self._octets = array("Q")
        self._troubles: list[str] = []
        self._unread: set[int] = set()
        self._counted = 0
        self._fresh: dict[bytes, bytes] = {}  # entries by what stays of them, as read again
        self._readings = 0
        self.told: dict[bytes, list[ToldId]] = {}
        for one in scan_options.told:
            self.told.setdefault(one.unique, []).append(one)
        self._telling = False

    def scan(self) -> Scan:
        names = PackedOctets(self._names)
        self._names.clear()
        listing = Listing(self._octets, UniqueIds(names, self._others))
        told = tuple(one for some in self.told.values() for one in some) if self._telling else None
        rest = self._known.rest()
        fresh = {} if self._giver is None else self._giver.fresh
        troubles = self._troubles if self._giver is None else self._troubles + self._giver.troubles
        return Scan(names, listing, self._inodes, self._counted, rest, troubles, self._unread, told, fresh)

    def add(self, unique: bytes, entry: bytes) -> None:
        name, inode = name_and_inode(entry)
        key = size_key(name) if self._keyed else b""
        octets = self._known.size(unique, key, inode) if self._keyed else None
        if octets is None and self._believes:
            octets = announced(name)
        if octets is None:
            name, octets = self._counted_wherever(entry)
        if octets is not None:
            self._append(unique, name, inode, self._unique_id(unique, key), octets)

    def add_duplicates(self, unique: bytes, entries: list[bytes]) -> None:
        """Files that share a unique part, and one that did lately. Their sizes are counted each time."""
        files: dict[int | bytes, list[bytes]] = {}  # one file may have two names
        for entry in entries:
            files.setdefault(name_and_inode(entry)[1] or entry, []).append(entry)
        same = [found for names in files.values() if (found := self._same_name(names)) is not None]
        told = self.told.get(unique, [])
        if len(same) == 1 and not told:  # it was moved while the folders were read
            self.add(unique, same[0].entry)
            return
        if not told and (before := self._known.single(unique)) is not None:
            same = self._first_before(same, *before)
        if len(same) > 1:
            self._troubles.append(f"{len(same)} files have the same unique part {os.fsdecode(unique)!r}")
        plain = self._unique_id(unique, size_key(name_and_inode(entries[0])[0]))
        by_uid = {one.uid: one for one in told}
        for file, uid in unique_ids(plain, same, told, self._is_taken):
            name, octets = self._counted_wherever(file.entry)
            if octets is None:
                continue
            inode = name_and_inode(file.entry)[1]
            self._taken.add(uid)
            if self._giver is not None:
                self._giver.take(uid)
            if file.digest and by_uid.get(uid) != (now := ToldId(unique, file.digest, inode, uid)):
                by_uid.pop(uid, None)
                by_uid[uid] = now  # the newest stands last
                self._telling = True
            self._append(unique, name, inode, uid, octets)
        self.told[unique] = list(by_uid.values())

    def _first_before(self, same: list[SameName], inode: int, octets: int) -> list[SameName]:
        """Which of the files was listed alone before, and has the plain id: one with its octets as sent.

        A program that rewrites a message, to compress it say, makes a file that is younger than a copy beside it. The
        inode number alone says nothing: file systems give a freed one out again. A file that was changed in place is
        still the oldest.
        """
        as_long = [file for file in same if file.digest and self._counted_wherever(file.entry)[1] == octets]
        same_file = [file for file in as_long if name_and_inode(file.entry)[1] == inode]
        first = min(same_file or as_long, default=None)
        return [replace(file, made=-1) if file is first else file for file in same]

    def _is_taken(self, uid: bytes) -> bool:
        if self._giver is not None and self._giver.is_taken(uid):
            return True
        return uid in self._taken or self._is_a_unique_part(uid)

    def _unique_id(self, unique: bytes, key: bytes) -> bytes:
        return id_of_name(unique) if self._giver is None else self._giver.give(unique, key)

    def _is_a_unique_part(self, uid: bytes) -> bool:
        place = bisect_left(self._found, uid, key=unique_part)
        return place < len(self._found) and unique_part(self._found[place]) == uid

    def _append(self, unique: bytes, name: bytes, inode: int, uid: bytes, octets: int) -> None:
        if uid != unique:
            self._others[len(self._names)] = uid
        self._names.append(name)
        self._inodes.append(inode)
        self._octets.append(octets)

    def _renamed(self, entry: bytes) -> bytes | None:
        """The entry of a file that has been renamed since the folders were read; None when it is gone.

        Read again a few times at most: what is renamed still more often is left out, and there at the next login.
        """
        file = file_of(entry)
        while file not in self._fresh and self._readings < _READINGS_MAX:
            self._readings += 1
            self._fresh = {file_of(again): again for again in entries_of(self._root)}
            if file not in self._fresh:
                return None
        return self._fresh.get(file)

    def _counted_wherever(self, entry: bytes) -> tuple[bytes, int | None]:
        """A file's name now, and its octets as sent; None where it is gone."""
        name, _ = name_and_inode(entry)
        octets = self._count(name)
        if octets is None and (renamed := self._renamed(entry)) is not None:
            name, _ = name_and_inode(renamed)
            octets = self._count(name)
        return name, octets

    def _count(self, name: bytes) -> int | None:
        """Octets as sent; None where the file is not there any more."""
        self._counted += 1
        try:
            # To ask each file once more what it is costs a twelfth of a first login: it was a regular one when it was
            # listed, what has taken its place since can neither hang us nor lead out, and `ListedFiles` looks before it
            # is sent.
            descriptor = os.open(base_of(name), OPEN_MESSAGE, dir_fd=self._folders.of(name))
            try:
                return octets_sent(
                    descriptor, surrogate=self._scan_options.surrogates, refuse=self._scan_options.refuse
                )
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return None
        except OSError as fault:
            self._troubles.append(f"message {os.fsdecode(name)!r} cannot be read: {fault.strerror}")
            self._unread.add(len(self._names) + 1)
            return self._stored(name)

    def _stored(self, name: bytes) -> int:
        """What is told of a message that cannot be read: the size of its file, as far as is known."""
        with contextlib.suppress(OSError):
            return os.stat(base_of(name), dir_fd=self._folders.of(name), follow_symlinks=False).st_size
        return 0

    def _same_name(self, names: list[bytes]) -> SameName | None:
        """A file by one of its entries; None when it is gone."""
        for entry in names:
            if (found := self._fingerprint(entry)) is not None:
                return found
        renamed = self._renamed(names[0])
        return None if renamed is None else self._fingerprint(renamed)

    def _fingerprint(self, entry: bytes) -> SameName | None:
        name = name_and_inode(entry)[0]
        try:
            descriptor = os.open(base_of(name), OPEN_MESSAGE, dir_fd=self._folders.of(name))
            try:
                return SameName.of(entry, descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return None
        except OSError:
            return SameName.unread(entry)  # `_count` tells of it
