"""The locks of an mbox that other mail programs know: a file beside it (``.lock``), and fcntl's.

A lock file is removed only when it is ours: the one that we have made, or one that a process of pop3cli has left which
is no more. Whoever removes the latter has it locked himself, so that of two only one does, and none takes away the lock
that the other has made since.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pop3cli.errors import InUse
from pop3cli.files import write_all

__all__ = ["locked", "same_file"]

LOCK_SECONDS: Final = 30.0
"""Patience with another program that has the mbox."""

_LOOK_SECONDS: Final = 0.1


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """The mbox at ``path``, made if it is not there, open for reading and writing, and locked.

    Blocks; raises `InUse` after `LOCK_SECONDS`, and OSError. ``path`` must not be a link.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    with _dot_lock(path, deadline):
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                _lock(fd, path, deadline)
                if same_file(fd, path):  # else somebody has put another file there before we had the lock
                    yield fd
                    return
            finally:
                os.close(fd)
            _wait(path, deadline)


def same_file(fd: int, path: Path) -> bool:
    """Whether ``path`` still names the file that is open. Raises OSError."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), named)


def _lock(fd: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError):
            _wait(path, deadline)


@contextlib.contextmanager
def _dot_lock(mbox: Path, deadline: float) -> Iterator[None]:
    path = mbox.with_name(f"{mbox.name}.lock")
    while True:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            break
        except FileExistsError:
            if not _removed(path):
                _wait(mbox, deadline)
        except PermissionError:  # a spool where only fcntl is for everyone
            yield
            return
    try:
        write_all(fd, f"{os.getpid()} pop3cli {socket.gethostname()}\n".encode())
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            if same_file(fd, path):  # another program may have thought it stale, and made its own
                os.unlink(path)
        os.close(fd)


def _wait(mbox: Path, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise InUse(f"mbox {mbox}", f"another program has had it locked for {LOCK_SECONDS:.0f} s")
    time.sleep(_LOOK_SECONDS)


def _removed(path: Path) -> bool:
    """Remove a lock file that a process of ours has left; whether there is none now."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False  # a link, or not to be read: none of ours
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _left_behind(os.read(fd, 300)) or not same_file(fd, path):
            return False
        os.unlink(path)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def _left_behind(content: bytes) -> bool:
    """Whether a lock is that of a process of pop3cli on this machine that is no more."""
    words = content.decode("ascii", "replace").split()
    if len(words) != 3 or words[1] != "pop3cli" or words[2] != socket.gethostname() or not words[0].isdigit():
        return False
    try:
        os.kill(int(words[0]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False
