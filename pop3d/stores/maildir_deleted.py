"""The Maildir of deleted messages: opened for a removal, and brought home from.

*What cannot be mixed up.* Both are Maildirs, and a removal takes messages from the one to the other. Where they are the
same folder, by the configuration or by a link, the message that a removal takes away would be the one that it keeps:
`open_deleted` refuses that.

*Bringing home* links each message into its mailbox, syncs that, and then unlinks it among the deleted. A kill or a
power cut at any point leaves messages in both places, never in none, and the next run comes to its end:

- The same file, or one with the same unique part and the same octets, is in the mailbox: the message is home.
- A message gets the name that it had, and with it its unique-id, unless the unique part belongs to another message that
  is in the mailbox: then it gets a new one. No name is replaced, no unique-id of another message is taken.
- One that fails is told, and does not stop the others.

A message in both places may also be one that a session removes at this moment. So whether it is home is decided under
the mailbox's lock only; the other messages need none.

Plain, blocking code for a worker thread or a process of its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pop3d.stores.maildir_delivery import unique_name
from pop3d.stores.maildir_folders import make_folder, named_below, open_folder, open_inside, open_or_make_inside
from pop3d.stores.maildir_listing import OPEN_MESSAGE, unique_part

__all__ = ["BroughtBack", "open_deleted", "put_back"]

_PIECE: Final = 1 << 20  # octets of two files compared at a time
_COUNTER = re.compile(rb",D=[0-9]{1,2}$")  # put by a removal behind a name that was taken

_File: TypeAlias = tuple[int, int]
"""Device and inode."""


def open_deleted(path: str, mailbox: int) -> int:
    """A descriptor of cur/ in the Maildir of deleted messages at ``path``, which is made when it is not there.

    ``mailbox``: a descriptor of the Maildir that they come from. Raises OSError, also where both are the same folder.
    """
    make_folder(path)
    root = open_folder(path)
    try:
        _refuse_the_same(root, mailbox)
        deleted = open_or_make_inside(root, b"cur")
        try:
            _refuse_the_same(deleted, mailbox)
            for name in (b"tmp", b"new"):
                os.close(open_or_make_inside(root, name))
        except BaseException:
            os.close(deleted)
            raise
        return deleted
    finally:
        os.close(root)


def _refuse_the_same(deleted: int, mailbox: int) -> None:
    found = os.fstat(deleted)
    for name in (b".", b"new", b"cur"):
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(found, os.stat(name, dir_fd=mailbox, follow_symlinks=False)):
                raise OSError(errno.EINVAL, "the folder for deleted messages is the mailbox itself")


@dataclass(slots=True)
class BroughtBack:
    """What `put_back` has done. ``messages``: how many are home; ``failed``: a line for each that is not, and why."""

    messages: int = 0
    failed: list[str] = field(default_factory=list)


def put_back(maildir: str, deleted: str) -> BroughtBack:
    """Bring all messages in the Maildir ``deleted`` home: to cur/, or to new/ where they were never seen.

    Raises OSError when a folder cannot be opened or synced; no message is lost then, and the next run goes on.
    """
    with contextlib.ExitStack() as opened:

        def kept(descriptor: int) -> int:
            opened.callback(os.close, descriptor)
            return descriptor

        try:
            away = kept(open_folder(deleted))
            with named_below(deleted):
                source = kept(open_inside(away, b"cur"))
        except FileNotFoundError:
            return BroughtBack()
        make_folder(maildir)
        root = kept(open_folder(maildir))
        for folder in (away, source):
            _refuse_the_same(folder, root)
        with named_below(maildir):
            home = {name: kept(open_or_make_inside(root, name)) for name in (b"new", b"cur")}
        return _Homecoming(source, home, is_locked=_lock(root)).run()


def _lock(mailbox: int) -> bool:
    """Whether no session has it (see `pop3d.stores.maildir`); freed by closing the descriptor."""
    try:
        fcntl.flock(mailbox, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Homecoming:
    """``source``: descriptor of the deleted messages' cur/; ``home``: of new/ and cur/ of the mailbox."""

    def __init__(self, source: int, home: dict[bytes, int], *, is_locked: bool) -> None:
        self._source, self._home, self._is_locked = source, home, is_locked
        self._in_both: set[_File] = set()  # as they were found
        self._others: dict[bytes, list[tuple[int, bytes]]] = {}  # of the mailbox alone: by unique part, folder and name
        self._brought: set[_File] = set()
        self._result = BroughtBack()

    def run(self) -> BroughtBack:
        """Bring them home."""
        deleted = dict(_files(self._source))
        files, unique_parts = set(deleted.values()), set(map(unique_part, deleted))
        for folder in self._home.values():
            for name, file in _files(folder):
                if file in files:
                    self._in_both.add(file)
                elif (unique := unique_part(name)) in unique_parts:
                    self._others.setdefault(unique, []).append((folder, name))
        done: list[bytes] = []
        for name in sorted(deleted):
            with self._told(name):
                self._bring(name, deleted[name])
                done.append(name)
        for folder in self._home.values():
            os.fsync(folder)
        for name in done:
            with self._told(name):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._source)
                self._result.messages += 1
        os.fsync(self._source)
        return self._result

    @contextlib.contextmanager
    def _told(self, name: bytes) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            self._result.failed.append(f"{os.fsdecode(name)!r}: {fault.strerror}")

    def _bring(self, name: bytes, file: _File) -> None:
        """See to it that a message is in the mailbox."""
        if file in self._brought:  # by another name that it has among the deleted
            return
        if file in self._in_both:
            self._is_home()
        elif others := self._others.get(unique_part(name)):
            self._bring_beside(name, others)
        else:
            base, colon, info = name.partition(b":")
            target = _COUNTER.sub(b"", base) + colon + info
            try:
                self._link(name, target)
            except FileExistsError:  # another deleted message of that name is home now, or another program was quicker
                self._bring_beside(name, [(self._folder(target), target)])
        self._brought.add(file)

    def _bring_beside(self, name: bytes, others: list[tuple[int, bytes]]) -> None:
        """The same, of one whose unique part belongs to files in the mailbox: folder and name of each."""
        for folder, other in others:
            if self._is_equal(name, folder, other):
                self._is_home()
                return
        base, colon, info = name.partition(b":")
        fields = _COUNTER.sub(b"", base)[len(unique_part(name)) :]
        self._link(name, unique_name() + fields + colon + info)

    def _is_home(self) -> None:
        if not self._is_locked:
            raise OSError(errno.EBUSY, "it is in the mailbox too, which a session has open; try again later")

    def _folder(self, name: bytes) -> int:
        return self._home[b"cur" if b":" in name else b"new"]

    def _link(self, name: bytes, target: bytes) -> None:
        # unlike a rename, it never replaces
        os.link(name, target, src_dir_fd=self._source, dst_dir_fd=self._folder(target), follow_symlinks=False)

    def _is_equal(self, name: bytes, folder: int, other: bytes) -> bool:
        """Whether a deleted message has the same octets as a file of the mailbox; if so, that file is made durable."""
        with _opened(name, self._source) as ours, _opened(other, folder) as theirs:
            one, two = os.fstat(ours), os.fstat(theirs)
            if os.path.samestat(one, two):
                return True
            if one.st_size != two.st_size or not (stat.S_ISREG(one.st_mode) and stat.S_ISREG(two.st_mode)):
                return False
            for offset in range(0, one.st_size, _PIECE):
                if os.pread(ours, _PIECE, offset) != os.pread(theirs, _PIECE, offset):
                    return False
            os.fsync(theirs)  # perhaps restored a moment ago, by a program that does not sync
            return True


@contextlib.contextmanager
def _opened(name: bytes, folder: int) -> Iterator[int]:
    descriptor = os.open(name, OPEN_MESSAGE, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _files(folder: int) -> Iterator[tuple[bytes, _File]]:
    """Name and identity of each message's file. Raises OSError."""
    device = os.fstat(folder).st_dev
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                yield os.fsencode(entry.name), (device, entry.inode())
