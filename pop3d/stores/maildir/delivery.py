"""Delivery into a Maildir: a message is there whole and durable, or not at all.

It is written to tmp/ under a name that never comes again, synced, linked into new/ (or cur/, with flags), and that
folder is synced too. Linking, unlike renaming, never replaces a file. The name says the size as stored (``S=``) and as
POP3 sends it (``W=``), counted while it was written. Whatever fails, nothing of the message is left in new/, and
whoever delivers tries again.

All of it works on descriptors of the mailbox's folders, as `pop3d.stores.maildir.folders` opens them. tmp/, new/ and
cur/ must be folders of its own: a symbolic link in place of one could lead into another user's mailbox.

A quota is checked when the message is written and its size known, by looking at the files that are there, for names
may lie. Deliveries at the same moment may each find the last room. A Maildir++ quota file is told of what came.

Plain, blocking code for a process or thread of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pop3core.framing import CrlfNormalizer
from pop3d.stores.maildir.folders import make_folder, named_below, open_folder
from pop3d.stores.maildir.quota_file import add_to_quota_file
from pop3d.stores.quota import Quota
from pop3d.system.folders import open_or_make_inside

__all__ = [
    "OpenMaildir",
    "deliver",
    "file_name",
    "opened_maildir",
    "remove_stale",
    "sizes_in",
    "unique_name",
    "write_message",
]

_STALE: Final = 36 * 3600  # seconds after which a file in tmp/ belongs to nobody (maildir(5))

_delivered = itertools.count(1)


@dataclass(frozen=True, slots=True)
class OpenMaildir:
    """Descriptors of a mailbox's folders; ``root``: of itself."""

    root: int
    tmp: int
    new: int
    cur: int


@contextlib.contextmanager
def opened_maildir(path: str) -> Iterator[OpenMaildir]:
    """The mailbox at ``path``, made when it is not there. All its folders are open before any file is touched.

    Raises OSError.
    """
    with contextlib.ExitStack() as opened:

        def kept(descriptor: int) -> int:
            opened.callback(os.close, descriptor)
            return descriptor

        make_folder(path)
        root = kept(open_folder(path))
        with named_below(path):
            folders = OpenMaildir(root, *(kept(open_or_make_inside(root, name)) for name in (b"tmp", b"new", b"cur")))
        yield folders


def deliver(path: str, content: Iterable[bytes], quota: Quota | None = None, *, flags: str | None = None) -> bytes:
    """Deliver a message, in pieces of any size, into the Maildir at ``path``, which is made when it is not there.

    ``flags``: of Maildir, such as ``"RS"``: delivered into cur/ with them; None: as new mail. Returns the file's name
    below the Maildir. Raises OSError and `pop3d.stores.quota.OverQuota`; the mailbox is then as it was.
    """
    with opened_maildir(path) as folders:
        remove_stale(folders.tmp)
        unique = unique_name()
        try:
            stored, sent = _write(folders.tmp, unique, content)
            _check(folders, quota or Quota(), stored)
            name = b"%b,S=%d,W=%d" % (unique, stored, sent)
            if flags is None:
                _publish(folders.tmp, unique, folders.new, name)
                name = b"new/" + name
            else:
                name = b"%b:2,%b" % (name, "".join(sorted(flags)).encode("ascii"))
                _publish(folders.tmp, unique, folders.cur, name)
                name = b"cur/" + name
            add_to_quota_file(folders.root, stored, 1)
            return name
        finally:
            with contextlib.suppress(OSError):
                os.unlink(unique, dir_fd=folders.tmp)


def unique_name() -> bytes:
    """A file name, and unique part, that no other message has or will have (maildir(5))."""
    return file_name(f"Q{next(_delivered)}").encode()


def file_name(mark: str) -> str:
    """A name of this moment, process and host, which is unique with a ``mark`` that comes once in a process."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    host = socket.gethostname().replace("/", "\\057").replace(":", "\\072").replace(",", "\\054") or "localhost"
    return f"{seconds}.M{nanoseconds // 1000:06}P{os.getpid()}{mark}.{host.replace('*', '_')}"


def _write(tmp: int, name: bytes, content: Iterable[bytes]) -> tuple[int, int]:
    """Write and sync; octets as stored, and as sent."""
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=tmp)
    try:
        octets = write_message(descriptor, content)
        os.fsync(descriptor)
        return octets
    finally:
        os.close(descriptor)


def write_message(descriptor: int, content: Iterable[bytes]) -> tuple[int, int]:
    """Write a message; its octets as stored, and as sent. Raises OSError."""
    stored, sent, text = 0, 0, CrlfNormalizer()
    for piece in content:
        left = memoryview(piece)
        while left:
            left = left[os.write(descriptor, left) :]
        stored += len(piece)
        sent += len(text.feed(piece))
    return stored, sent + len(text.finish())


def _publish(tmp: int, beside: bytes, folder: int, name: bytes) -> None:
    os.link(beside, name, src_dir_fd=tmp, dst_dir_fd=folder, follow_symlinks=False)
    try:
        os.fsync(folder)
    except OSError:
        # who is told that it failed delivers again: it must not be there twice
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise


def _check(folders: OpenMaildir, quota: Quota, octets: int) -> None:
    if not (quota.octets or quota.messages):
        return
    sizes = [size for folder in (folders.new, folders.cur) for size in sizes_in(folder, wanted=bool(quota.octets))]
    quota.check(len(sizes), sum(sizes), octets)


def sizes_in(folder: int, *, wanted: bool = True) -> Iterator[int]:
    """Octets, as stored, of each message in a folder, a descriptor; 0, which costs less, if they are not ``wanted``.
    Raises OSError.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if entry.name[0] != "." and entry.is_file(follow_symlinks=False):
                    yield entry.stat(follow_symlinks=False).st_size if wanted else 0
            except FileNotFoundError:
                continue  # deleted meanwhile


def remove_stale(tmp: int) -> None:
    """Remove what deliveries that died have left in tmp/, a descriptor, long ago."""
    before = time.time() - _STALE
    with contextlib.suppress(OSError), os.scandir(tmp) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < before:
                os.unlink(entry.name, dir_fd=tmp)
