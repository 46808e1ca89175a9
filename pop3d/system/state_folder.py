"""The state folder: what the daemon remembers outside the mailboxes. It has two parts, both of mode 0700.

``cache/`` holds what can be rebuilt, and may be removed at any time. ``keep/`` is durable, and belongs in the backup.
Version 0.1 had neither: its files lay in the state folder itself, and `prepare` moves them.

A daemon that is started as root works here before it becomes `user`, to whom the folder belongs and who may have put
links in it, or on the way to it. So root follows no links but its own (`pop3d.system.ownership.open_as_root`) and none
below the folder, and works by descriptor.

Blocking code, for the start or a worker thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pop3d.system.folders import FOLDER, exchange_inside, open_or_make_inside
from pop3d.system.ownership import open_as_root

__all__ = ["CACHE", "KEEP", "make_folders", "opened_part", "prepare", "sync_folder", "write_durably"]

CACHE: Final = "cache"
KEEP: Final = "keep"


def prepare(state: Path, owner: tuple[int, int] | None = None) -> None:
    """Make the state folder and its parts where they are missing, and move files of version 0.1 to where they belong.

    ``owner``: numbers of the user and group that all of it belongs to from now on, for a process of root. Several
    processes may do this at once. Raises OSError.
    """
    with _opened(state) as root, _part(root, CACHE) as cache, _part(root, KEEP) as keep:
        if owner is not None:
            for folder in (root, cache, keep):
                os.fchown(folder, *owner)
        _move_listings(root, cache)
        _move_secret(root, keep)
        if owner is not None:
            _own_secret(keep, owner)


@contextlib.contextmanager
def opened_part(state: Path, name: str) -> Iterator[int]:
    """A descriptor of `CACHE` or `KEEP` of a state folder; both are made where they are missing. Raises OSError."""
    with _opened(state) as root, _part(root, name) as part:
        yield part


@contextlib.contextmanager
def _opened(state: Path) -> Iterator[int]:
    if os.geteuid() == 0:
        folder = open_as_root(state, make=True)
    else:
        make_folders(state)
        folder = os.open(state, FOLDER)
    try:
        yield folder
    finally:
        os.close(folder)


@contextlib.contextmanager
def _part(root: int, name: str) -> Iterator[int]:
    part = open_or_make_inside(root, name)
    try:
        yield part
    finally:
        os.close(part)


def _move_listings(root: int, cache: int) -> None:
    try:
        os.rename("listings", "listings", src_dir_fd=root, dst_dir_fd=cache)
    except FileNotFoundError:
        pass  # most starts; or another process has moved them
    except OSError as fault:
        if fault.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # there are newer ones: those of version 0.1 are not needed


def _move_secret(root: int, keep: int) -> None:
    """By a link, which never replaces: of several processes one makes it, and a secret that is in use stays."""
    try:
        os.link("secret", "secret", src_dir_fd=root, dst_dir_fd=keep, follow_symlinks=False)
    except FileNotFoundError:
        return
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):  # the other process removes it
            if not os.path.samestat(os.stat("secret", dir_fd=root), os.stat("secret", dir_fd=keep)):
                return
    os.fsync(keep)
    with contextlib.suppress(FileNotFoundError):
        os.unlink("secret", dir_fd=root)
    os.fsync(root)


def _own_secret(keep: int, owner: tuple[int, int]) -> None:
    """Version 0.1, started as root, left it to root."""
    try:
        descriptor = os.open("secret", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=keep)
    except FileNotFoundError:
        return
    try:
        found = os.fstat(descriptor)
        # a second name may be that of another file of root's, which nobody shall be given
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid != owner[0]:
            os.fchown(descriptor, *owner)
    finally:
        os.close(descriptor)


def make_folders(path: Path) -> None:
    """Make a folder, and those above it, with mode 0700 and durably, where they are missing. Raises OSError.

    Links on the way are followed, whoever made them: root works by `pop3d.system.ownership.open_as_root`.
    """
    if path.is_dir():
        return
    make_folders(path.parent)
    above = os.open(path.parent, FOLDER)
    try:
        os.close(open_or_make_inside(above, path.name))
    finally:
        os.close(above)


def write_durably(path: Path, octets: bytes) -> None:
    """Write a file of mode 0600 completely or not at all, replacing the old one; it survives a power cut.

    Raises OSError; the old file is then as it was. Two writers at once do not disturb each other: the later one wins.
    """
    folder = os.open(path.parent, FOLDER)
    try:
        exchange_inside(folder, path.name, octets)
    finally:
        os.close(folder)


def sync_folder(path: Path) -> None:
    """Make what was made, renamed or removed in a folder survive a power cut. Raises OSError."""
    descriptor = os.open(path, FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
