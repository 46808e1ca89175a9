"""Reading a Maildir: which files are messages, in which order, with which unique-ids and sizes.

All of it is plain, blocking code for a worker thread, on a descriptor of the Maildir's folder: names never go through a
path that somebody may exchange meanwhile.

*Names.* A message is ``new/UNIQUE`` or ``cur/UNIQUE:2,FLAGS``; some programs put fields behind a comma, such as
``UNIQUE,S=1234:2,S``. The unique part, up to the first "," or ":", is all that never changes in a message's life. It is
the unique-id when it is 1 to 70 octets of 0x21 to 0x7E (RFC 1939 §7 UIDL), else a hash of it is. Delivery agents begin
it with the time, so that sorting by it is sorting by arrival.

*Two files with the same unique part* (a copy made by hand, a crash between two programs): the oldest keeps the plain
unique-id, the others get it with a hash of their content.

*Sizes* are counted by the code that sends, `text_of`, never believed from a name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

from pop3core.downgrade import Downgrader
from pop3core.framing import CrlfNormalizer
from pop3core.maildrop import Listing, PackedOctets, is_unique_id

__all__ = ["Scan", "find_again", "open_message", "scan", "size_key", "text_of", "unique_part"]

T = TypeVar("T")

_FOLDERS = (b"cur", b"new")
_PIECE = 1 << 20  # octets read at a time while counting
_UNIQUE_END = re.compile(rb"[,:]")

# A FIFO must not hang us, a symbolic link must not lead out, a child process must not inherit.
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def unique_part(name: bytes) -> bytes:
    """What of a file's name never changes: all before the first "," or ":". ``name``: with or without its folder."""
    name = name.rpartition(b"/")[2]
    return _UNIQUE_END.split(name, maxsplit=1)[0] or name


def text_of(*, surrogate: bool) -> CrlfNormalizer | Downgrader:
    """What turns a file's octets into what is sent: as stored, or the ``surrogate`` for a client without UTF8."""
    return Downgrader() if surrogate else CrlfNormalizer()


def open_message(root: int, name: bytes) -> int:
    """A descriptor of a message's file, which is a regular one. Raises OSError.

    ``root``: descriptor of the Maildir; ``name``: below it, such as ``b"cur/1.M1:2,S"``.
    """
    descriptor = os.open(name, _OPEN, dir_fd=root)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor


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


@dataclass(slots=True)
class Scan:
    """A Maildir as it was found. ``names[number - 1]`` is the file of message ``number``."""

    names: PackedOctets
    listing: Listing
    sizes: dict[bytes, int]
    """Octets as sent, by file name without its folder and flags; what a cache of sizes may keep."""
    counted: int
    """How many files had to be read to know their size."""
    troubles: list[str] = field(default_factory=list)
    """What the log should say."""


def scan(root: int, known: Mapping[bytes, int], *, surrogates: bool = False) -> Scan:
    """List the messages below ``root``, a descriptor of the Maildir.

    ``known``: sizes counted before, as `Scan.sizes`. ``surrogates``: sizes are of these. Raises OSError when a folder
    cannot be listed: an error never shows as an empty mailbox. A file that cannot be read is left out, and named in
    ``troubles``; one that went meanwhile is left out too.
    """
    found = sorted((unique_part(name), name) for name in _names(root))
    result = _Collector(root, known, surrogates)
    for unique, group in groupby(found, key=itemgetter(0)):
        names = [name for _, name in group]
        if len(names) == 1:
            result.add(unique, names[0])
        else:
            result.add_duplicates(unique, names)
    return result.scan()


class _Collector:
    """A scan as it grows."""

    def __init__(self, root: int, known: Mapping[bytes, int], surrogates: bool) -> None:
        self._root, self._known, self._surrogates = root, known, surrogates
        self._names: list[bytes] = []
        self._uids: list[bytes] = []
        self._octets = array("Q")
        self._sizes: dict[bytes, int] = {}
        self._troubles: list[str] = []
        self._counted = 0

    def scan(self) -> Scan:
        listing = Listing(self._octets, PackedOctets(self._uids))
        return Scan(PackedOctets(self._names), listing, self._sizes, self._counted, self._troubles)

    def add(self, unique: bytes, name: bytes) -> None:
        key = size_key(name)
        octets = self._known.get(key)
        if octets is None and (octets := self._count(name)) is None:
            return
        if b"\n" not in key:  # the cache of sizes has a line for each
            self._sizes[key] = octets
        self._append(name, _unique_id(unique), octets)

    def add_duplicates(self, unique: bytes, names: list[bytes]) -> None:
        """The oldest keeps the plain unique-id. Their sizes are counted each time: a name does not tell them apart."""
        self._troubles.append(f"{len(names)} files have the same unique part {os.fsdecode(unique)!r}")
        found = sorted(filter(None, map(self._fingerprint, names)))
        taken: set[bytes] = set()
        for place, (_, digest, name) in enumerate(found):
            octets = self._count(name)
            if octets is None:
                continue
            uid = _unique_id(unique) if not place else _duplicate_id(unique, digest)
            while uid in taken:  # the very same content: one more round of the hash tells them apart
                digest = hashlib.sha256(digest).digest()
                uid = _duplicate_id(unique, digest)
            taken.add(uid)
            self._append(name, uid, octets)

    def _append(self, name: bytes, uid: bytes, octets: int) -> None:
        self._names.append(name)
        self._uids.append(uid)
        self._octets.append(octets)

    def _count(self, name: bytes) -> int | None:
        self._counted += 1
        return self._try(_surrogate_octets if self._surrogates else _octets_sent, name)

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


def _unique_id(unique: bytes) -> bytes:
    return unique if is_unique_id(unique) else hashlib.sha256(unique).hexdigest().encode()


def _duplicate_id(unique: bytes, digest: bytes) -> bytes:
    uid = b"%b.%b" % (unique, digest.hex()[:32].encode())
    return uid if is_unique_id(uid) else hashlib.sha256(uid).hexdigest().encode()


def _age_and_digest(root: int, name: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha256()
    modified = _each_piece(root, name, digest.update)
    return modified, digest.digest()


def _surrogate_octets(root: int, name: bytes) -> int:
    return _octets_sent(root, name, surrogate=True)


def _octets_sent(root: int, name: bytes, *, surrogate: bool = False) -> int:
    content = text_of(surrogate=surrogate)
    octets = 0

    def count(data: bytes) -> None:
        nonlocal octets
        octets += len(content.feed(data))

    _each_piece(root, name, count)
    return octets + len(content.finish())


def _each_piece(root: int, name: bytes, use: Callable[[bytes], object]) -> int:
    """Reads a file through; its time of last modification, in nanoseconds."""
    descriptor = open_message(root, name)
    try:
        while data := os.read(descriptor, _PIECE):
            use(data)
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)
