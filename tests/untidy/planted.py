"""Mistakes to be planted in the store, each of which the machine has to find by itself."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from pop3d.stores import maildir_deleted, maildir_identity, maildir_names, maildir_removal, recent, seen_mailboxes
from pop3d.stores.maildir_listing import Scan
from tests.untidy.kinds import (
    Fault,
    Intruded,
    Lost,
    NotRefused,
    Refused,
    Resurrected,
    UniqueIdMoved,
    WrongListing,
    WrongMessage,
    WrongSize,
)


@dataclass(frozen=True)
class Mistake:
    """``plant`` makes it, ``kinds`` of faults tell it. ``options`` of the store without which it does nothing."""

    plant: Callable[[pytest.MonkeyPatch], None]
    kinds: tuple[type[Fault], ...]
    options: dict[str, bool] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.plant.__name__


def a_message_is_whatever_has_its_unique_part(patch: pytest.MonkeyPatch) -> None:
    """A file that was renamed is looked for by the unique part of its name alone."""

    def find(root: int, name: bytes, inode: int) -> bytes | None:
        wanted = maildir_names.unique_part(name)
        entries = maildir_names.entries_of(root)
        return next(
            (maildir_names.name_and_inode(one)[0] for one in entries if maildir_names.unique_part(one) == wanted), None
        )

    patch.setattr(maildir_identity, "find_again", find)
    patch.setattr(maildir_identity.ListedFiles, "is_it", lambda *_: True)
    patch.setattr(maildir_identity.ListedFiles, "_changed_since", lambda *_: False)


def an_inode_number_is_proof_enough(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(maildir_identity.ListedFiles, "_changed_since", lambda *_: False)


def mark_seen_replaces(patch: pytest.MonkeyPatch) -> None:
    def rename(source: bytes, target: bytes, *, source_fd: int, target_fd: int) -> None:
        os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)

    patch.setattr(maildir_removal, "rename_new", rename)


def undelete_stops_at_a_name_that_is_there(patch: pytest.MonkeyPatch) -> None:
    def link_back(self: Any, name: bytes, _: object) -> None:
        self._link(name, maildir_deleted._original(name))

    patch.setattr(maildir_deleted._PutBack, "_link_back", link_back)


def a_missing_mailbox_is_empty(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(seen_mailboxes.SeenMailboxes, "check", lambda *_, **__: None)


def ids_told_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(seen_mailboxes.SeenMailboxes, "told", lambda *_: ())


def links_below_a_mailbox_are_followed(patch: pytest.MonkeyPatch) -> None:
    def open_inside(folder: int, name: bytes) -> int:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)

    patch.setattr(maildir_names, "open_inside", open_inside)


def an_old_listing_is_shown(patch: pytest.MonkeyPatch) -> None:
    def find(self: recent.RecentScans, key: object, stamps: object) -> Scan | None:
        return self.last(key)

    patch.setattr(recent.RecentScans, "find", find)


def a_removal_that_failed_is_confirmed(patch: pytest.MonkeyPatch) -> None:
    run = maildir_removal.Removal.run

    def confirmed(self: maildir_removal.Removal, numbers: Any) -> list[int]:
        run(self, numbers)
        return []

    patch.setattr(maildir_removal.Removal, "run", confirmed)


def deleted_messages_are_unlinked_first(patch: pytest.MonkeyPatch) -> None:
    """A kill between the two leaves the message in neither place."""
    patch.setattr(maildir_removal, "_move", lambda located, _: maildir_removal._unlink(located))


MISTAKES = [
    Mistake(a_message_is_whatever_has_its_unique_part, (Lost, WrongMessage), {"mark_seen": False}),
    Mistake(a_message_is_whatever_has_its_unique_part, (WrongMessage,)),
    Mistake(an_inode_number_is_proof_enough, (Lost, WrongMessage)),
    Mistake(mark_seen_replaces, (Lost,), {"mark_seen": True}),
    Mistake(undelete_stops_at_a_name_that_is_there, (Refused,), {"deleted": True}),
    Mistake(a_missing_mailbox_is_empty, (NotRefused,)),
    Mistake(ids_told_are_forgotten, (UniqueIdMoved,)),
    Mistake(links_below_a_mailbox_are_followed, (Intruded,)),
    Mistake(an_old_listing_is_shown, (WrongListing, WrongSize, WrongMessage), {"at_rest": True}),
    Mistake(a_removal_that_failed_is_confirmed, (Resurrected,)),
    Mistake(deleted_messages_are_unlinked_first, (Lost,), {"deleted": True}),
]
