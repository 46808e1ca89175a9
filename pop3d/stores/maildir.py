"""Maildir: one file per message, which other programs deliver into at any moment.

*Lock.* `flock` on a descriptor of the Maildir's folder itself: nothing is written, it works on a full disk, holds
across processes, and dies with its holder. It is one node's lock: a Maildir belongs to one node.

*Reading* happens on the event loop as long as the page cache has what is asked for (``RWF_NOWAIT`` never waits),
because a hop to a thread costs twenty times what reading a small message does; else, and for what is large and cold,
aiofiles reads in a thread. Messages are read in pieces, so that size costs no memory.

*Listing, counting and removing* are one hop to a thread each. What is removed is unlinked and the folder synced before
anybody says +OK.

*Other programs.* A file that was renamed since the listing (flags changed, moved from new/ to cur/) is looked for once
more by the unique part of its name, before it counts as gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Awaitable, Collection
from pathlib import Path
from typing import Final, TypeVar

import aiofiles
from aiofiles.threadpool.binary import AsyncFileIO

from pop3core.answers import Content
from pop3core.limits import DEFAULT_LIMITS
from pop3core.maildrop import Listing, PackedOctets
from pop3d.auth import Account, check_user_name
from pop3d.stores import MaildropBusy, RemovalFailed, StoreError
from pop3d.stores.maildir_listing import Scan, find_again, open_message, scan, text_of
from pop3d.stores.sizes import SizeCache

__all__ = ["MaildirMaildrop", "MaildirStore", "mailbox_path"]

T = TypeVar("T")

log = logging.getLogger("pop3d.maildir")

_PIECE: Final = DEFAULT_LIMITS.content_octets_max
_READ: Final = (
    _PIECE - _PIECE // 16
)  # octets of a file at a time: with CRs added, text of usual lines is still one piece
_LOCK_PATIENCE: Final = 0.04  # seconds that a dying holder gets before the mailbox counts as in use
_LOCK_PAUSE: Final = 0.005
_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0)  # Linux; elsewhere every read goes through a thread
_scratch = memoryview(bytearray(_READ))  # what read_now reads into; used by the event loop's thread alone


def mailbox_path(template: str, account: Account) -> str:
    """A user's mailbox by the configured path. Raises `StoreError` when the name, or its home, cannot be in a path."""
    try:
        check_user_name(account.name)
    except ValueError as fault:
        raise StoreError("this mailbox cannot be opened", code="SYS/PERM", detail=str(fault)) from None
    if "{home}" in template and not account.home:
        raise StoreError("this mailbox cannot be opened", code="SYS/PERM", detail="the user has no home")
    local, _, domain = account.name.partition("@")
    if "{domain}" in template and domain in ("", ".", ".."):
        raise StoreError("this mailbox cannot be opened", code="SYS/PERM", detail="the user has no domain")
    return template.format(user=account.name, local=local, domain=domain, home=account.home)


class MaildirStore:
    """Maildirs at ``path``, a template with {user}, {local}, {domain} and {home}; see `pop3d.stores.Store`.

    ``state``: a folder for what can be rebuilt, or None to keep nothing. ``utf8_downgrade``: who did not say UTF8 gets
    surrogates of internationalized messages (RFC 6856 §2).
    """

    def __init__(self, path: str, state: Path | None = None, *, utf8_downgrade: bool = False) -> None:
        self._path = path
        self._state = state
        self._utf8_downgrade = utf8_downgrade

    async def open(self, account: Account, *, utf8: bool) -> MaildirMaildrop:
        """See `pop3d.stores.Store.open`. A Maildir that is not there is an empty mailbox, and is not made."""
        path = mailbox_path(self._path, account)
        surrogates = self._utf8_downgrade and not utf8
        try:
            root = await asyncio.to_thread(_open_folder, path)
            if root is None:
                return MaildirMaildrop(path, None, Scan(PackedOctets(()), Listing(), {}, 0), None, surrogates)
            try:
                await _lock(root)
                cache = None if self._state is None else SizeCache(self._state, path, surrogates=surrogates)
                found = await _to_its_end(asyncio.to_thread(_scan, root, cache, surrogates))
            except BaseException:
                os.close(root)
                raise
        except OSError as fault:
            raise StoreError("this mailbox cannot be opened now", detail=f"{path}: {fault.strerror}") from None
        for trouble in found.troubles:
            log.warning("%s: %s", path, trouble)
        return MaildirMaildrop(path, root, found, cache, surrogates)


def _open_folder(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


async def _to_its_end(work: Awaitable[T]) -> T:
    """Wait for a hop even when this task is cancelled: the descriptor it uses must not be closed under it."""
    work = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await work
        raise


async def _lock(root: int) -> None:
    loop = asyncio.get_running_loop()
    patience = loop.time() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if loop.time() >= patience:
                raise MaildropBusy from None
        await asyncio.sleep(_LOCK_PAUSE)


def _scan(root: int, cache: SizeCache | None, surrogates: bool) -> Scan:
    known = {} if cache is None else cache.load()
    found = scan(root, known, surrogates=surrogates)
    # also when only old ones went, once they are many: the cache must not grow for ever
    if cache is not None and (found.counted or len(known) > 2 * len(found.sizes)):
        cache.save(found.sizes)
    return found


class _Cursor:
    """One message being read: a descriptor, and what was read but not given yet."""

    def __init__(self, number: int, descriptor: int, *, surrogate: bool) -> None:
        self.number = number
        self.offset = 0  # of content given, CRLF counted
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._position = 0  # in the file
        self._text = text_of(surrogate=surrogate)
        self._waiting = b""  # content read and not given
        self._ended = False
        self._file: AsyncFileIO | None = None

    def read_now(self) -> Content | None:
        """The next piece, or None when the disk has to be waited for."""
        while not self._waiting and not self._ended:
            if not _NOWAIT:
                return None
            try:
                octets = os.preadv(self._descriptor, [_scratch], self._position, _NOWAIT)
            except OSError as fault:
                # not in the page cache, or a file system that cannot tell
                if fault.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
                    return None
                raise
            self._take(bytes(_scratch[:octets]))
        return self._give()

    async def read(self) -> Content:
        """The next piece, from the disk if need be."""
        while not self._waiting and not self._ended:
            self._take(await _to_its_end(self._read_file()))
        return self._give()

    async def _read_file(self) -> bytes:
        if self._file is None:
            self._file = await aiofiles.open(self._descriptor, "rb", buffering=0, closefd=False)
        await self._file.seek(self._position)
        return await self._file.read(_READ)

    def _take(self, data: bytes) -> None:
        self._position += len(data)
        self._waiting = self._text.feed(data)
        # A short read is no end: the page cache may hold only a part. The size saves the read that returns nothing.
        if not data or self._position >= self._size:
            self._waiting += self._text.finish()
            self._ended = True

    def _give(self) -> Content:
        piece = self._waiting[:_PIECE]
        self._waiting = self._waiting[_PIECE:]
        self.offset += len(piece)
        return Content(piece, last=self._ended and not self._waiting)

    def close(self) -> None:
        os.close(self._descriptor)


class MaildirMaildrop:
    """An open Maildir; see `pop3d.stores.Maildrop`. ``root``: descriptor with the lock; None when there is none."""

    def __init__(
        self, path: str, root: int | None, found: Scan, cache: SizeCache | None, surrogates: bool = False
    ) -> None:
        self._path = path
        self._surrogates = surrogates
        self._root = root
        self._names = found.names
        self._renamed: dict[int, bytes] = {}
        self._cache = cache
        self._cursor: _Cursor | None = None
        self.messages = found.listing

    # --- reading ---

    def read_now(self, number: int, offset: int) -> Content | None:
        """See `pop3d.stores.ReadsNow`."""
        try:
            if offset == 0 and not self._has_begun(number):
                self._begin(number, self._open(number))
            return self._checked(self._under_way(number, offset).read_now())
        except FileNotFoundError:
            return None  # renamed, perhaps: looking for it takes a thread
        except OSError as fault:
            raise self._unreadable(number, fault) from None

    async def read(self, number: int, offset: int) -> Content:
        """See `pop3d.stores.Maildrop.read`."""
        try:
            if offset == 0 and not self._has_begun(number):
                self._begin(number, await asyncio.to_thread(self._open_or_find, number))
            content = self._checked(await self._under_way(number, offset).read())
        except OSError as fault:
            raise self._unreadable(number, fault) from None
        assert content is not None
        return content

    def release(self, number: int) -> None:
        """See `pop3d.stores.Releases`."""
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    def _has_begun(self, number: int) -> bool:
        """Opened by `read_now`, which then could not read."""
        return self._cursor is not None and (self._cursor.number, self._cursor.offset) == (number, 0)

    def _begin(self, number: int, descriptor: int) -> None:
        self.release(number)
        self._cursor = _Cursor(number, descriptor, surrogate=self._surrogates)

    def _under_way(self, number: int, offset: int) -> _Cursor:
        cursor = self._cursor
        assert cursor is not None and (cursor.number, cursor.offset) == (number, offset), "read out of order"
        return cursor

    def _checked(self, content: Content | None) -> Content | None:
        cursor = self._cursor
        if content is None or not content.last or cursor is None:
            return content
        announced = self.messages.sizes[cursor.number - 1]
        if cursor.offset != announced:
            log.warning(
                "%s: message %d has %d octets, not %d as listed: its file was changed in place",
                self._path, cursor.number, cursor.offset, announced,
            )  # fmt: skip
            if self._cache is not None:
                self._cache.forget()
        self.release(cursor.number)
        return content

    def _name(self, number: int) -> bytes:
        return self._renamed.get(number) or self._names[number - 1]

    def _open(self, number: int) -> int:
        assert self._root is not None
        return open_message(self._root, self._name(number))

    def _open_or_find(self, number: int) -> int:
        try:
            return self._open(number)
        except FileNotFoundError:
            self._find(number)
            return self._open(number)

    def _find(self, number: int) -> None:
        """Look for a message that has another name now. Raises FileNotFoundError when it is gone."""
        assert self._root is not None
        found = find_again(self._root, self._names[number - 1])
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "gone")
        self._renamed[number] = found

    def _unreadable(self, number: int, fault: OSError) -> StoreError:
        name = os.fsdecode(self._name(number))
        detail = f"{self._path}: message {name!r}: {fault.strerror}"
        if isinstance(fault, FileNotFoundError):
            return StoreError("this message was removed by another program", code=None, detail=detail)
        return StoreError("this message cannot be read", detail=detail)

    # --- removing ---

    async def remove(self, numbers: Collection[int]) -> None:
        """See `pop3d.stores.Maildrop.remove`."""
        if numbers:
            await _to_its_end(asyncio.to_thread(self._remove, numbers))

    def _remove(self, numbers: Collection[int]) -> None:
        assert self._root is not None
        left: list[int] = []
        folders: dict[bytes, list[int]] = {}
        details: list[str] = []
        for number in numbers:
            try:
                folders.setdefault(self._unlink(number), []).append(number)
            except OSError as fault:
                left.append(number)
                details.append(f"{os.fsdecode(self._name(number))!r}: {fault.strerror}")
        for folder, unlinked in folders.items():
            try:
                _sync(self._root, folder)
            except OSError as fault:
                # gone now, but nobody can promise for after a power cut
                left += unlinked
                details.append(f"sync of {os.fsdecode(folder)}: {fault.strerror}")
        if left:
            raise RemovalFailed(left, f"{self._path}: {'; '.join(details[:3])}")

    def _unlink(self, number: int) -> bytes:
        """Unlink a message's file under whatever name; the folder to be synced."""
        try:
            os.unlink(self._name(number), dir_fd=self._root)
        except FileNotFoundError:
            try:
                self._find(number)
            except FileNotFoundError:
                return self._name(number)[:3]  # another program has removed it: so be it, durably
            os.unlink(self._name(number), dir_fd=self._root)
        return self._name(number)[:3]

    async def close(self) -> None:
        """See `pop3d.stores.Maildrop.close`."""
        self.release(0)
        if self._root is not None:
            root, self._root = self._root, None
            os.close(root)  # and with it the lock


def _sync(root: int, folder: bytes) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
