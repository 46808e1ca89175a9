"""Where the unique-ids of a store's mailboxes come from beside the file names, and what is kept of them.

With another server's ids (``uidl``), every id is kept before a client is told it: that server may number a message
later, and its list may be lost. Without, only an import has kept some, and nothing is written.

Blocking code for a worker thread. Who calls it holds the mailbox's lock.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pop3d.stores.maildir.foreign_uids import LIST_FILES, ForeignList, foreign_list
from pop3d.stores.maildir.given_ids import GivenIds
from pop3d.stores.maildir.kept_ids import KeptIds
from pop3d.stores.maildir.names import unique_part
from pop3d.stores.maildir.seen_mailboxes import SeenMailboxes
from pop3d.system.state_folder import KEEP
from pop3d.uidl_format import UidSource

__all__ = ["IdSources", "list_faults"]

log = logging.getLogger("pop3d.maildir")

_GONE_MAX: Final = 1_000  # kept ids more than twice the messages, before those of gone ones are looked for


def list_faults(source: UidSource, found: ForeignList, *, seen: bool) -> str:
    """What is wrong with another server's list, and what it means; nothing when it is as it should be.

    ``seen``: the mailbox had such a list before.
    """
    name = LIST_FILES.get(source.server, "")
    if found.faults:
        what = f"{name} is damaged: {'; '.join(found.faults)}"
    elif seen and not found.is_there:
        what = f"{name} was there before and is missing"
    else:
        return ""
    return f"{what}; unique-ids that clients were told stay, other messages have those of their file names"


class IdSources:
    """Of one store. ``state``: the state folder, or None to keep nothing; ``seen``: what it remembers of mailboxes."""

    def __init__(self, source: UidSource, state: Path | None, seen: SeenMailboxes | None) -> None:
        self._source, self._seen = source, seen
        self._kept = None if state is None else KeptIds(state / KEEP)
        self._unsaved: dict[str, dict[bytes, bytes]] = {}  # by mailbox, while the disk refuses
        self._said: dict[str, str] = {}  # what is wrong with lists, by mailbox

    def given(self, root: int, path: str, control: str | None) -> GivenIds:
        """What gives unique-ids in the Maildir at ``path``, of which ``root`` is a descriptor.

        ``control``: where Dovecot has its list, if not in the Maildir. Raises OSError, and ValueError for a list that
        is not to be read.
        """
        kept = {} if self._kept is None else self._kept.load(path)
        kept.update(self._unsaved.get(path, {}))
        if not self._source.is_foreign:
            return GivenIds(kept)
        found = foreign_list(root, self._source, control, kept)
        self._tell_of_faults(path, found)
        return GivenIds(kept, found.uids, found.unlisted, keeps=self._kept is not None)

    def keep(self, path: str, fresh: dict[bytes, bytes]) -> None:
        """Keep what clients are about to be told; where the disk refuses, for this process only."""
        if unsaved := self._unsaved.get(path):
            fresh = {**unsaved, **fresh}
        if self._kept is None or not fresh:
            return
        try:
            self._kept.add(path, fresh)
            self._unsaved.pop(path, None)
        except OSError as fault:
            self._unsaved[path] = fresh
            log.warning("%s: %s; unique-ids of %s may change after a restart", fault.filename, fault.strerror, path)

    def prune(self, path: str, kept: int, names: Iterable[bytes], messages: int) -> None:
        """Forget messages that are gone, once they are many: ``kept`` ids, ``messages`` with these ``names``."""
        if self._kept is None or kept <= 2 * messages + _GONE_MAX:
            return
        try:
            self._kept.prune(path, set(map(unique_part, names)), messages)
        except OSError as fault:
            log.warning("%s: %s; unique-ids of messages that are gone stay there", fault.filename, fault.strerror)

    def _tell_of_faults(self, path: str, found: ForeignList) -> None:
        seen = self._seen is not None and self._seen.had_list(path)
        if found.is_there and not seen and self._seen is not None:
            self._seen.note_list(path)
        text = list_faults(self._source, found, seen=seen)
        if text and self._said.get(path) != text:
            log.warning("%s: %s", path, text)
        if text:
            self._said[path] = text
        else:
            self._said.pop(path, None)
