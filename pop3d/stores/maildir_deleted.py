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

All of it is done under the mailbox's lock. A message in both places may else be one that a session is removing: then
both would take it away.

Plain, blocking code for a worker thread or a process of its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from pop3d.stores.maildir_content import OPEN_MESSAGE
from pop3d.stores.maildir_delivery import unique_name
from pop3d.stores.maildir_folders import make_folder, named_below, open_folder, open_inside, open_or_make_inside
from pop3d.stores.maildir_names import unique_part

__all__ = ["BroughtBack", "open_deleted", "put_back"]

_PIECE: Final = 1 << 20  # octets of two files compared at a time
_PATIENCE: Final = 10.0  # seconds to wait for a session to end: most take less, and who runs this is watching
_PAUSE: Final = 0.05
_COUNTER = re.compile(rb",D=[0-9]{1,2}$")  # put by a removal behind a name that was taken


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


def put_back(maildir: str, deleted: str, patience: float = _PATIENCE) -> BroughtBack:
    """Bring all messages in the Maildir ``deleted`` home: to cur/, or to new/ where they were never seen.

    Raises OSError when a folder cannot be opened or synced; no message is lost then, and the next run goes on.
    BlockingIOError: a session has the mailbox open for longer than ``patience``, in seconds; nothing was done.
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
        _lock(root, patience)
        for folder in (away, source):
            _refuse_the_same(folder, root)
        with named_below(maildir):
            home = {name: kept(open_or_make_inside(root, name)) for name in (b"new", b"cur")}
        return _Homecoming(source, home).run()


def _lock(mailbox: int, patience: float) -> None:
    """Take the lock that sessions take (see `pop3d.stores.maildir`); closing the descriptor frees it."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(mailbox, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise BlockingIOError(errno.EWOULDBLOCK, "a session has the mailbox open") from None
        time.sleep(_PAUSE)


class _Homecoming:
    """``source``: descriptor of the deleted messages' cur/; ``home``: of new/ and cur/ of the mailbox."""

    def __init__(self, source: int, home: dict[bytes, int]) -> None:
        self._source, self._home = source, home
        self._at_home: set[tuple[int, int]] = set()  # device and inode of deleted messages that are there already
        self._others: dict[bytes, list[tuple[int, bytes]]] = {}  # other files there: by unique part, folder and name
        self._result = BroughtBack()

    def run(self) -> BroughtBack:
        """Bring them home."""
        deleted = {name: _stat(name, self._source) for name in _names(self._source)}
        self._look_around(deleted)
        done: list[bytes] = []
        for name, found in sorted(deleted.items()):
            with self._told(name):
                self._bring(name, _identity(found))
                done.append(name)
        for folder in self._home.values():
            os.fsync(folder)
        for name in done:
            with self._told(name):
                os.unlink(name, dir_fd=self._source)
                self._result.messages += 1
        os.fsync(self._source)
        return self._result

    def _look_around(self, deleted: dict[bytes, os.stat_result]) -> None:
        """Find what of the mailbox has to do with the deleted messages."""
        files = set(map(_identity, deleted.values()))
        unique_parts = set(map(unique_part, deleted))
        linked = any(found.st_nlink > 1 for found in deleted.values())  # perhaps there, under a new name
        for folder in self._home.values():
            for name in _names(folder):
                unique = unique_part(name)
                if not linked and unique not in unique_parts:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if (file := _identity(_stat(name, folder))) in files:
                        self._at_home.add(file)
                    elif unique in unique_parts:
                        self._others.setdefault(unique, []).append((folder, name))

    @contextlib.contextmanager
    def _told(self, name: bytes) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            self._result.failed.append(f"{os.fsdecode(name)!r}: {fault.strerror}")

    def _bring(self, name: bytes, file: tuple[int, int]) -> None:
        """See to it that a message is in the mailbox."""
        if file in self._at_home:
            return
        if others := self._others.get(unique_part(name)):
            self._bring_beside(name, others)
        else:
            base, colon, info = name.partition(b":")
            target = _COUNTER.sub(b"", base) + colon + info
            try:
                self._link(name, target)
            except FileExistsError:  # another deleted message of that name is home now
                self._bring_beside(name, [(self._folder(target), target)])
        self._at_home.add(file)

    def _bring_beside(self, name: bytes, others: list[tuple[int, bytes]]) -> None:
        """The same, of one whose unique part belongs to files in the mailbox: folder and name of each."""
        if any(self._is_equal(name, folder, other) for folder, other in others):
            return
        base, colon, info = name.partition(b":")
        fields = _COUNTER.sub(b"", base)[len(unique_part(name)) :]
        self._link(name, unique_name() + fields + colon + info)

    def _folder(self, name: bytes) -> int:
        return self._home[b"cur" if b":" in name else b"new"]

    def _link(self, name: bytes, target: bytes) -> None:
        # unlike a rename, it never replaces
        os.link(name, target, src_dir_fd=self._source, dst_dir_fd=self._folder(target), follow_symlinks=False)

    def _is_equal(self, name: bytes, folder: int, other: bytes) -> bool:
        """Whether a deleted message has the same octets as a file of the mailbox; if so, that file is made durable."""
        with _opened(name, self._source) as ours, _opened(other, folder) as theirs:
            size, found = os.fstat(ours).st_size, os.fstat(theirs)
            if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                return False
            for offset in range(0, size, _PIECE):
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


def _names(folder: int) -> list[bytes]:
    """Of messages' files."""
    with os.scandir(folder) as entries:
        return [
            os.fsencode(entry.name)
            for entry in entries
            if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False)
        ]


def _stat(name: bytes, folder: int) -> os.stat_result:
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
