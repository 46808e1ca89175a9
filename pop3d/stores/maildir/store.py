"""Maildir: one file per message, which other programs deliver into at any moment.

*Lock.* `flock` on a descriptor of the Maildir's folder itself: nothing is written, it works on a full disk, holds
across processes, and dies with its holder (RFC 1939 §4: exclusive access from the login on). It is one node's lock: a
Maildir belongs to one node.

*Off the loop.* Whatever may wait for a disk is done in a thread: opening and listing in one hop, reading as
`pop3d.stores.maildir.reader` says, removing in one more. A mailbox that was opened before and has not changed needs no
hop where the kernel can open without waiting (`pop3d.stores.maildir.nowait`): most logins are such. What is removed is
unlinked and the folder synced before anybody says +OK.

*Other programs.* A file that was renamed since the listing (flags changed, moved from new/ to cur/) is looked for once
more by the unique part of its name, before it counts as gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import hashlib
import logging
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

from pop3core.answers import Content
from pop3core.maildrop import Listing
from pop3d.auth import Account
from pop3d.stores import MaildropBusy, RemovalFailed, StoreError
from pop3d.stores.maildir.age import older_than
from pop3d.stores.maildir.compressed import NotMail
from pop3d.stores.maildir.disk_cache import ListingFile
from pop3d.stores.maildir.folders import open_folder
from pop3d.stores.maildir.foreign_uids import LIST_FILES
from pop3d.stores.maildir.id_sources import IdSources
from pop3d.stores.maildir.identity import ListedFiles, listed_now
from pop3d.stores.maildir.memory_cache import RecentScans, Stamps, at_rest, stamps_at_once, stamps_of
from pop3d.stores.maildir.nowait import is_local, open_cached
from pop3d.stores.maildir.paths import mailbox_path
from pop3d.stores.maildir.reader import MessageReader, scratch
from pop3d.stores.maildir.removal import Removal, SoftDelete, mark_seen
from pop3d.stores.maildir.scan import Scan, ScanOptions, scan
from pop3d.stores.maildir.seen_mailboxes import SeenMailboxes
from pop3d.stores.threads import hop
from pop3d.system.flocks import flock_holder
from pop3d.system.state_folder import CACHE
from pop3d.uidl_format import UidSource

__all__ = ["MaildirMaildrop", "MaildirOptions", "MaildirStore"]

log = logging.getLogger("pop3d.maildir")

_LOCK_PATIENCE: Final = 0.04  # seconds that a dying holder gets before the mailbox counts as in use
_LOCK_PAUSE: Final = 0.005
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY
_TROUBLES_TOLD: Final = 10  # lines of the log for one login: who can write files into a mailbox can make many
_LARGE: Final = 1_000  # messages from which on a listing is kept although no size in it is new

_Found: TypeAlias = tuple[Scan, Stamps]
"""What was listed, and how the folders were before."""


@dataclass(frozen=True, slots=True)
class MaildirOptions:
    """How mailboxes are served; all off.

    ``utf8_downgrade``: who did not say UTF8 gets surrogates of internationalized messages (RFC 6856 §2).
    ``sizes_in_names``: ``W=`` in a file's name is believed. ``mark_seen``: RETR marks a message as seen. ``deleted``:
    a template as the path, for what is deleted; ``retention_days``: then it goes. ``uidl``: whose unique-ids are kept,
    as `pop3d.uidl_format.UidSource.of` reads it; ``control``: a template too, for where Dovecot's list is, if not in
    the Maildir. ``refuse_compressed``: what another server compressed is not unpacked, and not sent.
    """

    utf8_downgrade: bool = False
    sizes_in_names: bool = False
    mark_seen: bool = False
    deleted: str = ""
    retention_days: float | None = None
    uidl: str = "filename"
    control: str = ""
    refuse_compressed: bool = False


def _trouble_of(seen: SeenMailboxes) -> str | None:
    if (why := seen.root_gone()) is not None:
        return why
    root = seen.root
    if root is None or not os.path.isdir(root):
        return None  # homes; or nobody has had mail yet
    if not os.access(root, os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        return f"{root}: {os.strerror(errno.EACCES)}; let `user` enter it"
    # the folder itself may be root's: what is written to are the mailboxes in it
    if os.statvfs(root).f_flag & os.ST_RDONLY:
        return f"{root}: {os.strerror(errno.EROFS)}; mount it so that it can be written to"
    return None


class MaildirStore:
    """Maildirs at ``path``, a template with {user}, {local}, {domain} and {home}; see `pop3d.stores.Store`.

    ``state``: the state folder (`pop3d.system.state_folder`), or None to keep nothing: neither listings, nor which
    mailboxes were seen.
    """

    def __init__(self, path: str, state: Path | None = None, options: MaildirOptions | None = None) -> None:
        self._path = path
        self._cache = None if state is None else state / CACHE
        self._seen = None if state is None else SeenMailboxes(state, path)
        self._options = options or MaildirOptions()
        self._source = UidSource.of(self._options.uidl)
        self._ids = IdSources(self._source, state, self._seen)
        self._recent = RecentScans()
        # Where ids are kept, a list that changes changes none of those that were told.
        listed = [LIST_FILES[self._source.server]] if state is None and self._source.is_foreign else []
        self._watched = ("cur", "new", *listed)
        self._held: set[str] = set()
        self._room = scratch()

    async def trouble(self) -> str | None:
        """See `pop3d.auth.TellsTrouble`: whether the folder of all mailboxes is gone, closed to us, or read-only."""
        return None if self._seen is None else await hop(_trouble_of, self._seen)

    async def open(self, account: Account, *, utf8: bool) -> MaildirMaildrop:
        """See `pop3d.stores.Store.open`. A Maildir never seen is an empty mailbox, and is not made.

        One that was seen before and is missing is a `StoreError` (`pop3d.stores.maildir.seen_mailboxes`).
        """
        options = self._options
        path = mailbox_path(self._path, account)
        soft = SoftDelete(mailbox_path(options.deleted, account), options.retention_days) if options.deleted else None
        scan_options, cache = self._kept(path, utf8=utf8)
        control = mailbox_path(options.control, account) if options.control else None
        folder = _Folder(path, self._held, control)
        try:
            found, stamps = await self._locked_and_scanned(folder, cache, scan_options)
        except OSError as fault:
            folder.close()
            where = f"{path}: " if fault.filename in (None, path) else f"{path}: {fault.filename}: "
            raise StoreError("this mailbox cannot be opened now", detail=f"{where}{fault.strerror}") from None
        except BaseException:
            folder.close()
            raise
        for trouble in found.troubles[:_TROUBLES_TOLD]:
            log.warning("%s: %s", path, trouble)
        if (untold := len(found.troubles) - _TROUBLES_TOLD) > 0:
            log.warning("%s: and %d more like these", path, untold)
        devices = {stamp[0] for stamp in stamps if stamp is not None}
        files = ListedFiles(
            -1 if folder.root is None else folder.root,
            found,
            devices,
            listed_now(),
            surrogates=scan_options.surrogates,
            refuse=scan_options.refuse,
        )
        return MaildirMaildrop(
            folder, found, files, cache, soft, scan_options, self._recent, self._room, mark_as_seen=options.mark_seen
        )

    def _kept(self, path: str, *, utf8: bool) -> tuple[ScanOptions, ListingFile | None]:
        """How a mailbox is read, and where its listing is kept."""
        options = self._options
        scan_options = ScanOptions(
            surrogates=options.utf8_downgrade and not utf8,
            believe_names=options.sizes_in_names,
            refuse=options.refuse_compressed,
        )
        if self._cache is None:
            return scan_options, None
        return scan_options, ListingFile(self._cache, path, *_unusual(scan_options, self._source))

    def look(self, account: Account) -> Listing:
        """What is in a mailbox now, by the sizes that a session would tell; unique-ids are those of the names.

        It takes no lock, and nothing is remembered or changed. Blocking. Raises OSError, and `StoreError` as `open`.
        """
        path = mailbox_path(self._path, account)
        scan_options, cache = self._kept(path, utf8=False)
        known = None if cache is None else cache.load()
        try:
            root = open_folder(path)
        except FileNotFoundError:
            return Listing()
        try:
            return scan(root, None if known is None else known.scan, scan_options).listing
        finally:
            os.close(root)

    async def _locked_and_scanned(
        self, folder: _Folder, cache: ListingFile | None, scan_options: ScanOptions
    ) -> _Found:
        loop = asyncio.get_running_loop()
        patience = loop.time() + _LOCK_PATIENCE
        holder: Callable[[], int | None] | None = None
        while True:
            if folder.claim():
                if (recent := self._opened_at_once(folder, scan_options)) is not None:
                    return recent
                try:
                    return await hop(self._scan, folder, cache, scan_options)
                except _Locked as held:
                    holder = functools.partial(flock_holder, held.device, held.inode)
            if loop.time() >= patience:
                raise MaildropBusy(holder)
            await asyncio.sleep(_LOCK_PAUSE)

    def _opened_at_once(self, folder: _Folder, scan_options: ScanOptions) -> _Found | None:
        """Lock a mailbox and find that nothing in it has changed; None when that takes a hop."""
        device = self._recent.device(key := _key(folder, scan_options))
        if device is None or not is_local(device) or not folder.lock_at_once():
            return None
        assert folder.root is not None
        stamps = stamps_at_once(folder.root, self._watched)
        recent = None if stamps is None else self._recent.find(key, stamps)
        return None if stamps is None or recent is None else (recent, stamps)

    def _scan(self, folder: _Folder, cache: ListingFile | None, scan_options: ScanOptions) -> _Found:
        """Lock a mailbox and list it. In a thread."""
        folder.lock()
        stamps = () if folder.root is None else stamps_of(folder.root, self._watched)
        if self._seen is not None:
            self._seen.check(folder.path, there=any(stamps[:2]))  # cur/ or new/
        if folder.root is None:
            return Scan(), ()
        key = _key(folder, scan_options)
        if (recent := self._recent.find(key, stamps)) is not None:
            return recent, stamps
        resting = at_rest(stamps)
        before = self._recent.last(key)
        if before is None and cache is not None and (kept := cache.load()) is not None:
            if kept.stamps == stamps:
                self._recent.keep(key, stamps, kept.scan)
                return kept.scan, stamps
            before = kept.scan
        try:
            told = () if self._seen is None else self._seen.told(folder.path)
            ids = self._ids.given(folder.root, folder.path, folder.control)
            scan_options = replace(scan_options, ids=ids, told=told)
        except ValueError as fault:
            raise OSError(errno.EINVAL, str(fault)) from None
        found = scan(folder.root, before, scan_options)
        # before any client is told
        if self._seen is not None and found.told is not None:
            self._seen.tell(folder.path, found.told)
        self._ids.keep(folder.path, found.fresh)
        found.fresh = {}
        if not self._options.deleted:  # what was deleted may come back, with its unique-id
            self._ids.prune(folder.path, len(ids.kept), found.names, len(found.names))
        resting = resting and not found.troubles  # those are told at each login
        # also when only old ones went, once they are many: the cache must not grow for ever
        worth_it = found.counted or found.forgotten > len(found.listing) or (resting and len(found.names) >= _LARGE)
        if cache is not None and worth_it and not found.unread:
            cache.save(found, stamps if resting else ())
        if resting:
            self._recent.keep(key, stamps, found)
        return found, stamps


def _unusual(scan_options: ScanOptions, source: UidSource) -> Iterator[str]:
    if scan_options.surrogates:
        yield "surrogates"
    if scan_options.believe_names:
        yield "believed"
    if scan_options.refuse:
        yield "refused"
    if source.is_foreign:
        yield f"{source.server}-{hashlib.sha256(source.format.text.encode()).hexdigest()[:8]}"


def _key(folder: _Folder, scan_options: ScanOptions) -> tuple[str, bool]:
    return folder.path, scan_options.surrogates


class _Locked(Exception):
    """Somebody else has the lock of the folder with this device and inode."""

    def __init__(self, device: int, inode: int) -> None:
        super().__init__()
        self.device, self.inode = device, inode


class _Folder:
    """A Maildir's folder. ``root``: its descriptor, which holds the lock; None when there is no such folder.

    ``local``: it is on a disk of this machine (`is_local`). ``held``: the paths that this process has claimed.
    ``control``: where Dovecot's list of it is, if not in it.
    """

    def __init__(self, path: str, held: set[str], control: str | None = None) -> None:
        self.path, self.control = path, control
        self.root: int | None = None
        self.local = False
        self._held = held
        self._claimed = False

    def claim(self) -> bool:
        """Whether this process has no other session of this mailbox.

        Asked before the lock: however long a disk hangs, its mailbox holds one thread, and others are refused at once.
        """
        if not self._claimed and self.path not in self._held:
            self._held.add(self.path)
            self._claimed = True
        return self._claimed

    def lock(self) -> None:
        """Open and lock it (RFC 1939 §4). Raises OSError, `_Locked` when somebody else has the lock. In a thread."""
        if self.root is None:
            try:
                self.root = open_folder(self.path)
            except FileNotFoundError:
                return
            self.local = is_local(os.fstat(self.root).st_dev)
        try:
            fcntl.flock(self.root, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            folder = os.fstat(self.root)
            raise _Locked(folder.st_dev, folder.st_ino) from None

    def lock_at_once(self) -> bool:
        """The same without waiting for a disk, for one that is `local`: False when that cannot be."""
        if self.root is None:
            self.root = open_cached(self.path, _FOLDER)
            self.local = True
        if self.root is None:
            return False
        with contextlib.suppress(OSError):
            fcntl.flock(self.root, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def close(self) -> None:
        """Free the lock."""
        if self.root is not None:
            root, self.root = self.root, None
            os.close(root)  # a folder that was only read: nothing is flushed, nothing waits
        if self._claimed:
            self._held.discard(self.path)
            self._claimed = False


class MaildirMaildrop:
    """An open Maildir; see `pop3d.stores.Maildrop`."""

    def __init__(
        self,
        folder: _Folder,
        found: Scan,
        files: ListedFiles,
        cache: ListingFile | None,
        soft: SoftDelete | None,
        scan_options: ScanOptions,
        recent: RecentScans,
        room: memoryview,
        *,
        mark_as_seen: bool,
    ) -> None:
        self._folder = folder
        self._recent, self._key = recent, _key(folder, scan_options)
        self._files = files
        self._cache, self._soft = cache, soft
        self._wrong_size = False
        self._seen: set[int] | None = set() if mark_as_seen else None
        self._reader: MessageReader | None = None
        if folder.root is not None:
            self._reader = MessageReader(files, room, scan_options, at_once=folder.local)
        self.messages = found.listing

    # --- reading ---

    def read_now(self, number: int, offset: int) -> Content | None:
        """See `pop3d.stores.ReadsNow`."""
        assert self._reader is not None
        try:
            content = self._reader.read_now(number, offset)
        except OSError as fault:
            raise self._unreadable(number, fault) from None
        return content if content is None else self._checked(number, offset, content)

    async def read(self, number: int, offset: int) -> Content:
        """See `pop3d.stores.Maildrop.read`."""
        assert self._reader is not None
        try:
            content = await self._reader.read(number, offset)
        except (OSError, NotMail) as fault:
            if offset and isinstance(fault, NotMail):
                self._forget_sizes()  # it was damaged since it was counted: counted again, it is refused from the start
            raise self._unreadable(number, fault) from None
        return self._checked(number, offset, content)

    def release(self, number: int) -> None:
        """See `pop3d.stores.Releases`."""
        if self._reader is not None:
            self._reader.release()

    def retrieved(self, number: int) -> None:
        """See `pop3d.stores.MarksSeen`."""
        if self._seen is not None:
            self._seen.add(number)

    def _checked(self, number: int, offset: int, content: Content) -> Content:
        if content.last:
            assert self._reader is not None
            if offset + len(content.data) != self.messages.sizes[number - 1]:
                self._tell_of_wrong_size(number, offset + len(content.data))
            self._reader.release()
        return content

    def _tell_of_wrong_size(self, number: int, octets: int) -> None:
        log.warning(
            "%s: message %d has %d octets, not %d as listed: its file was changed in place, or its name lies",
            self._folder.path, number, octets, self.messages.sizes[number - 1],
        )  # fmt: skip
        self._forget_sizes()

    def _forget_sizes(self) -> None:
        self._wrong_size = True
        self._recent.forget(self._key)

    def _unreadable(self, number: int, fault: OSError | NotMail) -> StoreError:
        name = os.fsdecode(self._files.name(number))
        where = f"{self._folder.path}: message {name!r}"
        if isinstance(fault, NotMail):
            text = "this message is stored in a way that the server cannot read; ask its administrator"
            return StoreError(text, code="SYS/PERM", detail=f"{where}: {fault}")
        detail = f"{where}: {fault.strerror}"
        if isinstance(fault, FileNotFoundError):
            return StoreError("this message was removed by another program", code=None, detail=detail)
        return StoreError("this message cannot be read", detail=detail)

    # --- the end ---

    async def older_than(self, when: float) -> Collection[int]:
        """See `pop3d.stores.KnowsAges`."""
        return [] if self._folder.root is None else await hop(older_than, self._files, when)

    async def remove(self, numbers: Collection[int]) -> None:
        """See `pop3d.stores.Maildrop.remove`."""
        if not numbers:
            return
        assert self._folder.root is not None
        removal = Removal(self._files, self._soft)
        if left := await hop(self._remove, removal, numbers):
            raise RemovalFailed(left, f"{self._folder.path}: {'; '.join(removal.details[:3])}")

    def _remove(self, removal: Removal, numbers: Collection[int]) -> list[int]:
        """In a thread."""
        left = removal.run(numbers)
        if self._seen is not None:
            self._seen.difference_update(numbers)
        return left

    async def close(self) -> None:
        """See `pop3d.stores.Maildrop.close`."""
        if self._reader is not None:
            self._reader.close()
        try:
            if self._folder.root is not None and (self._seen or self._wrong_size):
                await hop(self._tidy_up)
        finally:
            self._folder.close()  # and with it the lock

    def _tidy_up(self) -> None:
        """What is not worth a hop of its own. In a thread."""
        assert self._folder.root is not None
        if self._wrong_size and self._cache is not None:
            self._cache.forget()
        for number in sorted(self._seen or ()):
            try:
                mark_seen(self._files, number)
            except OSError as fault:
                log.warning("%s: message %d is not marked as seen: %s", self._folder.path, number, fault.strerror)
