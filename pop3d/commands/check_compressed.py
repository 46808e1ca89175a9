"""What `pop3d check` finds about messages that another server has compressed or encrypted in Maildirs."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from typing import Final

from pop3d.commands.finding import CheckFinding, fault, warning
from pop3d.stores.maildir.compressed import HEAD, NotMail, RefusedContent, form_of, unpacked
from pop3d.stores.maildir.content import OPEN_MESSAGE
from pop3d.stores.maildir.folders import open_folder
from pop3d.stores.maildir.names import OpenFolders, base_of, entries_of, name_and_inode

__all__ = ["CompressedMail"]

_FILES_MAX: Final = 20_000
"""Files that are looked into, in all mailboxes together: some seconds."""

_CONTENT_MAX: Final = 1024**3
"""Octets of content that are unpacked to see whether they can be, in all mailboxes together: some seconds."""

_NAMED: Final = 3  # files that a line names


class CompressedMail:
    """Looks into the files of one Maildir after another. ``refuse``: `compressed` in [store] is "refuse"."""

    def __init__(self, *, refuse: bool) -> None:
        self._refuse = refuse
        self._files, self._content = _FILES_MAX, _CONTENT_MAX
        self._forms: Counter[str] = Counter()
        self._any = False  # that cannot be sent

    def look_into(self, mailbox: str) -> Iterator[CheckFinding]:
        """Its messages that cannot be served; the others are counted for `served`."""
        found: dict[str, tuple[NotMail, list[str]]] = {}
        with contextlib.suppress(OSError):  # not there, or not readable, which others tell
            root = open_folder(mailbox)
            try:
                with OpenFolders(root) as folders:
                    for entry in entries_of(root):
                        if self._files <= 0:
                            break
                        self._files -= 1
                        name, _ = name_and_inode(entry)
                        if (what := self._fault_of(folders.of(name), name)) is not None:
                            found.setdefault(str(what), (what, []))[1].append(os.fsdecode(name))
            finally:
                os.close(root)
        self._any = self._any or bool(found)
        for what, names in found.values():
            text = f"{_listed(sorted(names))} cannot be sent: {what.why}"
            yield (warning if isinstance(what, RefusedContent) else fault)(mailbox, text, what.remedy)

    def served(self, where: object) -> Iterator[CheckFinding]:
        """All that is unpacked when it is sent, and what was not looked at."""
        if self._forms:
            forms = ", ".join(f"{count} by {name}" for name, count in sorted(self._forms.items()))
            what = f"messages that another server compressed: {forms}"
            yield warning(where, what, "they are sent unpacked, so nothing has to be done")
        if (self._forms or self._any) and (self._files <= 0 or self._content <= 0):
            what = f"whether all compressed messages can be unpacked was not looked at: more than {_FILES_MAX} files,"
            what = f"{what} or {_CONTENT_MAX} octets of content"
            yield warning(where, what, "the log names those that cannot when clients ask for them")

    def _fault_of(self, folder: int, name: bytes) -> NotMail | None:
        with contextlib.suppress(OSError):  # gone, or not readable
            descriptor = os.open(base_of(name), OPEN_MESSAGE, dir_fd=folder)
            try:
                return self._unpacked(descriptor)
            finally:
                os.close(descriptor)
        return None

    def _unpacked(self, descriptor: int) -> NotMail | None:
        form = form_of(os.pread(descriptor, HEAD, 0))
        if form is None:
            return None
        try:
            for piece in unpacked(descriptor, form, refuse=self._refuse):
                self._content -= len(piece)
                if self._content <= 0:
                    break
        except NotMail as what:
            return what
        self._forms[form.name] += 1
        return None


def _listed(names: list[str]) -> str:
    named = ", ".join(map(repr, names[:_NAMED]))
    return f"{named} and {len(names) - _NAMED} more" if len(names) > _NAMED else named
