"""A Maildir as a source of messages (`pop3d.stores.arriving`), whoever served it before.

Which unique-ids clients know is found out from what that server left: Dovecot's or Courier's list, if there is one.
Else the names of the files give them, as they do here, and did for qmail's server. A list also says the order.

Whoever imports may read more than the Maildir's owner: what a link in place of a folder or file leads to is somebody
else's mail, and not read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from pop3d.stores.arriving import ArrivingMessage, SourceUnusable
from pop3d.stores.maildir.compressed import HEAD, form_of, verified
from pop3d.stores.maildir.content import OPEN_MESSAGE, digest_of
from pop3d.stores.maildir.folders import named_below, open_folder
from pop3d.stores.maildir.foreign_uids import LIST_FILES, ForeignList, foreign_list
from pop3d.stores.maildir.names import unique_part
from pop3d.system.folders import open_inside
from pop3d.uidl_format import UidSource

__all__ = ["MaildirSource"]

_PIECE: Final = 64 * 1024  # octets
_FLAGS = re.compile(r":2,([A-Za-z]*)$")
_FOLDERS: Final = ("cur", "new")


class MaildirSource:
    """The Maildir at ``path``; see `pop3d.stores.arriving.MailSource`.

    ``uidl``: whose unique-ids clients know, as the setting of that name in [store]; None: find out. ``control``: the
    folder that Dovecot's list is in, if that is not the Maildir. Progress is in messages. Raises `SourceUnusable`.
    """

    def __init__(self, path: Path, *, uidl: UidSource | None = None, control: str | None = None) -> None:
        self._path = path
        self.identity = f"maildir {os.path.realpath(path)}"
        self.progress = 0
        self.failed: list[str] = []
        self.remarks: list[str] = []
        self._renamed: dict[bytes, tuple[str, str]] = {}  # names and folders, as they were read once more
        try:
            self._entries = self._listed()
            self._list = self._known_ids(uidl, control)
        except OSError as fault:
            raise SourceUnusable.of(str(path), fault) from None
        except ValueError as fault:
            raise SourceUnusable(f"{path}: {fault}; its unique-ids cannot be kept") from None
        self.total = len(self._entries)
        places = {name: place for place, name in enumerate(self._list.uids)}
        # by the list where it knows the file, which is how the server before told them; others came later
        self._entries.sort(key=lambda entry: (places.get(_listed_name(entry[0]), len(places)), _order(entry[0])))

    @contextlib.contextmanager
    def _folders(self) -> Iterator[dict[str, int]]:
        """Descriptors of cur/ and new/."""
        with ExitStack() as opened:
            root = open_folder(str(self._path))
            opened.callback(os.close, root)
            folders: dict[str, int] = {}
            for name in _FOLDERS:
                with contextlib.suppress(FileNotFoundError), named_below(str(self._path)):
                    folders[name] = open_inside(root, name.encode())
                    opened.callback(os.close, folders[name])
            if not folders:
                raise SourceUnusable(f"{self._path}: a folder without cur/ and new/ is no Maildir")
            yield folders

    def _listed(self) -> list[tuple[str, str, bool]]:
        """Name, folder, and whether it is a regular file, of each that could be a message."""
        found: list[tuple[str, str, bool]] = []
        with self._folders() as folders:
            for folder, descriptor in folders.items():
                with os.scandir(descriptor) as entries:
                    found += ((one.name, folder, one.is_file(follow_symlinks=False)) for one in entries)
        return [entry for entry in found if not entry[0].startswith(".")]

    def _known_ids(self, uidl: UidSource | None, control: str | None) -> ForeignList:
        """What says which unique-ids clients know, in the order of the list. Raises OSError and ValueError."""
        candidates = (UidSource.of("dovecot"), UidSource.of("courier")) if uidl is None else (uidl,)
        missing = []
        found = ForeignList()
        root = open_folder(str(self._path))
        try:
            for candidate in candidates:
                found = foreign_list(root, candidate, control)
                name = LIST_FILES.get(candidate.server, "")
                if found.faults:
                    what = f"{self._path}: {name} is damaged: {'; '.join(found.faults)}"
                    self.remarks.append(
                        f"{what}; messages that it does not name have the unique-ids of their file names"
                    )
                if found.uids and uidl is None:
                    self.remarks.append(f"{self._path}: unique-ids are those of its {name}")
                if found.uids:
                    return found
                if name and not found.is_there and found.unlisted is None:
                    missing.append(name)
        finally:
            os.close(root)
        if self._entries and len(missing) == len(candidates):
            what = f"{self._path}: there is no {', and no '.join(missing)}, so unique-ids are those of file names"
            elsewhere = "; if Dovecot kept it elsewhere (CONTROL=), name that folder by --control"
            self.remarks.append(what + (elsewhere if LIST_FILES["dovecot"] in missing else ""))
        return ForeignList() if uidl is None else found

    def _id_of(self, name: str) -> bytes:
        listed = _listed_name(name)
        known = self._list.uids.get(listed)
        if known is None and self._list.unlisted is not None:
            known = self._list.unlisted(listed)
        return _unique(name) if known is None else known

    def close(self) -> None:
        """See `pop3d.stores.arriving.MailSource.close`: nothing is held."""

    def messages(self, done: Container[bytes]) -> Iterator[ArrivingMessage]:
        """See `pop3d.stores.arriving.MailSource.messages`."""
        same = Counter(_unique(name) for name, _, _ in self._entries)
        shared = {unique for unique, count in same.items() if count > 1}
        seen: Counter[bytes] = Counter()
        with self._folders() as folders:
            for name, folder, is_regular in self._entries:
                place = os.path.join(self._path, folder, name)
                try:
                    if not is_regular:
                        raise OSError(errno.EINVAL, "not a regular file")
                    if (key := _unique(name)) in shared:  # copies: known by their content, each time that it is there
                        key = self._by_content(folders[folder], name)
                        seen[key] += 1
                        key = b"%b %d" % (key, seen[key])
                    if key not in done:
                        with self._opened(name, folder, folders) as (file, name, folder):
                            yield self._arriving(key, name, folder, file, place)
                except FileNotFoundError:
                    pass  # a client has deleted it meanwhile
                except OSError as fault:
                    self.failed.append(f"{place}: {fault.strerror}")
                self.progress += 1

    @contextlib.contextmanager
    def _opened(self, name: str, folder: str, folders: Mapping[str, int]) -> Iterator[tuple[BinaryIO, str, str]]:
        """A message's file, its name and folder: other ones, where the server has set a flag meanwhile."""
        try:
            descriptor = os.open(name, OPEN_MESSAGE, dir_fd=folders[folder])
        except FileNotFoundError:
            unique = _unique(name)
            if unique not in self._renamed:
                self._renamed = {_unique(name): (name, folder) for name, folder, regular in self._listed() if regular}
            if unique not in self._renamed:
                raise
            name, folder = self._renamed[unique]
            descriptor = os.open(name, OPEN_MESSAGE, dir_fd=folders[folder])
        try:
            file = open(descriptor, "rb")  # noqa: SIM115
        except OSError:  # a folder, in the place of the file that was listed
            os.close(descriptor)
            raise
        with file:
            yield file, name, folder

    @staticmethod
    def _by_content(folder: int, name: str) -> bytes:
        descriptor = os.open(name, OPEN_MESSAGE, dir_fd=folder)
        try:
            return b"%b %b" % (_unique(name), digest_of(descriptor))
        finally:
            os.close(descriptor)

    def _arriving(self, key: bytes, name: str, folder: str, file: BinaryIO, place: str) -> ArrivingMessage:
        return ArrivingMessage(
            key,
            self._id_of(name),
            partial(_message, file),
            place,
            _kept_flags(name) if folder == "cur" else None,
            os.fstat(file.fileno()).st_mtime_ns,
        )


def _unique(name: str) -> bytes:
    return unique_part(os.fsencode(name))


def _listed_name(name: str) -> bytes:
    return os.fsencode(name).partition(b":")[0]


def _order(name: str) -> tuple[bytes, bytes]:
    return _unique(name), os.fsencode(name)


def _message(file: BinaryIO) -> Iterator[bytes]:
    """The message in a file, unpacked where another server has compressed it. Raises OSError and `NotMail`."""
    form = form_of(os.pread(file.fileno(), HEAD, 0))
    return _pieces(file) if form is None else verified(file.fileno(), form)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _kept_flags(name: str) -> str:
    """Without Z: Dovecot's sites mark compressed files with it, and what is imported is not compressed."""
    flags = _FLAGS.search(name)
    return flags[1].replace("Z", "") if flags else ""
