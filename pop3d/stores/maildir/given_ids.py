"""Which unique-id a message has, where more than its file name says so.

In this order: what is kept, because a client was told it or an import brought it (`pop3d.stores.maildir.kept_ids`);
what another server's list says (`pop3d.stores.maildir.foreign_uids`); what that server would make of the file's name;
the name's unique part. RFC 1939 §7: an id stays, and no other message of the mailbox ever has it. So an id of a list
that was told for another message, be it gone, is passed over, and of two messages with one id the first in the order of
arrival has it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from pop3core.maildrop import is_unique_id

__all__ = ["GivenIds", "IdGiver", "id_of_name"]

_SLICE: Final = 4096  # ids at once: a fraction of a millisecond


@dataclass(frozen=True, slots=True)
class GivenIds:
    """What a scan is told about unique-ids.

    ``kept``: by the unique part of the file name. ``listed``: by the name without folder and flags. ``unlisted``: makes
    one of such a name, or None. ``keeps``: what is told from now on is to be kept, whatever it comes from.
    """

    kept: Mapping[bytes, bytes] = field(default_factory=dict)
    listed: Mapping[bytes, bytes] = field(default_factory=dict)
    unlisted: Callable[[bytes], bytes | None] | None = None
    keeps: bool = False

    @property
    def only_names(self) -> bool:
        """Whether the file names alone give the unique-ids, as in most mailboxes."""
        return not (self.kept or self.listed or self.unlisted or self.keeps)


def id_of_name(unique: bytes) -> bytes:
    """The unique-id that the unique part of a file's name gives."""
    return unique if is_unique_id(unique) else hashlib.sha256(unique).hexdigest().encode()


class IdGiver:
    """Gives the messages of one scan their unique-ids.

    ``unique_parts``: of all names; ``is_unique_part``: whether an id is one of them.
    """

    def __init__(self, ids: GivenIds, unique_parts: Iterable[bytes], is_unique_part: Callable[[bytes], bool]) -> None:
        self._ids, self._is_unique_part = ids, is_unique_part
        # What could be told twice, found in a loop over all, which lets other threads run: a set of all that is kept
        # would be built in one stretch.
        listed = _set_of(ids.listed.values())
        self._of_names: set[bytes] = set()  # ids of the list that are a file's unique part
        wanted: set[bytes] = set()  # ids of messages for which none is kept
        for unique in unique_parts:
            if unique in listed:
                self._of_names.add(unique)
            if ids.kept and unique not in ids.kept:
                wanted.add(id_of_name(unique))
        wanted |= listed if ids.kept else set()
        self._of_kept = {uid for uid in ids.kept.values() if uid in wanted}
        """Ids that were told, and may come again for another message."""
        if ids.unlisted is not None:
            self._of_kept = _set_of(ids.kept.values())
        self._taken: set[bytes] = set()
        self.fresh: dict[bytes, bytes] = {}
        """What is to be kept before a client is told, by the unique part."""
        self.troubles: list[str] = []
        """What the log should say."""

    def is_taken(self, uid: bytes) -> bool:
        """Whether an id belongs to a message, or did, or to a file by its name."""
        return uid in self._taken or uid in self._of_kept or self._is_unique_part(uid)

    def take(self, uid: bytes) -> None:
        """An id that was given elsewhere."""
        self._taken.add(uid)

    def give(self, unique: bytes, name: bytes) -> bytes:
        """The unique-id of the one message with the unique part ``unique``, or of the first of several.

        ``name``: its file's, without folder and flags.
        """
        kept = self._ids.kept.get(unique)
        if kept is not None:
            if kept not in self._taken:
                self._taken.add(kept)
                return kept
            self._told_apart(name, kept, "is kept for another message too")
        uid = self._of_list(name) if kept is None else None
        if uid is None:
            uid = id_of_name(unique)
            while uid in self._taken or uid in self._of_kept:
                uid = hashlib.sha256(unique + uid).hexdigest().encode()
        self._taken.add(uid)
        if self._ids.keeps or kept is not None:
            self.fresh[unique] = uid
        return uid

    def _of_list(self, name: bytes) -> bytes | None:
        uid = self._ids.listed.get(name)
        if uid is None and self._ids.unlisted is not None:
            uid = self._ids.unlisted(name)
            if uid is not None and self._is_unique_part(uid):
                return None  # mostly its own: the name gives the same
        if uid is None or uid in self._of_names:
            return None
        if uid in self._taken or uid in self._of_kept:
            self._told_apart(name, uid, "was given to another message")
            return None
        return uid

    def _told_apart(self, name: bytes, uid: bytes, why: str) -> None:
        text = f"message {os.fsdecode(name)!r}: the unique-id {uid.decode('ascii', 'replace')} {why}"
        self.troubles.append(f"{text}; it has that of its file name")


def _set_of(uids: Iterable[bytes]) -> set[bytes]:
    """In slices: other threads run in between."""
    uids, found = iter(uids), set[bytes]()
    while some := list(islice(uids, _SLICE)):
        found.update(some)
    return found
