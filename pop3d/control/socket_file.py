"""The control socket's file in the state folder: made by a daemon, found by commands.

The first daemon with a state folder has ``control.sock``; further ones (`reuse_port`) have ``control-2.sock`` and so
on. A socket whose daemon has died refuses connections, and is replaced. A lock on the folder keeps two daemons that
start at once from taking the same name; it is held for microseconds.

Blocking code, for the start and for commands; nothing here waits for a daemon.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pop3d.system.folders import FOLDER
from pop3d.system.unix_socket import UnixListener

__all__ = ["SocketFile", "connected", "make"]

_NAMES: Final = ("control.sock", *(f"control-{number}.sock" for number in range(2, 65)))
# one for each daemon that may share a state folder: more than a machine has cores for
_PATH_OCTETS_MAX: Final = 107  # what sun_path holds (unix(7)), but for the NUL
_DESCRIPTORS: Final = "/proc/self/fd"  # of Linux: names a folder that is open in 20 octets
_LOCK_SECONDS: Final = 1.0  # for a daemon that starts at the same time
_LOCK_PAUSE: Final = 0.01
_CONNECT_SECONDS: Final = 1.0  # until a daemon accepts: one that was stopped never does
_BACKLOG: Final = 32  # connections the system holds while the event loop is busy


@dataclass(frozen=True, slots=True)
class SocketFile:
    """A socket that listens, and its file. ``others``: how many daemons that live have one beside it."""

    listener: UnixListener
    others: int
    _folder: int

    @property
    def name(self) -> str:
        """Of the file."""
        return self.listener.path.name

    def remove(self) -> None:
        """Remove the file, unless it is another daemon's by now. Who listens closes the socket."""
        self.listener.remove()
        os.close(self._folder)


def make(state: Path) -> SocketFile:
    """A control socket in a state folder, of mode 0600, that listens. Raises OSError."""
    folder = os.open(state, FOLDER)
    try:
        with _locked(folder):
            return _made(state, folder)
    except BaseException:
        os.close(folder)
        raise


def _made(state: Path, folder: int) -> SocketFile:
    others = 0
    for name in _NAMES:
        try:
            listener = UnixListener.bound(Path(_address(state, folder, name)), 0o600)
        except OSError as fault:
            if fault.errno not in (errno.EADDRINUSE, errno.ENOTSOCK):
                raise
            others += fault.errno != errno.ENOTSOCK  # what is no socket is not ours to remove
            continue
        listener.sock.listen(_BACKLOG)
        return SocketFile(listener, others, folder)
    raise OSError(errno.EADDRINUSE, f"all of its {len(_NAMES)} names are taken")


def connected(state: Path) -> list[tuple[str, socket.socket]]:
    """Connections to all daemons that live, with the names of their sockets. Raises OSError.

    PermissionError: there is one, and it is for another user.
    """
    found: list[tuple[str, socket.socket]] = []
    folder = os.open(state, FOLDER)
    try:
        for name in _NAMES:
            if not _is_socket(folder, name):
                continue
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.settimeout(_CONNECT_SECONDS)
                sock.connect(_address(state, folder, name))
                sock.settimeout(None)
                found.append((name, sock))
            except ConnectionRefusedError:
                sock.close()  # its daemon has died
            except BaseException:
                sock.close()
                raise
    except BaseException:
        for _, sock in found:
            sock.close()
        raise
    finally:
        os.close(folder)
    return found


@contextlib.contextmanager
def _locked(folder: int) -> Iterator[None]:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise BlockingIOError(errno.EWOULDBLOCK, "another process has locked it") from None
        time.sleep(_LOCK_PAUSE)
    try:
        yield
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)


def _is_socket(folder: int, name: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _address(state: Path, folder: int, name: str) -> str:
    """A path to ``name`` that the system takes: a long one goes by the folder's descriptor. Raises OSError."""
    path = os.path.join(state, name)
    if len(os.fsencode(path)) <= _PATH_OCTETS_MAX:
        return path
    if not os.path.isdir(_DESCRIPTORS):
        what = f"the path of a Unix socket has at most {_PATH_OCTETS_MAX} octets; choose a shorter `state`"
        raise OSError(errno.ENAMETOOLONG, what, path)
    return f"{_DESCRIPTORS}/{folder}/{name}"
