"""What every writer of `pop3cli.sync` needs of a file system: all octets written, folders and names on the disk.

All functions block, and raise OSError.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["make_folder", "sync_folder", "write_all"]


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``; one call to the system may take a part of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, durably, for their owner alone."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True, mode=0o700)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
