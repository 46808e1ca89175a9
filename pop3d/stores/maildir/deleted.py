"""The Maildir of deleted messages: a removal opens it, and `put_back` moves its messages back into the mailbox.

*Never the mailbox itself.* A removal moves messages from one Maildir to the other. When both are the same folder, by
the configuration or by a link, it would unlink the very message that it keeps: `open_deleted` refuses that.

*Moving back* links each message into the mailbox, syncs that, and then unlinks it among the deleted ones. A kill or a
power cut at any point leaves messages in both places, never in neither, and the next run finishes the work:

- When the mailbox has the same file, or one with the same unique part and the same octets, only the deleted one is
  unlinked.
- A message gets the name that it had, and with it its unique-id. When another message in the mailbox has the same
  unique part, it gets a new name. No file is replaced, and no message takes the unique-id of another.
- A message that fails is reported, and does not stop the others.

All of it is done under the mailbox's lock: a session that is removing the same message would unlink it in the mailbox,
while it is unlinked here.

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
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pop3d.stores.maildir.content import OPEN_MESSAGE
from pop3d.stores.maildir.delivery import unique_name
from pop3d.stores.maildir.folders import make_folder, named_below, open_folder
from pop3d.stores.maildir.names import unique_part
from pop3d.stores.maildir.quota_file import add_to_quota_file, counted_octets
from pop3d.system.folders import open_inside, open_or_make_inside

__all__ = ["DeletedMessage", "PutBackResult", "beginnings", "deleted_messages", "open_deleted", "put_back"]

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


@dataclass(frozen=True, slots=True)
class DeletedMessage:
    """``name``: of its file; ``unique``: the unique part of the name that it had; ``at``: when it was deleted, seconds
    since 1970, by which `retention_days` goes too; ``octets``: as stored.
    """

    name: bytes
    unique: bytes
    at: float
    octets: int


def deleted_messages(deleted: str) -> list[DeletedMessage]:
    """The messages in the Maildir ``deleted``, the oldest deletion first. Raises OSError."""
    found: list[DeletedMessage] = []
    with contextlib.ExitStack() as opened:
        try:
            source = _opened_cur(deleted, opened)
        except FileNotFoundError:
            return []
        for name in _names(source):
            with contextlib.suppress(FileNotFoundError):
                status = _stat(name, source)
                found.append(DeletedMessage(name, unique_part(_original(name)), status.st_ctime, status.st_size))
    return sorted(found, key=lambda one: (one.at, one.name))


def beginnings(deleted: str, names: Iterable[bytes], octets: int) -> Iterator[bytes]:
    """The first ``octets`` of messages in the Maildir ``deleted``; empty where one cannot be read. Raises OSError."""
    with contextlib.ExitStack() as opened:
        source = _opened_cur(deleted, opened)
        for name in names:
            try:
                with _opened(name, source) as descriptor:
                    yield os.pread(descriptor, octets, 0)
            except OSError:
                yield b""


def _opened_cur(deleted: str, opened: contextlib.ExitStack) -> int:
    away = open_folder(deleted)
    opened.callback(os.close, away)
    with named_below(deleted):
        source = open_inside(away, b"cur")
    opened.callback(os.close, source)
    return source


@dataclass(slots=True)
class PutBackResult:
    """What `put_back` did. ``messages``: how many are in the mailbox again; ``failed``: a line for each other one."""

    messages: int = 0
    failed: list[str] = field(default_factory=list)


def put_back(
    maildir: str, deleted: str, patience: float = _PATIENCE, chosen: Collection[bytes] | None = None
) -> PutBackResult:
    """Move all messages in the Maildir ``deleted`` to cur/ of the mailbox, or to new/ if they were never seen.

    ``chosen``: names of files there; only these, as far as they are there still.

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
            return PutBackResult()
        make_folder(maildir)
        root = kept(open_folder(maildir))
        _lock(root, patience)
        for folder in (away, source):
            _refuse_the_same(folder, root)
        with named_below(maildir):
            folders = {name: kept(open_or_make_inside(root, name)) for name in (b"new", b"cur")}
        putting = _PutBack(source, folders, chosen)
        try:
            return putting.run()
        finally:
            add_to_quota_file(root, putting.octets, putting.messages)


def _lock(mailbox: int, patience: float) -> None:
    """Take the lock that sessions take (see `pop3d.stores.maildir.store`); closing the descriptor frees it."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(mailbox, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise BlockingIOError(errno.EWOULDBLOCK, "a session has the mailbox open") from None
        time.sleep(_PAUSE)


class _PutBack:
    """``source``: descriptor of the deleted messages' cur/; ``folders``: of new/ and cur/ of the mailbox; ``chosen``:
    see `put_back`.
    """

    def __init__(self, source: int, folders: dict[bytes, int], chosen: Collection[bytes] | None) -> None:
        self._source, self._folders, self._chosen = source, folders, chosen
        self._in_mailbox: set[tuple[int, int]] = set()  # device and inode of deleted messages
        self._others: dict[bytes, list[tuple[int, bytes]]] = {}  # other files: folder and name, by unique part
        self._result = PutBackResult()
        self.octets = self.messages = 0
        """Linked into the mailbox, as a quota file counts them."""

    def run(self) -> PutBackResult:
        """Move all that can be moved."""
        names = _names(self._source)
        if self._chosen is not None:
            names = [name for name in names if name in self._chosen]
        deleted = {name: _stat(name, self._source) for name in names}
        self._look_into_mailbox(deleted)
        done: list[bytes] = []
        for name in sorted(deleted, key=lambda name: (_original(name), len(name))):
            with self._told(name):
                self._link_back(name, _identity(deleted[name]))
                done.append(name)
        for folder in self._folders.values():
            os.fsync(folder)
        for name in done:
            with self._told(name):
                os.unlink(name, dir_fd=self._source)
                self._result.messages += 1
        os.fsync(self._source)
        return self._result

    def _look_into_mailbox(self, deleted: dict[bytes, os.stat_result]) -> None:
        """Find the deleted messages, and others with their unique parts, in the mailbox."""
        files = set(map(_identity, deleted.values()))
        unique_parts = set(map(unique_part, deleted))
        linked = any(found.st_nlink > 1 for found in deleted.values())  # perhaps in the mailbox, under a new name
        for folder in self._folders.values():
            for name in _names(folder):
                unique = unique_part(name)
                if not linked and unique not in unique_parts:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if (file := _identity(_stat(name, folder))) in files:
                        self._in_mailbox.add(file)
                    elif unique in unique_parts:
                        self._others.setdefault(unique, []).append((folder, name))

    @contextlib.contextmanager
    def _told(self, name: bytes) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            self._result.failed.append(f"{os.fsdecode(name)!r}: {fault.strerror}")

    def _link_back(self, name: bytes, file: tuple[int, int]) -> None:
        """Put a message into the mailbox, unless it is there."""
        if file in self._in_mailbox:
            return
        if others := self._others.get(unique_part(name)):
            self._link_beside(name, others)
        else:
            target = _original(name)
            try:
                self._link(name, target)
            except FileExistsError:  # another deleted message had the same name
                self._link_beside(name, [(self._folder(target), target)])
        self._in_mailbox.add(file)

    def _link_beside(self, name: bytes, others: list[tuple[int, bytes]]) -> None:
        """The same, of one whose unique part belongs to files in the mailbox: folder and name of each."""
        if any(self._is_equal(name, folder, other) for folder, other in others):
            return
        self._link(name, unique_name() + _original(name)[len(unique_part(name)) :])

    def _folder(self, name: bytes) -> int:
        return self._folders[b"cur" if b":" in name else b"new"]

    def _link(self, name: bytes, target: bytes) -> None:
        # unlike a rename, it never replaces
        os.link(name, target, src_dir_fd=self._source, dst_dir_fd=self._folder(target), follow_symlinks=False)
        self.octets += counted_octets(target, _stat(name, self._source).st_size)
        self.messages += 1

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


def _original(name: bytes) -> bytes:
    """The name that a message had before it was deleted."""
    base, colon, info = name.partition(b":")
    return _COUNTER.sub(b"", base) + colon + info


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
