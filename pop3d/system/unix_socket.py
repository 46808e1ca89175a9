"""A listening Unix socket: made with its mode, put in place of one that nobody listens at, and removed again."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

__all__ = ["UnixListener", "is_stale", "remove_stale"]

_CONNECT_TIMEOUT: Final = 1.0  # seconds: with a full queue it does not connect, and lives


@dataclass(frozen=True, slots=True)
class UnixListener:
    """``sock`` is bound, and does not listen yet."""

    sock: socket.socket
    path: Path
    _file: tuple[int, int, int]

    @classmethod
    def bound(cls, path: Path, mode: int, owner: tuple[int, int] = (-1, -1)) -> Self:
        """``owner``: user and group of the file, -1: who we are. Raises OSError.

        A socket that nobody listens at is replaced. To be called while no other thread makes files: the mode of what
        is made is the whole process's.
        """
        remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o777 & ~mode)  # so that it has its mode from its first moment, and whatever its folder is
        try:
            sock.bind(str(path))
            os.umask(before)
            try:
                os.chown(path, *owner, follow_symlinks=False)
            except OSError:
                path.unlink()
                raise
            made = cls(sock, path, _identity(path))
        except OSError:
            sock.close()
            raise
        finally:
            os.umask(before)
        return made

    def remove(self) -> None:
        """Remove the file, if it is ours still and may be removed; a file that stays is replaced at the next start."""
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._file:
                self.path.unlink()


def _identity(path: Path) -> tuple[int, int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino, found.st_ctime_ns  # a number is given again to another file at once


def remove_stale(path: Path) -> None:
    """Remove a socket at which nobody listens. Raises OSError: of a living one, and of what is no socket."""
    if not is_stale(path):
        return
    path.unlink()


def is_stale(path: Path) -> bool:
    """Whether there is a socket at which nobody listens; False where there is nothing. Raises OSError, as above."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_CONNECT_TIMEOUT)
        try:
            sock.connect(str(path))
        except ConnectionRefusedError:
            return True
        except (TimeoutError, BlockingIOError):  # Linux says the latter of a full queue, at once
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(path))
