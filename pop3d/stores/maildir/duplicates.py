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
from pop3d.stores.maildir.birth import born
from pop3d.stores.maildir.content import digest_of
from pop3d.stores.maildir.mailbox_records import ToldId
from pop3d.stores.maildir.names import name_and_inode, unique_part

__all__ = ["SameName", "unique_ids"]


@dataclass(frozen=True, slots=True, order=True)
class SameName:
    """One of the files. ``made``: when, in nanoseconds of the Unix epoch; where nobody knows, when it was written."""

    made: int
    digest: bytes
    entry: bytes

    @classmethod
    def of(cls, entry: bytes, descriptor: int) -> Self:
        """An open file, and its entry (`pop3d.stores.maildir.names`). Raises OSError."""
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
    given = _told_before(files, told)
    used = {one.uid for one in told}
    others = _OtherIds(lambda uid: uid in used or is_taken(uid))
    for file in files:
        if file not in given:
            uid = plain if plain not in used else others.of(file)
            given[file] = uid
            used.add(uid)
    return [(file, given[file]) for file in files]


def _told_before(files: Sequence[SameName], told: Sequence[ToldId]) -> dict[SameName, bytes]:
    """The ids that were told: for the same content in the same file, then for the same content in another."""
    given: dict[SameName, bytes] = {}
    left = dict(enumerate(told))
    for by_inode in (True, False):
        kept: dict[tuple[bytes, int], list[int]] = {}
        for place in reversed(left):  # so that the first one is given first
            one = told[place]
            kept.setdefault((one.digest, one.inode if by_inode else 0), []).append(place)
        for file in files:
            key = file.digest, name_and_inode(file.entry)[1] if by_inode else 0
            if file not in given and (places := kept.get(key)):
                given[file] = told[place := places.pop()].uid
                del left[place]
    return given


class _OtherIds:
    """Ids made of unique part and content, none twice. ``is_taken``: true for ever once it is true."""

    def __init__(self, is_taken: Callable[[bytes], bool]) -> None:
        self._is_taken = is_taken
        self._next: dict[bytes, bytes] = {}  # by content: many files may have the very same

    def of(self, file: SameName) -> bytes:
        unique, digest = unique_part(file.entry), self._next.get(file.digest, file.digest)
        while True:
            uid = b"%b.%b" % (unique, digest.hex()[:32].encode())
            uid = uid if is_unique_id(uid) else hashlib.sha256(uid).hexdigest().encode()
            # the very same content: one more round of the hash tells them apart
            digest = self._next[file.digest] = hashlib.sha256(digest).digest()
            if not self._is_taken(uid):
                return uid
