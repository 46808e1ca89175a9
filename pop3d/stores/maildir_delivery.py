"""Delivery into a Maildir: a message is there whole and durable, or not at all.

It is written to tmp/ under a name that never comes again, synced, linked into new/ (or cur/, with flags), and that
folder is synced too. Linking, unlike renaming, never replaces a file. The name says the size as stored (``S=``) and as
POP3 sends it (``W=``), counted while it was written. Whatever fails, nothing of the message is left in new/, and
whoever delivers tries again.

A quota is checked when the message is written and its size known, by looking at the files that are there, for names
may lie. Deliveries at the same moment may each find the last room.

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

__all__ = ["OverQuota", "Quota", "deliver"]

_STALE: Final = 36 * 3600  # seconds after which a file in tmp/ belongs to nobody (maildir(5))
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_delivered = itertools.count(1)


class OverQuota(Exception):
    """The mailbox has no room for the message; one line that says how much there is."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What a mailbox may hold; 0: no limit. ``octets``: as stored."""

    octets: int = 0
    messages: int = 0


def deliver(path: str, content: Iterable[bytes], quota: Quota | None = None, *, flags: str | None = None) -> bytes:
    """Deliver a message, in pieces of any size, into the Maildir at ``path``, which is made when it is not there.

    ``flags``: of Maildir, such as ``"RS"``: delivered into cur/ with them; None: as new mail. Returns the file's name
    below the Maildir. Raises OSError and `OverQuota`; the mailbox is then as it was.
    """
    for folder in ("tmp", "new", "cur"):
        os.makedirs(os.path.join(path, folder), mode=0o700, exist_ok=True)
    root = os.open(path, _FOLDER)
    try:
        _remove_stale(root)
        unique = _unique_name()
        beside = b"tmp/" + unique
        try:
            stored, sent = _write(root, beside, content)
            _check(root, quota or Quota(), stored)
            name = b"%b,S=%d,W=%d" % (unique, stored, sent)
            name = b"new/" + name if flags is None else b"cur/%b:2,%b" % (name, "".join(sorted(flags)).encode("ascii"))
            _publish(root, beside, name)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(beside, dir_fd=root)
        return name
    finally:
        os.close(root)


def _unique_name() -> bytes:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    host = socket.gethostname().replace("/", "\\057").replace(":", "\\072").replace(",", "\\054") or "localhost"
    return f"{seconds}.M{nanoseconds // 1000:06}P{os.getpid()}Q{next(_delivered)}.{host}".encode()


def _write(root: int, name: bytes, content: Iterable[bytes]) -> tuple[int, int]:
    """Write and sync; octets as stored, and as sent."""
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=root)
    try:
        stored, sent, text = 0, 0, CrlfNormalizer()
        for piece in content:
            left = memoryview(piece)
            while left:
                left = left[os.write(descriptor, left) :]
            stored += len(piece)
            sent += len(text.feed(piece))
        os.fsync(descriptor)
        return stored, sent + len(text.finish())
    finally:
        os.close(descriptor)


def _publish(root: int, beside: bytes, name: bytes) -> None:
    os.link(beside, name, src_dir_fd=root, dst_dir_fd=root, follow_symlinks=False)
    try:
        folder = os.open(name[:3], _FOLDER, dir_fd=root)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError:
        # who is told that it failed delivers again: it must not be there twice
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=root)
        raise


def _check(root: int, quota: Quota, octets: int) -> None:
    if not (quota.octets or quota.messages):
        return
    sizes = [size for folder in ("new", "cur") for size in _sizes(root, folder)]
    if quota.messages and len(sizes) >= quota.messages:
        raise OverQuota(f"the mailbox is full: {len(sizes)} of {quota.messages} messages")
    if quota.octets and sum(sizes) + octets > quota.octets:
        raise OverQuota(f"the mailbox is full: {sum(sizes)} of {quota.octets} octets, and this message has {octets}")


def _sizes(root: int, folder: str) -> Iterator[int]:
    descriptor = os.open(folder, _FOLDER, dir_fd=root)
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                        yield entry.stat(follow_symlinks=False).st_size
    finally:
        os.close(descriptor)


def _remove_stale(root: int) -> None:
    """Remove what deliveries that died have left in tmp/ long ago."""
    with contextlib.suppress(OSError):
        descriptor = os.open("tmp", _FOLDER, dir_fd=root)
        try:
            before = time.time() - _STALE
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < before:
                        os.unlink(entry.name, dir_fd=descriptor)
        finally:
            os.close(descriptor)
