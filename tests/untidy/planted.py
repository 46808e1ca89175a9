"""Mistakes to be planted in the store, each of which the machine has to find by itself."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from pop3d.stores.maildir import content as maildir_content
from pop3d.stores.maildir import deleted as maildir_deleted
from pop3d.stores.maildir import delivery as maildir_delivery
from pop3d.stores.maildir import identity as maildir_identity
from pop3d.stores.maildir import memory_cache as recent
from pop3d.stores.maildir import names as maildir_names
from pop3d.stores.maildir import reader as maildir_reading
from pop3d.stores.maildir import removal as maildir_removal
from pop3d.stores.maildir import seen_mailboxes
from pop3d.stores.maildir import store as maildir
from pop3d.stores.maildir.scan import Scan
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
    """``plant`` makes it, ``kinds`` of faults tell it.

    ``steps``: those that concern it. With all it is found too, in some hundred runs more (``python -m tests.untidy
    maildir`` has them all). ``options``: of the store, without which it does nothing.
    """

    plant: Callable[[pytest.MonkeyPatch], None]
    kinds: tuple[type[Fault], ...]
    steps: str
    options: dict[str, bool] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.plant.__name__


def a_message_is_whatever_has_its_unique_part(patch: pytest.MonkeyPatch) -> None:
    """A file that was renamed is looked for by the unique part of its name alone."""

    def find(root: int, listed: list[tuple[bytes, int]]) -> list[bytes | None]:
        names = [maildir_names.name_and_inode(entry)[0] for entry in maildir_names.entries_of(root)]
        first = {maildir_names.unique_part(name): name for name in reversed(names)}
        return [first.get(maildir_names.unique_part(name)) for name, _ in listed]

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


def deliveries_follow_links(patch: pytest.MonkeyPatch) -> None:
    def open_or_make_inside(folder: int, name: bytes) -> int:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)

    patch.setattr(maildir_delivery, "open_or_make_inside", open_or_make_inside)


def a_mailbox_may_be_any_link(patch: pytest.MonkeyPatch) -> None:
    def open_folder(path: str) -> int:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    patch.setattr(maildir, "open_folder", open_folder)


def compressed_messages_are_sent_as_stored(patch: pytest.MonkeyPatch) -> None:
    for module in (maildir_content, maildir_reading):
        patch.setattr(module, "form_of", lambda _: None)


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


_SESSION = "open begin go_on retrieve dele quit drop visit"
_NAMES = "arrive move copy restore unlink link"

MISTAKES = [
    Mistake(a_message_is_whatever_has_its_unique_part, (Lost,), f"{_SESSION} {_NAMES}"),
    Mistake(a_message_is_whatever_has_its_unique_part, (WrongMessage,), f"{_SESSION} {_NAMES}"),
    Mistake(an_inode_number_is_proof_enough, (Lost, WrongMessage), f"{_SESSION} {_NAMES} replace"),
    Mistake(mark_seen_replaces, (Lost,), f"{_SESSION} {_NAMES}", {"mark_seen": True}),
    Mistake(undelete_stops_at_a_name_that_is_there, (Refused,), f"{_SESSION} {_NAMES} undelete", {"deleted": True}),
    Mistake(a_missing_mailbox_is_empty, (NotRefused,), "open drop unmount mount"),
    Mistake(ids_told_are_forgotten, (UniqueIdMoved,), f"open drop visit restart {_NAMES}"),
    Mistake(links_below_a_mailbox_are_followed, (Intruded,), f"{_SESSION} swap swap_back"),
    Mistake(deliveries_follow_links, (Intruded,), "deliver swap swap_back"),
    Mistake(compressed_messages_are_sent_as_stored, (WrongSize, WrongMessage), f"{_SESSION} compress"),
    Mistake(
        an_old_listing_is_shown, (WrongListing, WrongSize, WrongMessage), f"{_SESSION} {_NAMES}", {"at_rest": True}
    ),
    Mistake(a_removal_that_failed_is_confirmed, (Resurrected,), f"{_SESSION} {_NAMES} disk"),
    Mistake(deleted_messages_are_unlinked_first, (Lost,), _SESSION, {"deleted": True}),
]
if os.geteuid() == 0:  # without root, no link leads to somebody else
    MISTAKES.append(Mistake(a_mailbox_may_be_any_link, (Intruded,), f"{_SESSION} swap swap_back"))
