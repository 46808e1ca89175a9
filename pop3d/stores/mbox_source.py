"""An mbox file as a source of messages (`pop3d.stores.arriving`).

A message is known by what no server changes in it, for its place moves when others before it are removed. What the file
says of it beside (`X-UIDL`, the date of its From line) is carried over.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from pop3d.stores import mbox
from pop3d.stores.arriving import ArrivingMessage, SourceEnded, SourceUnusable
from pop3d.stores.maildir.folders import open_folder

__all__ = ["MboxSource"]

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SECOND: Final = 1_000_000_000  # nanoseconds
_KEY_OCTETS: Final = 16  # of a message's digest


class MboxSource:
    """The mbox at ``path``; see `pop3d.stores.arriving.MailSource`. ``x_uidl``: its `X-UIDL` fields are unique-ids.

    Progress is in octets. Raises `SourceUnusable`.
    """

    def __init__(self, path: Path, *, x_uidl: bool = False) -> None:
        self._path, self._x_uidl = path, x_uidl
        self.identity = f"mbox {os.path.realpath(path)}"
        self.progress = 0
        self.failed: list[str] = []
        self.remarks: list[str] = []
        with self._opened() as file:
            self.total = os.fstat(file.fileno()).st_size
            beginning = file.read(5)
            if beginning and beginning != b"From ":
                what = 'no mbox file: it does not begin with "From "; name an mbox file or a Maildir'
                raise SourceUnusable(f"{path}: {what}")

    def _opened(self) -> BinaryIO:
        try:
            folder = open_folder(os.path.dirname(self._path) or ".")
            try:
                # whoever imports may read more than who could put a link here
                descriptor = os.open(os.path.basename(self._path), _OPEN, dir_fd=folder)
            finally:
                os.close(folder)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise SourceUnusable(f"{self._path}: not a regular file; name an mbox file or a Maildir")
        except OSError as fault:
            if fault.errno == errno.ELOOP:
                raise SourceUnusable(f"{self._path}: a symbolic link; name the file that it leads to") from None
            fault.filename = str(self._path)
            raise SourceUnusable.of(str(self._path), fault) from None
        return open(descriptor, "rb")

    def close(self) -> None:
        """See `pop3d.stores.arriving.MailSource.close`: nothing is held."""

    def messages(self, done: Container[bytes]) -> Iterator[ArrivingMessage]:
        """See `pop3d.stores.arriving.MailSource.messages`."""
        seen: Counter[bytes] = Counter()
        with self._opened() as file:
            try:
                for message in mbox.messages(file):
                    first = not self.progress
                    arriving = self._arriving(file, message, seen, first=first)
                    if arriving is not None and arriving.key not in done:
                        yield arriving
                    self.progress = message.end
            except ValueError as fault:
                raise self._changed(fault) from None
        self.progress = self.total

    def _arriving(
        self, file: BinaryIO, message: mbox.MboxMessage, seen: Counter[bytes], *, first: bool
    ) -> ArrivingMessage | None:
        if first and message.is_internal_data:
            self.remarks.append(f"{self._path}: its first message is internal data of another server, and no mail")
            return None
        same = message.digest[:_KEY_OCTETS]
        seen[same] += 1  # the very same message may be there twice
        arrived = message.arrived
        return ArrivingMessage(
            b"%b %d" % (same, seen[same]),
            message.fields.get(b"x-uidl") if self._x_uidl else None,
            partial(self._content, message, file),
            f"{self._path} at octet {message.start}",
            arrived=None if arrived is None else arrived * _SECOND,
        )

    def _content(self, message: mbox.MboxMessage, file: BinaryIO) -> Iterator[bytes]:
        try:
            yield from message.content(file)
        except EOFError as fault:
            raise self._changed(fault) from None

    def _changed(self, fault: Exception) -> SourceEnded:
        return SourceEnded(f"{self._path}: {fault}; stop what writes it, and import again")
