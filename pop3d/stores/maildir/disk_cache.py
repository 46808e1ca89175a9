"""Listings of mailboxes kept in ``cache/`` of the state folder, one file each: for the next start, or another process.

A pure cache: rebuilt when it is missing, torn or not ours, skipped when it cannot be read or written, never needed for
correctness. Sizes in it save reading every message of a mailbox: Maildir names stand for content that never changes.
And where the folders are still as they were when the listing was made, they need not even be read. A first line names
the format and a checksum of the rest, so a file that a crash has torn is none.

A listing also says which forms of compression could be unpacked when it was made (version 0.1: none): of a message in
another form, the octets as stored were counted. Where the forms are others now, sizes that may be such are not used.

Blocking code, for a worker thread.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import sys
import zlib
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from pop3core.maildrop import Listing, PackedOctets
from pop3d.stores.maildir.compressed import known_forms
from pop3d.stores.maildir.memory_cache import Stamps
from pop3d.stores.maildir.packed_ids import ByPlace, UniqueIds
from pop3d.stores.maildir.scan import Scan, announced
from pop3d.system.state_folder import make_folders

__all__ = ["CachedListing", "ListingFile"]

_HEADER_MAX: Final = 64  # octets
_SIZE_IN_NAME = re.compile(rb",[SW]=[0-9]")
_HEADER = re.compile(rb"pop3d listing ([456]) ([0-9a-f]{8})\n")


@dataclass(frozen=True, slots=True)
class CachedListing:
    """A listing, and how the folders were before it was made; ``()`` when that could not be trusted."""

    stamps: Stamps
    scan: Scan


class ListingFile:
    """The listing of one Maildir. ``cache``: the folder for what can be rebuilt; ``maildir``: its path.

    ``scan_options``: how sizes and unique-ids were found, by a word for each way that is not the usual one.
    """

    def __init__(self, cache: Path, maildir: str, *scan_options: str) -> None:
        self._cache, self._maildir, self._scan_options = cache, maildir, scan_options

    @functools.cached_property
    def _path(self) -> Path:
        # Named by a hash, so that nothing in a user's name can matter to a path. Most logins never ask for it.
        name = hashlib.sha256(os.fsencode(self._maildir)).hexdigest()
        return self._cache / "listings" / ".".join((name, *self._scan_options))

    def load(self) -> CachedListing | None:
        """What is kept; None when nothing usable is there."""
        try:
            with self._path.open("rb") as file:
                return _read(file)
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return None

    def save(self, found: Scan, stamps: Stamps) -> None:
        """Keep a listing; a full or read-only disk only means that the next process lists and counts again."""
        names, ends = found.names.packed
        uids = found.listing.uids
        places, others = ByPlace.of(uids.others if isinstance(uids, UniqueIds) else {}).packed
        other_octets, other_ends = others.packed
        about = {
            "order": sys.byteorder,
            "forms": known_forms(),
            "stamps": stamps,
            "names": len(names),
            "messages": len(ends),
            "others": [len(places), len(other_octets)],
        }
        numbers = (ends, array("Q", found.listing.sizes), found.inodes, places, other_ends)
        parts = (json.dumps(about).encode() + b"\n", names, *(some.tobytes() for some in numbers), other_octets)
        checksum = 0
        for part in parts:
            checksum = zlib.crc32(part, checksum)
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            make_folders(self._path.parent)
            with beside.open("wb") as file:
                file.write(b"pop3d listing 6 %08x\n" % checksum)
                file.writelines(parts)
            os.replace(beside, self._path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()

    def forget(self) -> None:
        """Drop what is kept: a size was found to be wrong."""
        with contextlib.suppress(OSError):
            self._path.unlink()


def _read(file: BinaryIO) -> CachedListing:
    """Raises ValueError, KeyError, TypeError or EOFError for what is not of `ListingFile.save` on such a machine.

    Each part is read to where it stays: memory is dear when it is used for the first time.
    """
    header = _HEADER.fullmatch(file.readline(_HEADER_MAX))
    if header is None:
        raise ValueError("another format")
    line = file.readline()
    about: dict[str, Any] = json.loads(line)
    # nothing in it can be trusted before the checksum is known
    others = about["others"] if header[1] == b"6" else [0, 0]
    if (
        about["order"] != sys.byteorder
        or max(about["names"], about["messages"], *others) > os.fstat(file.fileno()).st_size
    ):
        raise ValueError("numbers of another machine, or none")
    ends, sizes, inodes, places, other_ends = (array("Q") for _ in range(5))
    names = file.read(about["names"])
    ends.fromfile(file, about["messages"])
    sizes.fromfile(file, about["messages"])
    if of_names := header[1] == b"4":  # of version 0.1: which files were counted is not known, but for their names
        inodes.frombytes(bytes(sizes.itemsize * len(sizes)))
    else:
        inodes.fromfile(file, about["messages"])
    places.fromfile(file, others[0])
    other_ends.fromfile(file, others[0])
    other_octets = file.read(others[1])
    checksum = 0
    for part in (line, names, ends, sizes, *(() if of_names else (inodes,)), places, other_ends, other_octets):
        checksum = zlib.crc32(part, checksum)
    if checksum != int(header[2], 16) or file.read(1):
        raise ValueError("torn")
    packed = PackedOctets.of(names, ends)
    uids: Mapping[int, bytes] = ByPlace(places, PackedOctets.of(other_octets, other_ends))
    if header[1] != b"6":
        uids = {int(place): uid.encode("ascii") for place, uid in about["others"].items()}
    found = Scan(packed, Listing(sizes, UniqueIds(packed, uids)), inodes)
    if tuple(about.get("forms", ())) != known_forms():
        return CachedListing((), _sure(found))
    return CachedListing(tuple(None if stamp is None else tuple(stamp) for stamp in about["stamps"]), found)


def _sure(found: Scan) -> Scan:
    """Those of its messages whose sizes hold, whatever was known of compression when they were counted.

    Dovecot, which compresses, puts the sizes of the message itself into a file's name, and so does who compresses by
    hand as its manual says. A file without is taken for what was counted; if it is not, `forget` comes when it is sent.
    """
    kept = [
        (name, inode, octets)
        for name, inode, octets in zip(found.names, found.inodes, found.listing.sizes, strict=True)
        if announced(name) == octets or not _SIZE_IN_NAME.search(name)
    ]
    names = PackedOctets(name for name, _, _ in kept)
    sizes = array("Q", [octets for _, _, octets in kept])
    return Scan(names, Listing(sizes, UniqueIds(names, {})), array("Q", [inode for _, inode, _ in kept]))
