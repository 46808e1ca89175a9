"""Which mailboxes were seen before: a mailbox that was there and is missing is not an empty one.

When the volume with the mail is not mounted, its mount point is an empty folder, or the link to it leads nowhere. A
client that is told "0 messages" then forgets the unique-ids of the mail that it leaves on the server, and downloads
all of it again later. So a mailbox that has had a new/ or cur/ is remembered, and so is the folder that all mailboxes
are in. While either is missing a login is refused for now, until it is back, or the administrator says that it is meant
to be gone (`pop3d mailbox USER --forget`).

Blocking code, for a worker thread.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from pop3d.stores import StoreError
from pop3d.stores.maildir.mailbox_records import MailboxRecord, MailboxRecords, ToldId
from pop3d.system.state_folder import KEEP

__all__ = ["SeenMailboxes", "is_there", "mailboxes_root"]

log = logging.getLogger("pop3d.seen_mailboxes")

_PAUSE: Final = 300.0  # seconds between two attempts to write, and two lines in the log, while the disk is full
_MEANT: Final = "or, if it is meant to be gone, run `pop3d mailbox USER --forget`"


def mailboxes_root(template: str) -> str | None:
    """The folder that all mailboxes by this template are in; None when there is none, as with {home}."""
    before = template.replace("{{", "\0").partition("{")[0].replace("\0", "{").replace("}}", "}")
    root, slash, _ = before.rpartition("/")
    return (root or "/") if slash else None


def is_there(path: str) -> bool:
    """Whether there is a Maildir at ``path``: a folder with new/ or cur/. Raises OSError where that is not known."""
    for folder in ("new", "cur"):
        try:
            os.lstat(os.path.join(path, folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        return True
    return False


class SeenMailboxes:
    """What one store remembers. ``state``: the state folder; ``template``: of the mailboxes' paths."""

    def __init__(self, state: Path, template: str) -> None:
        self.records = MailboxRecords(state / KEEP)
        self.root = mailboxes_root(template)
        self._noted: set[str] = set()  # paths of mailboxes that have a record, so that no other login looks for it
        self._unsaved: set[str] = set()  # those whose record could not be written
        self._records: dict[str, tuple[tuple[int, int] | None, MailboxRecord]] = {}  # and their stamps
        self._root_noted = False
        self._paused_until = 0.0

    def check(self, path: str, *, there: bool) -> None:
        """Remember the mailbox at ``path`` if it is ``there``; else raise `StoreError` if it should be."""
        if there:
            if path not in self._noted:
                self._note(path)
            return
        self._noted.discard(path)
        try:
            why = self.gone(path)
        except OSError as fault:
            what = f"{path} is missing; whether it was there before is not known: {fault.filename}: {fault.strerror}"
            raise StoreError("this mailbox cannot be opened now", detail=f"{what}; `pop3d check` tells more") from None
        if why is None and path in self._unsaved:
            why = f"{path}: it was there before and is missing; mount its volume; a restart makes it an empty mailbox"
        if why is not None:
            raise StoreError("this mailbox cannot be opened now", detail=why)

    def told(self, path: str) -> tuple[ToldId, ...]:
        """The ids that were told for files of the mailbox at ``path`` that share a unique part."""
        return self._record(path).told

    def tell(self, path: str, told: tuple[ToldId, ...]) -> None:
        """Remember what a client is about to be told; where the disk refuses, for this process only."""
        self._save(replace(self._record(path), told=told))

    def had_list(self, path: str) -> bool:
        """Whether the mailbox at ``path`` had another server's list of unique-ids."""
        return self._record(path).had_list

    def note_list(self, path: str) -> None:
        """Remember that it has one."""
        self._save(replace(self._record(path), had_list=True))

    def _record(self, path: str) -> MailboxRecord:
        known = self._records.get(path)
        try:
            stamp = self.records.stamp(path)  # another process may have written it
            if known is None or known[0] != stamp:
                known = self._records[path] = stamp, self.records.load(path) or MailboxRecord(path)
        except OSError as fault:
            self._untold(fault)  # as `_note`: reading mail must work all the same
        return MailboxRecord(path) if known is None else known[1]

    def _save(self, record: MailboxRecord) -> None:
        stamp = None
        try:
            self.records.save(record)
            stamp = self.records.stamp(record.path)
        except OSError as fault:
            self._untold(fault)
        self._records[record.path] = stamp, record

    @staticmethod
    def _untold(fault: OSError) -> None:
        log.warning(
            "%s: %s; unique-ids of files with the same unique part may change after a restart",
            fault.filename, fault.strerror,
        )  # fmt: skip

    def gone(self, path: str) -> str | None:
        """Why the missing mailbox at ``path`` is not just an empty one, and what to do; None when it is one.

        Raises OSError when a record, or the folder of all mailboxes, cannot be read.
        """
        if (why := self.root_gone()) is not None:
            return why
        if self.records.load(path) is not None:
            return f"{path}: it was there before and is missing; mount its volume, {_MEANT}"
        return None

    def root_gone(self) -> str | None:
        """The same of the folder of all mailboxes: it had some, and is missing or empty now."""
        if self.root is None or not _is_empty(self.root) or not self.records.root_seen(self.root):
            return None
        return f"{self.root}: it had mailboxes, and is missing or empty; mount its volume, {_MEANT}"

    def _note(self, path: str) -> None:
        if time.monotonic() < self._paused_until:
            self._unsaved.add(path)
            return
        try:
            if self.records.load(path) is None:
                self.records.save(MailboxRecord(path))
            if self.root is not None and not self._root_noted:
                if not self.records.root_seen(self.root):
                    self.records.save_root(self.root)
                self._root_noted = True
        except OSError as fault:
            # reading mail must work on a full disk; the next mailboxes are noted once there is room
            self._unsaved.add(path)
            self._paused_until = time.monotonic() + _PAUSE
            log.warning(
                "%s: %s; a mailbox that goes missing is not told from an empty one after a restart",
                fault.filename, fault.strerror,
            )  # fmt: skip
            return
        self._unsaved.discard(path)
        self._noted.add(path)


def _is_empty(root: str) -> bool:
    """Whether no mailbox is in a folder: there is no other folder in it than what every new file system has.

    Files do not count: some mark an empty mount point with one. Raises OSError.
    """
    try:
        with os.scandir(root) as entries:
            return not any(_may_be_a_mailbox(entry) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except PermissionError:
        return False  # it can be searched, not listed (mode 0711): then it is there


def _may_be_a_mailbox(entry: os.DirEntry[str]) -> bool:
    return entry.name != "lost+found" and not entry.name.startswith(".") and entry.is_dir()
