"""What `pop3d check` finds about another server's lists of unique-ids (`uidl` in ``[store]``)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from pop3d.auth import Account
from pop3d.commands.finding import CheckFinding, fault, warning
from pop3d.config import Config
from pop3d.stores import StoreError
from pop3d.stores.maildir.folders import open_folder
from pop3d.stores.maildir.foreign_uids import LIST_FILES, foreign_list
from pop3d.stores.maildir.id_sources import list_faults
from pop3d.stores.maildir.paths import mailbox_path
from pop3d.stores.maildir.seen_mailboxes import SeenMailboxes
from pop3d.uidl_format import UidSource

__all__ = ["ForeignLists"]


class ForeignLists:
    """Looks at the list of one mailbox after another. ``seen``: what the daemon remembers of them."""

    def __init__(self, config: Config, seen: SeenMailboxes) -> None:
        self._source = UidSource.of(config.store.uidl)
        self._control, self._seen = config.store.control, seen
        self._mailboxes = self._lists = 0

    def look_into(self, mailbox: str, account: Account) -> Iterator[CheckFinding]:
        """A list that is damaged, or gone."""
        if not self._source.is_foreign:
            return
        try:
            control = mailbox_path(self._control, account) if self._control else None
        except StoreError as failed:
            yield fault(mailbox, f"`control` names no folder: {failed.detail}", "mend `control` in [store]")
            return
        name = LIST_FILES[self._source.server]
        with contextlib.suppress(FileNotFoundError):
            root = open_folder(mailbox)
            try:
                found = foreign_list(root, self._source, control)
            except (OSError, ValueError) as failed:
                why = failed.strerror if isinstance(failed, OSError) else str(failed)
                yield fault(control or mailbox, f"{name} cannot be read: {why}", "give it to `user`, or mend it")
                return
            finally:
                os.close(root)
            self._mailboxes += 1
            self._lists += found.is_there
            if text := list_faults(self._source, found, seen=self._seen.had_list(mailbox)):
                yield warning(mailbox, text, "bring it back from a backup, for messages that no client has seen yet")

    def all_told(self, where: object) -> Iterator[CheckFinding]:
        """That no mailbox has a list: the key, or the folder, is likely to be wrong."""
        if self._mailboxes and not self._lists and self._source.format.needs_list:
            what = f"no mailbox has a {LIST_FILES[self._source.server]}, so all unique-ids are those of file names"
            yield warning(where, what, "look whether `uidl`, `control` and `path` in [store] are right")
