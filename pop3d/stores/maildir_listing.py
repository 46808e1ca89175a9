"""Reading a Maildir: which files are messages, in which order, with which unique-ids and sizes.

All of it is plain, blocking code for a worker thread, on a descriptor of the Maildir's folder: names never go through a
path that somebody may exchange meanwhile.

*Names.* A message is ``new/UNIQUE`` or ``cur/UNIQUE:2,FLAGS``; some programs put fields behind a comma, such as
``UNIQUE,S=1234:2,S``. The unique part, up to the first "," or ":", is all that never changes in a message's life. It is
the unique-id when it is 1 to 70 octets of 0x21 to 0x7E (RFC 1939 §7 UIDL), else a hash of it is. Delivery agents begin
it with the time, so that sorting by it is sorting by arrival.

*Two files with the same unique part* (a copy made by hand, a crash between two programs): the oldest keeps the plain
unique-id, the others get it with a hash of their content.

*Sizes* are counted by the code that sends, `text_of`, or, whole messages at once, by `normalized_octets`, which is the
same. A name's ``W=`` is believed only where the administrator wants it so. What was counted before comes in the order
of the unique parts, so that it is laid beside the names like two sorted decks of cards: a million messages take no
table in memory.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, TypeVar, overload

from pop3core.downgrade import Downgrader
from pop3core.framing import CrlfNormalizer, normalized_octets
from pop3core.maildrop import Listing, PackedOctets, is_unique_id

__all__ = [
    "OPEN_MESSAGE",
    "Scan",
    "Sizes",
    "UniqueIds",
    "Ways",
    "find_again",
    "open_message",
    "scan",
    "size_key",
    "sorted_in_slices",
    "text_of",
    "unique_part",
]

T = TypeVar("T")

_FOLDERS = (b"new", b"cur")  # in this order: what is moved from new/ to cur/ meanwhile is seen at least once
_GRAIN = 100_000_000  # nanoseconds; a folder changed so lately may have changed again, and not show it
_READINGS_MAX = 10  # of the folders, once more, in one scan; bounds the time that a busy neighbour can cost
_PIECE = 1 << 20  # octets read at a time while counting
_WHOLE = 64 * 1024  # octets asked for first: most messages are shorter
_SLICE = 4096  # names sorted at once: some milliseconds that no other thread has
_SAMPLED = 64  # every so-manieth name is looked at to find where slices end
_SENT_SIZE = re.compile(rb",W=([0-9]{1,15})(?=[,:]|$)")

# A FIFO must not hang us, a symbolic link must not lead out, a child process must not inherit.
OPEN_MESSAGE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def unique_part(name: bytes) -> bytes:
    """What of a file's name never changes: all before the first "," or ":". ``name``: with or without its folder."""
    # called several times for each message of a mailbox: this is a third quicker than looking for both
    base = name.rpartition(b"/")[2]
    return base.partition(b":")[0].partition(b",")[0] or base


def text_of(*, surrogate: bool) -> CrlfNormalizer | Downgrader:
    """What turns a file's octets into what is sent: as stored, or the ``surrogate`` (RFC 6856 §2.1)."""
    return Downgrader() if surrogate else CrlfNormalizer()


def open_message(root: int, name: bytes) -> tuple[int, int]:
    """A descriptor of a message's file, which is a regular one, and its size in octets as stored. Raises OSError.

    ``root``: descriptor of the Maildir; ``name``: below it, such as ``b"cur/1.M1:2,S"``.
    """
    descriptor = os.open(name, OPEN_MESSAGE, dir_fd=root)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, found.st_size


def find_again(root: int, name: bytes) -> bytes | None:
    """The name that a message has now, when another program has renamed it; None when it is gone."""
    wanted = unique_part(name)
    for found in _names(root):
        if unique_part(found) == wanted:
            return found
    return None


def _names(root: int) -> Iterator[bytes]:
    """Every message's name below the Maildir. Raises OSError, except for a folder that is not there."""
    for folder in _FOLDERS:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
        except FileNotFoundError:
            continue
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    # names that begin with a dot are not messages (maildir(5)); only regular files are
                    if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                        yield folder + b"/" + os.fsencode(entry.name)
        finally:
            os.close(descriptor)


def _all_names(root: int) -> list[bytes]:
    """Every message's name, also when other programs set flags meanwhile.

    A file that is renamed while its folder is read may show under neither name. So when a folder has changed, all is
    read once more, and a message that only the first reading saw counts when it is there. Missing one would make a
    client forget the message, and download it again.
    """
    before = _changed(root)
    found = list(_names(root))
    if _changed(root) == before and max(before) < time.time_ns() - _GRAIN:
        return found
    again = list(_names(root))
    seen = set(map(unique_part, again))
    return again + [name for name in found if unique_part(name) not in seen and _is_there(root, name)]


def _changed(root: int) -> tuple[int, ...]:
    """When the folders changed last, in nanoseconds; 0 for one that is not there."""
    times = []
    for folder in _FOLDERS:
        try:
            times.append(os.stat(folder, dir_fd=root, follow_symlinks=False).st_mtime_ns)
        except FileNotFoundError:
            times.append(0)
    return tuple(times)


def _is_there(root: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=root, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


class UniqueIds(Sequence[bytes]):
    """Unique-ids, made from the names when they are asked for; ``others``, by place, are not the name's unique part."""

    __slots__ = ("_names", "_others")

    def __init__(self, names: PackedOctets, others: Mapping[int, bytes]) -> None:
        self._names, self._others = names, others

    @property
    def others(self) -> Mapping[int, bytes]:
        """Those that are not the name's unique part, by place."""
        return self._others

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        return self._others.get(index) or unique_part(self._names[index])

    def __iter__(self) -> Iterator[bytes]:
        if not self._others:
            return map(unique_part, self._names)
        return (self._others.get(place) or unique_part(name) for place, name in enumerate(self._names))


@dataclass(slots=True)
class Scan:
    """A Maildir as it was found. ``names[number - 1]`` is the file of message ``number``."""

    names: PackedOctets = field(default_factory=lambda: PackedOctets(()))
    listing: Listing = field(default_factory=Listing)
    counted: int = 0
    """How many files had to be read to know their size."""
    forgotten: int = 0
    """How many sizes known before belong to no message any more."""
    troubles: list[str] = field(default_factory=list)
    """What the log should say."""

    def sizes(self) -> Iterator[tuple[bytes, int]]:
        """Octets as sent, by `size_key`, ascending by the unique part: what a cache of sizes may keep."""
        for name, octets in zip(self.names, self.listing.sizes, strict=True):
            yield size_key(name), octets

    def only(self, names: Sequence[bytes]) -> Scan | None:
        """What a scan would find where only ``names`` are left of this one; None where it would find anything else.

        A fifth of the work, for what most sessions leave behind. For small mailboxes only: it holds all names at once.
        """
        uids = self.listing.uids
        if len(self.names) > _SLICE or self.troubles or not isinstance(uids, UniqueIds) or uids.others:
            return None
        left = set(names)
        kept = [(name, octets) for name, octets in zip(self.names, self.listing.sizes, strict=True) if name in left]
        if len(kept) != len(left):
            return None
        packed = PackedOctets(name for name, _ in kept)
        listing = Listing(array("Q", [octets for _, octets in kept]), UniqueIds(packed, {}))
        return Scan(packed, listing, forgotten=len(self.names) - len(kept))


Sizes = Iterable[tuple[bytes, int]]
"""Sizes counted before: `size_key` and octets as sent, ascending by the unique part."""


@dataclass(frozen=True, slots=True)
class Ways:
    """How sizes and unique-ids are found.

    ``surrogates``: what is sent is these. ``believe_names``: ``W=`` in a file's name is its size (unless it is of
    surrogates). ``uids``: unique-ids that another server has given, by the name without folder and flags.
    """

    surrogates: bool = False
    believe_names: bool = False
    uids: Mapping[bytes, bytes] = field(default_factory=dict)


def scan(root: int, before: Scan | None = None, ways: Ways | None = None) -> Scan:
    """List the messages below ``root``, a descriptor of the Maildir. ``before``: as they were, in the same ways.

    Raises OSError when a folder cannot be listed: an error never shows as an empty mailbox. A file that cannot be read
    is left out, and named in ``troubles``; one that went meanwhile is left out too.
    """
    # Sorted twice, and never as pairs: of a million freed pairs the interpreter keeps some for later, one here, one
    # there, and with them nearly all the memory that they had.
    names = _all_names(root)
    ways = ways or Ways()
    if before is not None and not ways.uids and (left := before.only(names)) is not None:
        return left
    names = sorted_in_slices(names)
    names.sort(key=unique_part)
    result = _Collector(root, names, _Known(() if before is None else before.sizes()), ways)
    for unique, group in groupby(names, key=unique_part):
        same = list(group)
        if len(same) == 1:
            result.add(unique, same[0])
        else:
            result.add_duplicates(unique, same)
    return result.scan()


def sorted_in_slices(names: list[bytes]) -> list[bytes]:
    """Ascending. Other threads have the interpreter meanwhile: one sort of all would hold it to its end."""
    sample = sorted(names[::_SAMPLED])
    bounds = sample[:: _SLICE // _SAMPLED]
    slices: list[list[bytes]] = [[] for _ in range(len(bounds) + 1)]
    for name in names:
        slices[bisect_left(bounds, name)].append(name)
    found: list[bytes] = []
    for one in slices:
        one.sort()
        found += one
        one.clear()
    return found


class _Known:
    """Sizes counted before, asked for in ascending order."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = iter(sizes)
        self._next = next(self._sizes, None)
        self.forgotten = 0

    def size(self, unique: bytes, key: bytes) -> int | None:
        """The size kept under ``key``, whose unique part is ``unique``; what stands before it is forgotten."""
        while self._next is not None:
            known, octets = self._next
            if known == key:
                self._next = next(self._sizes, None)
                return octets
            if unique_part(known) > unique:
                return None
            self.forgotten += 1
            self._next = next(self._sizes, None)
        return None

    def rest(self) -> int:
        """How many were never asked for, once all have been asked for."""
        return self.forgotten + (self._next is not None) + sum(1 for _ in self._sizes)


class _Collector:
    """A scan as it grows. ``found``: all names, ascending by the unique part."""

    def __init__(self, root: int, found: Sequence[bytes], known: _Known, ways: Ways) -> None:
        self._root, self._found, self._known, self._ways = root, found, known, ways
        self._names: list[bytes] = []
        self._others: dict[int, bytes] = {}
        self._taken: set[bytes] = set()  # unique-ids that are not the name's unique part
        self._octets = array("Q")
        self._troubles: list[str] = []
        self._counted = 0
        self._fresh: dict[bytes, bytes] = {}  # names by unique part, as read again
        self._readings = 0

    def scan(self) -> Scan:
        names = PackedOctets(self._names)
        self._names.clear()
        listing = Listing(self._octets, UniqueIds(names, self._others))
        return Scan(names, listing, self._counted, self._known.rest(), self._troubles)

    def add(self, unique: bytes, name: bytes) -> None:
        key = size_key(name)
        octets = self._known.size(unique, key)
        if octets is None:
            octets = self._announced(name)
        if octets is None:
            octets = self._count(name)
        if octets is None and (renamed := self._renamed(unique)) is not None:
            name, octets = renamed, self._count(renamed)
        if octets is not None:
            self._append(unique, name, self._unique_id(unique, key), octets)

    def add_duplicates(self, unique: bytes, names: list[bytes]) -> None:
        """The oldest keeps the plain unique-id. Their sizes are counted each time: a name does not tell them apart."""
        found = sorted(filter(None, map(self._fingerprint, names)))
        if len(found) == 1:  # it was moved while the folders were read
            self.add(unique, found[0][2])
            return
        self._troubles.append(f"{len(found)} files have the same unique part {os.fsdecode(unique)!r}")
        for place, (_, digest, name) in enumerate(found):
            octets = self._count(name)
            if octets is None:
                continue
            uid = self._unique_id(unique, size_key(name)) if not place else _duplicate_id(unique, digest)
            while uid in self._taken:  # the very same content: one more round of the hash tells them apart
                digest = hashlib.sha256(digest).digest()
                uid = _duplicate_id(unique, digest)
            self._taken.add(uid)
            self._append(unique, name, uid, octets)

    def _unique_id(self, unique: bytes, key: bytes) -> bytes:
        given = self._ways.uids.get(key)
        if given is not None and given not in self._taken and not self._is_a_unique_part(given):
            self._taken.add(given)
            return given
        return unique if is_unique_id(unique) else hashlib.sha256(unique).hexdigest().encode()

    def _is_a_unique_part(self, uid: bytes) -> bool:
        place = bisect_left(self._found, uid, key=unique_part)
        return place < len(self._found) and unique_part(self._found[place]) == uid

    def _append(self, unique: bytes, name: bytes, uid: bytes, octets: int) -> None:
        if uid != unique:
            self._others[len(self._names)] = uid
        self._names.append(name)
        self._octets.append(octets)

    def _renamed(self, unique: bytes) -> bytes | None:
        """What a file is called now that has been renamed since the folders were read; None when it is gone.

        Read again a few times at most: what is renamed still more often is left out, and there at the next login.
        """
        while unique not in self._fresh and self._readings < _READINGS_MAX:
            self._readings += 1
            self._fresh = {unique_part(name): name for name in _names(self._root)}
            if unique not in self._fresh:
                return None
        return self._fresh.get(unique)

    def _announced(self, name: bytes) -> int | None:
        """What the name says its size is, where that is believed."""
        if not self._ways.believe_names or self._ways.surrogates:
            return None
        found = _SENT_SIZE.search(size_key(name))
        return None if found is None else int(found[1])

    def _count(self, name: bytes) -> int | None:
        self._counted += 1
        return self._try(_surrogate_octets if self._ways.surrogates else _octets_sent, name)

    def _fingerprint(self, name: bytes) -> tuple[int, bytes, bytes] | None:
        found = self._try(_age_and_digest, name)
        return None if found is None else (*found, name)

    def _try(self, ask: Callable[[int, bytes], T], name: bytes) -> T | None:
        try:
            return ask(self._root, name)
        except FileNotFoundError:
            return None
        except OSError as fault:
            self._troubles.append(f"message {os.fsdecode(name)!r} is left out: {fault.strerror}")
            return None


def size_key(name: bytes) -> bytes:
    """What a message's size is kept under: its file name without folder and flags."""
    return name[len(b"cur/") :].partition(b":")[0]


def _duplicate_id(unique: bytes, digest: bytes) -> bytes:
    uid = b"%b.%b" % (unique, digest.hex()[:32].encode())
    return uid if is_unique_id(uid) else hashlib.sha256(uid).hexdigest().encode()


def _age_and_digest(root: int, name: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha256()
    modified = _each_piece(root, name, digest.update)
    return modified, digest.digest()


def _octets_sent(root: int, name: bytes) -> int:
    # RFC 1939 §11: as RETR sends it, every line's end two octets. To ask each file once more what it is, and how long,
    # costs a twelfth of a first login: it was a regular one when it was listed, what has taken its place since can
    # neither hang us nor lead out, and what is sent comes from `open_message`.
    descriptor = os.open(name, OPEN_MESSAGE, dir_fd=root)
    try:
        data = os.read(descriptor, _WHOLE)
    finally:
        os.close(descriptor)
    # one read for most: a file that is shorter than what was asked for is whole
    return normalized_octets(data) if len(data) < _WHOLE else _octets_of(root, name, CrlfNormalizer())


def _surrogate_octets(root: int, name: bytes) -> int:
    return _octets_of(root, name, Downgrader())


def _octets_of(root: int, name: bytes, content: CrlfNormalizer | Downgrader) -> int:
    octets = 0

    def count(data: bytes) -> None:
        nonlocal octets
        octets += len(content.feed(data))

    _each_piece(root, name, count)
    return octets + len(content.finish())


def _each_piece(root: int, name: bytes, use: Callable[[bytes], object]) -> int:
    """Reads a file through; its time of last modification, in nanoseconds."""
    descriptor, _ = open_message(root, name)
    try:
        while data := os.read(descriptor, _PIECE):
            use(data)
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)
