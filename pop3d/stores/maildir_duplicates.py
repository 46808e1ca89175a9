"""Unique-ids where several files of a Maildir have the same unique part in their names.

A copy made by hand, a restored backup, a crash between two programs: they are several messages, and each has to keep
the id under which a client has seen it (RFC 1939 §7). The file that was made first keeps the plain id, the others get
it with a hash of their content. Who was first cannot be told any more once it is gone, so what was told is remembered,
by content and inode number: neither a new copy nor the end of an old one gives a message the id of another.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from pop3core.maildrop import is_unique_id
from pop3d.stores.birth import born
from pop3d.stores.mailbox_records import ToldId
from pop3d.stores.maildir_content import digest_of
from pop3d.stores.maildir_names import name_and_inode, unique_part

__all__ = ["SameName", "unique_ids"]


@dataclass(frozen=True, slots=True, order=True)
class SameName:
    """One of the files. ``made``: when, in nanoseconds of the Unix epoch; where nobody knows, when it was written."""

    made: int
    digest: bytes
    entry: bytes

    @classmethod
    def of(cls, entry: bytes, descriptor: int) -> Self:
        """An open file, and its entry (`pop3d.stores.maildir_names`). Raises OSError."""
        made = born(descriptor)
        return cls(os.fstat(descriptor).st_mtime_ns if made is None else made, digest_of(descriptor), entry)

    @classmethod
    def unread(cls, entry: bytes) -> Self:
        """One that cannot be read now: it is no candidate for the plain id, unless that was told for its inode."""
        return cls(sys.maxsize, b"", entry)


def unique_ids(
    plain: bytes, files: Iterable[SameName], told: Sequence[ToldId], is_taken: Callable[[bytes], bool]
) -> list[tuple[SameName, bytes]]:
    """A unique-id for each of the files that share a unique part, in the order in which they were made.

    ``plain``: the id that the unique part gives. ``told``: what was told before for this unique part; it is kept.
    ``is_taken``: whether an id belongs to a message of another unique part.
    """
    files = sorted(files)
    given: dict[SameName, bytes] = {}
    free = list(told)
    for by_inode in (True, False):
        for file in files:
            inode = name_and_inode(file.entry)[1]
            for one in free:
                if file not in given and one.digest == file.digest and (one.inode == inode or not by_inode):
                    given[file] = one.uid
                    free.remove(one)
                    break
    used = {one.uid for one in told}
    for file in files:
        if file not in given:
            uid = plain if plain not in used else _other_id(file, lambda uid: uid in used or is_taken(uid))
            given[file] = uid
            used.add(uid)
    return [(file, given[file]) for file in files]


def _other_id(file: SameName, is_taken: Callable[[bytes], bool]) -> bytes:
    unique, digest = unique_part(file.entry), file.digest
    while True:
        uid = b"%b.%b" % (unique, digest.hex()[:32].encode())
        uid = uid if is_unique_id(uid) else hashlib.sha256(uid).hexdigest().encode()
        if not is_taken(uid):
            return uid
        digest = hashlib.sha256(digest).digest()  # the very same content: one more round of the hash tells them apart
