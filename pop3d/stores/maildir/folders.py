"""Folders of a Maildir: opened without following other people's symbolic links, made durable, and renamed in safely.

*Links on the way to a mailbox.* A daemon that runs as root reads Maildirs in users' homes. A user who makes his
``Maildir`` a link to another user's would read and delete the other's mail. So a link is followed only when nobody
could have made it to reach what is not his: it belongs to root, to the user of this process, or to the owner of the
folder that the path leads to. In a folder that everybody may write to, such as ``/tmp``, it must also belong to that
folder's owner, root or the user of this process, as Linux has it with ``fs.protected_symlinks`` (proc_sys_fs(5)). A
mailbox that an administrator has moved to another disk is thus served as before.

*Below a mailbox* no link is followed: ``new``, ``cur`` and ``tmp`` are folders of its own (`pop3d.system.folders`).

A path is walked folder by folder, on descriptors: what was judged is what is opened, whatever is exchanged meanwhile. A
path without links, which is nearly every one, costs one call to the kernel (openat2(2), Linux 5.6).

Plain, blocking code for a worker thread or a process of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final, NoReturn

from pop3d.stores.maildir.openat2 import AT_FDCWD, OPENAT2, RESOLVE_NO_SYMLINKS, open_how
from pop3d.system.folders import FOLDER, open_or_make_inside

__all__ = ["make_folder", "named_below", "open_folder", "rename_new"]

_LINKS_MAX: Final = 40  # followed on one way, as Linux does (path_resolution(7)); bounds a circle of links

_libc = ctypes.CDLL(None, use_errno=True)
_HOW: Final = open_how(FOLDER, RESOLVE_NO_SYMLINKS)
_RENAME_NOREPLACE: Final = 1
_renameat2 = getattr(_libc, "renameat2", None)  # glibc 2.28, musl 1.2.6
if _renameat2 is not None:
    _renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def open_folder(path: str | bytes) -> int:
    """A descriptor of the mailbox's folder at ``path``. Symbolic links on the way are followed when they are trusted.

    Raises OSError; PermissionError (EPERM), with the link's and the folder's owners in its text, where a link is not
    trusted.
    """
    octets = _checked(path)
    # whatever its fault is, the walk finds out: a link, an old kernel, or one that forbids the call
    descriptor: int = _libc.syscall(OPENAT2, AT_FDCWD, octets, _HOW, len(_HOW))
    return descriptor if descriptor >= 0 else _walk(octets)


@contextlib.contextmanager
def named_below(path: str) -> Iterator[None]:
    """Let an OSError about a folder that was opened below ``path`` name that too."""
    try:
        yield
    except OSError as fault:
        fault.filename = os.path.join(path, os.fsdecode(fault.filename)) if fault.filename else path
        raise


def make_folder(path: str | bytes) -> None:
    """Make the folder at ``path`` and those above it that are not there: each with mode 0700, and durable.

    Folders that are there stay as they are. A link that leads to nothing stays so: its disk may be missing. Raises
    OSError, as `open_folder` does.
    """
    missing: list[bytes] = []
    above = _checked(path).rstrip(b"/") or b"/"
    while True:
        try:
            folder = open_folder(above or b".")
            break
        except FileNotFoundError:
            if not above:
                raise
            above, slash, name = above.rpartition(b"/")
            above = above.rstrip(b"/") or slash
            missing.append(name)
    try:
        while missing:
            below = open_or_make_inside(folder, missing.pop())
            os.close(folder)
            folder = below
    finally:
        os.close(folder)


def rename_new(source: bytes, target: bytes, *, source_fd: int, target_fd: int) -> None:
    """Rename a file in one step, and never replace another. Names are in the folders ``source_fd`` and ``target_fd``.

    Raises FileExistsError when ``target`` is there, also when it is the same file as ``source``; other OSError. Where
    the file system cannot do that, it is linked and then unlinked: a kill in between leaves both names.
    """
    source, target = _checked(source), _checked(target)
    if _renameat2 is not None:
        if _renameat2(source_fd, source, target_fd, target, _RENAME_NOREPLACE) == 0:
            return
        if (number := ctypes.get_errno()) not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(number, os.strerror(number), os.fsdecode(source), None, os.fsdecode(target))
    os.link(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)
    try:
        os.unlink(source, dir_fd=source_fd)
    except OSError:
        # as if nothing had been done; where another program has taken the file away meanwhile, it has not got two
        with contextlib.suppress(OSError):
            os.unlink(target, dir_fd=target_fd)
        raise


def _checked(path: str | bytes) -> bytes:
    octets = os.fsencode(path)
    if not octets:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "")
    if b"\0" in octets:  # C would see its beginning only
        raise ValueError("a path with a NUL in it")
    return octets


def _walk(path: bytes) -> int:
    """A descriptor of the folder at ``path``: each name is opened in the one before it, never what is behind a link."""
    links: list[tuple[bytes, int]] = []  # name and owner of those on the way
    left = path.split(b"/")[::-1]
    here = _start(path)
    try:
        while left:
            name = left.pop()
            if name in (b"", b"."):
                continue
            # O_DIRECTORY lets the kernel mount what is mounted on demand; a link is none
            try:
                below = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            except NotADirectoryError:
                target, owner = _link(here, name)
                links.append((name, owner))
                if len(links) > _LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path)) from None
                left += target.split(b"/")[::-1]
                if not target.startswith(b"/"):
                    continue
                below = _start(target)
            os.close(here)
            here = below
        owner_found = os.fstat(here).st_uid
        for name, owner in links:
            if owner not in (0, os.geteuid(), owner_found):
                _refuse(path, name, owner, f"a folder of user number {owner_found}")
        return os.open(b".", FOLDER, dir_fd=here)
    except OSError as fault:
        fault.filename = os.fsdecode(path)  # not the part that failed: whoever is told knows the whole
        raise
    finally:
        os.close(here)


def _start(path: bytes) -> int:
    return os.open(b"/" if path.startswith(b"/") else b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _link(folder: int, name: bytes) -> tuple[bytes, int]:
    """Where a symbolic link leads, and its owner, of one and the same link. NotADirectoryError where it is none."""
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        link, parent = os.fstat(descriptor), os.fstat(folder)
        if not stat.S_ISLNK(link.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if parent.st_mode & stat.S_IWOTH and link.st_uid not in (0, os.geteuid(), parent.st_uid):
            _refuse(name, name, link.st_uid, "wherever he likes, from a folder that everybody may write to")
        return os.readlink(b"", dir_fd=descriptor), link.st_uid
    finally:
        os.close(descriptor)


def _refuse(path: bytes, name: bytes, owner: int, where: str) -> NoReturn:
    raise PermissionError(
        errno.EPERM,
        f"the symbolic link {os.fsdecode(name)!r} of user number {owner} leads to somebody else's folder, {where}; "
        "chown -h root makes it trusted",
        os.fsdecode(path),
    )
