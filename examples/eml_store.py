"""A store for pop3d: a folder of .eml files for each user. docs/plugins.md goes through it.

[store]                                   in pop3d.toml; PYTHONPATH=examples pop3d serve
backend = "eml_store:EmlStore"
[store.options]
folder = "archive"                        alice's messages are archive/alice/*.eml, in the order of their names
remove = false                            true: what a client deletes is unlinked; otherwise that is refused at QUIT

Files may come at any time, by rename. Sizes are counted at each login: for archives, not for mailboxes of gigabytes.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pop3core.answers import Content
from pop3core.framing import CrlfNormalizer
from pop3core.maildrop import Listing
from pop3d.auth import Account, check_user_name
from pop3d.plugins import OptionsError
from pop3d.stores import MaildropBusy, RemovalFailed, StoreError
from pop3d.stores.threads import hop

T = TypeVar("T")

KEYS = {"folder", "remove"}
READ = 32 * 1024  # octets read at once: with CRs added they are still not more than may be sent at once


class EmlStore:
    """See `pop3d.stores.Store`."""

    def __init__(self, options: Mapping[str, Any], folder: Path) -> None:
        faults = dict.fromkeys(sorted({*options} - KEYS), 'there is no such option; there are "folder" and "remove"')
        if not isinstance(options.get("folder"), str):
            faults["folder"] = 'name the folder of all mailboxes, such as "archive"'
        if not isinstance(options.get("remove", False), bool):
            faults["remove"] = "say true or false"
        if faults:
            raise OptionsError(faults)
        self._root, self._remove = folder / options["folder"], options.get("remove", False)

    async def open(self, account: Account, *, utf8: bool) -> "EmlMaildrop":
        """See `pop3d.stores.Store.open`. A folder that is not there is an empty mailbox."""
        try:
            check_user_name(account.name)
        except ValueError as fault:
            raise StoreError("this mailbox cannot be opened", code="SYS/PERM", detail=str(fault)) from None
        drop = EmlMaildrop(self._root / account.name, self._remove)
        try:
            await asked(drop.fill)
        except BaseException:  # also when the client goes while the thread is at it: nobody else would free the lock
            await drop.close()
            raise
        return drop


class EmlMaildrop:
    """See `pop3d.stores.Maildrop`. To be filled."""

    def __init__(self, path: Path, remove: bool) -> None:
        self._path, self._may_remove, self._reading = path, remove, Reading()
        self._folder: int | None = None
        self._names: list[str] = []
        self.messages = Listing()

    def fill(self) -> None:
        """Lock and list. In a thread."""
        try:
            self._folder = folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            # of the folder itself: no file of ours, it holds between processes, and goes with its holder
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MaildropBusy from None
        sizes, uids = [], []
        with os.scandir(folder) as entries:
            # what a link leads to may be anybody's, and a pipe would never end
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        for name in sorted(name for name in names if name.endswith(".eml") and not name.startswith(".")):
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                size, uid = counted(folder, name)
                self._names.append(name)
                sizes.append(size)
                uids.append(uid)
        self.messages = Listing(sizes, uids)

    async def read(self, number: int, offset: int) -> Content:
        """See `pop3d.stores.Maildrop.read`."""
        return await asked(self._read, number, offset)

    def _read(self, number: int, offset: int) -> Content:
        """In a thread."""
        if not offset:
            assert self._folder is not None
            self._reading.close()
            self._reading = Reading(opened(self._folder, self._names[number - 1]))
        return self._reading.piece()

    def release(self, number: int) -> None:
        """See `pop3d.stores.Releases.release`."""
        self._reading.close()

    async def remove(self, numbers: Collection[int]) -> None:
        """See `pop3d.stores.Maildrop.remove`."""
        if numbers and not self._may_remove:
            raise RemovalFailed(numbers, "these mailboxes are read-only")
        await asked(self._remove, numbers)

    def _remove(self, numbers: Collection[int]) -> None:
        """In a thread."""
        if self._folder is None:
            return
        left: dict[int, str] = {}
        for number in numbers:
            try:
                os.unlink(self._names[number - 1], dir_fd=self._folder)
            except FileNotFoundError:
                pass  # that is what was wanted
            except OSError as fault:
                left[number] = str(fault)
        try:
            os.fsync(self._folder)  # removed means removed, also after a power cut
        except OSError as fault:
            raise RemovalFailed(numbers, f"the folder cannot be synced: {fault}") from None
        if left:
            raise RemovalFailed(left, "; ".join(left.values()))

    async def close(self) -> None:
        """See `pop3d.stores.Maildrop.close`."""
        self._reading.close()
        folder, self._folder = self._folder, None
        if folder is not None:
            os.close(folder)  # and with it the lock


class Reading:
    """A message that is being read, from its beginning on; or none."""

    def __init__(self, file: BinaryIO | None = None) -> None:
        self._file, self._content = file, CrlfNormalizer()

    def piece(self) -> Content:
        """The next piece as it is sent: at most twice READ octets, and empty only at the end."""
        assert self._file is not None
        while True:
            stored = self._file.read(READ)
            data, last = self._content.feed(stored), len(stored) < READ
            if last:
                data += self._content.finish()
            if data or last:  # an LF alone, whose CR ended the piece before, adds nothing
                return Content(data, last)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def opened(folder: int, name: str) -> BinaryIO:
    """Raises OSError."""
    return open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb")


def counted(folder: int, name: str) -> tuple[int, bytes]:
    """Octets as sent, counted by the code that sends, and a unique-id. Raises OSError.

    The id is a hash of name and content: two files may have the same content, and a name may come again.
    """
    octets, digest = 0, hashlib.sha256(os.fsencode(name) + b"\0")
    with contextlib.closing(Reading(opened(folder, name))) as reading:
        last = False
        while not last:
            piece = reading.piece()
            octets, last = octets + len(piece.data), piece.last
            digest.update(piece.data)
    return octets, digest.hexdigest().encode()


async def asked(work: Callable[..., T], *arguments: object) -> T:
    """Run ``work`` in a thread, for it may wait for a disk. Its troubles become `StoreError`."""
    try:
        return await hop(work, *arguments)
    except OSError as fault:
        raise StoreError("the mailbox cannot be read now", detail=str(fault)) from None
