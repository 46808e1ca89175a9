"""Reading the messages of an open Maildir, off the event loop and nearly without hops.

A hop to a thread costs as much as reading ten small messages does, and a call that may wait for the disk has no place
on the event loop. So what the kernel has in memory is read on the loop, by calls that never wait
(`pop3d.stores.maildir.nowait`). Where they would have to, a message is read in a hop, and small ones that follow it in
the same hop, for they are nearly always asked for next; they are then given without any call to the system. A large
message is read in pieces, on the loop or by aiofiles in a thread. So size costs no memory. What the store of a database
does alike is in `pop3d.stores.read_ahead`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Final

import aiofiles
from aiofiles.threadpool.binary import AsyncFileIO

from pop3core.answers import Content
from pop3core.framing import normalized
from pop3d.stores.maildir.compressed import BEGINNINGS, HEAD, NotMail, StoredForm, form_of, unpacked, verified
from pop3d.stores.maildir.content import OPEN_MESSAGE, text_of
from pop3d.stores.maildir.identity import ListedFiles
from pop3d.stores.maildir.names import OpenFolders
from pop3d.stores.maildir.nowait import fstat_local, open_cached, read_cached
from pop3d.stores.maildir.scan import ScanOptions
from pop3d.stores.read_ahead import PIECE, Pieces, behind
from pop3d.stores.threads import POOL, hop, to_its_end

__all__ = ["MessageReader", "scratch"]

_READ: Final = PIECE - PIECE // 16  # octets of a file at a time: with CRs added, text of usual lines is one piece


def scratch() -> memoryview:
    """Room for what is read on an event loop and at once copied: one for all mailboxes of a store."""
    return memoryview(bytearray(PIECE))


class _Cursor(Pieces):
    """One message being read in pieces, by a descriptor."""

    def __init__(self, number: int, descriptor: int, size: int, room: memoryview, *, surrogate: bool) -> None:
        super().__init__(number, text_of(surrogate=surrogate), size)
        self._descriptor, self._room = descriptor, room
        self._file: AsyncFileIO | None = None

    def read_here(self) -> None:
        """Read the first piece, in the thread that has opened the file."""
        self.take(os.pread(self._descriptor, _READ, 0))

    def read_now(self) -> Content | None:
        """The next piece, or None when the disk has to be waited for."""
        while not self.waiting and not self.ended:
            octets = read_cached(self._descriptor, self._room[:_READ], self.position)
            if octets is None:
                return None
            self.take(bytes(self._room[:octets]))
        return self.give()

    async def read(self) -> Content:
        """The next piece, from the disk if need be."""
        while not self.waiting and not self.ended:
            self.take(await to_its_end(self._read_file()))
        return self.give()

    async def _read_file(self) -> bytes:
        if self._file is None:
            self._file = await aiofiles.open(self._descriptor, "rb", buffering=0, closefd=False, executor=POOL)
        await self._file.seek(self.position)
        return await self._file.read(_READ)

    def close(self) -> None:
        os.close(self._descriptor)  # of a file that was only read: nothing is flushed


class _Converting(_Cursor):
    """The same for a message that is sent as its surrogate: it is made in a thread, for a piece can take 20 ms."""

    def read_here(self) -> None:
        self.take(self._more())

    def read_now(self) -> Content | None:
        return self.give() if self.waiting or self.ended else None

    async def read(self) -> Content:
        if not self.waiting and not self.ended:
            await hop(self._read_on)
        return self.give()

    def _read_on(self) -> None:
        while not self.waiting and not self.ended:
            self.take(self._more())

    def _more(self) -> bytes:
        return os.pread(self._descriptor, _READ, self.position)


class _Unpacking(_Converting):
    """The same for a message that another server compressed: its ``pieces`` are unpacked in a thread."""

    def __init__(
        self, number: int, descriptor: int, pieces: Iterator[bytes], room: memoryview, *, surrogate: bool
    ) -> None:
        super().__init__(number, descriptor, sys.maxsize, room, surrogate=surrogate)
        self._pieces = pieces

    def _more(self) -> bytes:
        return next(self._pieces, b"")


class MessageReader:
    """Reads messages 1 to n of a listing.

    ``room``: of `scratch`; what is in it is of no worth once a method has returned. ``scan_options``: as it was listed.
    ``at_once``: files that are in memory may be opened on the event loop. Methods raise OSError; FileNotFoundError for
    a message that is gone, also when another file has its name; `read` raises `NotMail`. Pieces must be asked for in
    order (`pop3d.stores.Maildrop.read`).
    """

    def __init__(self, files: ListedFiles, room: memoryview, scan_options: ScanOptions, *, at_once: bool) -> None:
        self._files, self._room = files, room
        self._surrogates, self._refuse, self._believes = (
            scan_options.surrogates,
            scan_options.refuse,
            scan_options.believe_names,
        )
        self._at_once = at_once and not self._surrogates
        self._ahead: dict[int, bytes] = {}  # whole messages that were read before they were asked for
        self._next = 1  # whoever asks for this one reads the mailbox in order
        self._cursor: _Cursor | None = None

    def read_now(self, number: int, offset: int) -> Content | None:
        """The piece at ``offset``, or None when it has to be waited for."""
        if offset or (self._cursor is not None and self._has_begun(number)):
            return self._under_way(number, offset).read_now()
        whole = self._ahead.pop(number, None) if self._ahead else None
        if whole is None and (whole := self._read_cached(number)) is None:
            return None
        self._next = number + 1
        return Content(whole, last=True)

    async def read(self, number: int, offset: int) -> Content:
        """The piece at ``offset``."""
        if offset == 0 and not self._has_begun(number):
            if number not in self._ahead:
                await hop(self._load, number)
            self._next = number + 1
            if (whole := self._ahead.pop(number, None)) is not None:
                return Content(whole, last=True)
        return await self._under_way(number, offset).read()

    def release(self) -> None:
        """No more of the message under way is asked for."""
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    def close(self) -> None:
        """Hold nothing any more."""
        self.release()
        self._ahead.clear()

    def _has_begun(self, number: int) -> bool:
        """Opened already, and nothing of it given."""
        return self._cursor is not None and self._cursor.is_at(number, 0)

    def _under_way(self, number: int, offset: int) -> _Cursor:
        cursor = self._cursor
        assert cursor is not None and cursor.is_at(number, offset), "read out of order"
        return cursor

    def _read_cached(self, number: int) -> bytes | None:
        """A small message that is in memory as it was listed. Whatever else it is, a thread finds out."""
        files = self._files
        size = files.sizes[number - 1]
        if not self._at_once or size >= PIECE:
            return None
        descriptor = open_cached(files.name(number), OPEN_MESSAGE, files.root)
        if descriptor is None:
            return None
        try:
            if not files.is_unchanged(number, fstat_local(descriptor)):
                return None
            octets = read_cached(descriptor, self._room, 0)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        if octets is None:
            return None
        whole = normalized(bytes(self._room[:octets]))
        return whole if len(whole) == size and whole[:2] not in BEGINNINGS else None

    # --- in a thread ---

    def _load(self, number: int) -> None:
        """Read a message that is small, and those behind it; open one that is large."""
        self.release()
        self._ahead.clear()
        in_order = number == self._next
        with OpenFolders(self._files.root) as folders:
            descriptor, size = self._files.open(number, folders)
            try:
                whole = self._small(descriptor, size)
                if whole is None:
                    self._cursor = self._begun(number, descriptor, size)
                    self._cursor.read_here()
                    return
            finally:
                if self._cursor is None:
                    os.close(descriptor)
            self._ahead[number] = whole
            if in_order:
                self._read_ahead(number, folders)

    def _read_ahead(self, first: int, folders: OpenFolders) -> None:
        for number in behind(first, self._files.sizes):
            try:
                descriptor, size = self._files.open(number, folders)
                try:
                    whole = self._small(descriptor, size)
                finally:
                    os.close(descriptor)
            except (OSError, NotMail):
                return  # told when it is asked for
            if whole is None:
                return
            self._ahead[number] = whole

    def _small(self, descriptor: int, size: int) -> bytes | None:
        """The content of an open file, when it is one piece."""
        if size > PIECE:
            return None
        data = os.read(descriptor, size + 1)
        if len(data) != size:
            return None  # being changed at this moment, or read in part
        if data[:2] in BEGINNINGS and (form := form_of(data)) is not None:
            return self._small_unpacked(descriptor, form)
        text = text_of(surrogate=self._surrogates)
        content = text.feed(data) + text.finish()
        return content if len(content) <= PIECE else None

    def _small_unpacked(self, descriptor: int, form: StoredForm) -> bytes | None:
        text, content = text_of(surrogate=self._surrogates), b""
        for piece in unpacked(descriptor, form, refuse=self._refuse):
            content += text.feed(piece)
            if len(content) > PIECE:
                return None
        content += text.finish()
        return content if len(content) <= PIECE else None

    def _begun(self, number: int, descriptor: int, size: int) -> _Cursor:
        form = form_of(os.pread(descriptor, HEAD, 0))
        if form is None:
            kind = _Converting if self._surrogates else _Cursor
            return kind(number, descriptor, size, self._room, surrogate=self._surrogates)
        # a size that is not the file's was found by unpacking it to its end: nothing keeps the first piece waiting
        was_unpacked = not self._believes and self._files.sizes[number - 1] != size
        pieces = (unpacked if was_unpacked else verified)(descriptor, form, refuse=self._refuse)
        return _Unpacking(number, descriptor, pieces, self._room, surrogate=self._surrogates)
