"""Whose files root obeys.

A command that root runs obeys a configuration, and each file that it names, only when nobody else can say what is in
it: file, links and all folders above it belong to somebody who is trusted, and nobody else may write to them. A folder
with the sticky bit, such as ``/tmp``, may be written to by all: there nobody removes or renames what is another's.

The walk begins at ``/``, and each step is trusted before the next one is taken: what was looked at cannot be exchanged
by a stranger afterwards. What belongs to the configured `user` he can exchange at any time, so root reads such files,
but writes and gives away nothing by their paths: `open_as_root` is for that. Where the configuration itself is his,
root does with his rights (`acting`) all that could otherwise be more than they are.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pop3d.system.folders import open_or_make_inside

__all__ = ["Owners", "acting", "callers", "distrusted", "open_as_root"]

_LINKS_MAX: Final = 40  # in one path, as in Linux
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Owners:
    """Numbers of the users who are trusted with a file, and of the groups that may write to it."""

    users: frozenset[int]
    groups: frozenset[int] = frozenset()

    def and_(self, user: int, group: int) -> Owners:
        """These, and one more of each."""
        return Owners(self.users | {user}, self.groups | {group})


def callers(*, named: bool, environment: Mapping[str, str]) -> Owners:
    """Root, whoever runs this process and, when a file is ``named`` on the command line, whoever called sudo.

    Only then: a rule of sudo that allows one command line must not obey a file that is merely found.
    """
    if os.geteuid() != 0:
        return Owners(frozenset({0, os.geteuid()}), frozenset({os.getegid()}))
    caller = environment.get("SUDO_UID", "") if named else ""
    return Owners(frozenset({0, int(caller)} if caller.isascii() and caller.isdecimal() else {0}))


@contextlib.contextmanager
def acting(numbers: tuple[int, int] | None) -> Iterator[None]:
    """A process of root has the rights of that user and group, and no others, for a while; None: its own.

    For one thread, at the start: the rights are the whole process's. Raises OSError.
    """
    if numbers is None or os.geteuid() != 0:
        yield
        return
    user, group = numbers
    others, own = os.getgroups(), os.getegid()
    try:
        os.setgroups([])
        os.setegid(group)
        os.seteuid(user)
        yield
    finally:
        os.seteuid(0)
        os.setegid(own)
        os.setgroups(others)


def distrusted(path: Path, owners: Owners) -> str | None:
    """One line: whose file it is, or who could replace it, and what to do. None when it is the owners' alone.

    A file that is not there is one when they alone could make it. What cannot be looked at is left to who opens it.
    """
    try:
        return _walked(str(path.absolute()), owners)
    except OSError:
        return None


def _walked(path: str, owners: Owners) -> str | None:
    at, left, links = "/", _parts(path), 0
    found = os.lstat(at)
    while True:
        if stat.S_ISLNK(found.st_mode):
            if found.st_uid not in owners.users:
                return _of_a_stranger(path, at, found)
            if (links := links + 1) > _LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(at)
            left = _parts(target) + left
            at = "/" if target.startswith("/") else os.path.dirname(at)
        elif why := _stranger(path, at, found, owners):
            return why
        elif not left:
            return None
        else:
            name = left.pop(0)
            above, sticky = at, found.st_mode & stat.S_ISVTX and found.st_mode & (stat.S_IWOTH | stat.S_IWGRP)
            at = os.path.dirname(at) if name == ".." else os.path.join(at, name)
            try:
                found = os.lstat(at)
                continue
            except FileNotFoundError:
                if sticky:
                    return f"{path}: others could make it in {above}; take a folder that is yours alone"
                return None
        found = os.lstat(at)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _stranger(path: str, at: str, found: os.stat_result, owners: Owners) -> str | None:
    if found.st_uid not in owners.users:
        return _of_a_stranger(path, at, found)
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return None
    mode, what = stat.S_IMODE(found.st_mode), _called(path, at)
    if mode & stat.S_IWOTH:
        return f"{path}: everybody can write to {what} (mode {mode:04o}); chmod o-w {shlex.quote(at)}"
    if mode & stat.S_IWGRP and found.st_gid not in owners.groups:
        return (
            f"{path}: group {_group(found.st_gid)} can write to {what} (mode {mode:04o}); chmod g-w {shlex.quote(at)}"
        )
    return None


def _of_a_stranger(path: str, at: str, found: os.stat_result) -> str:
    option = "-h " if stat.S_ISLNK(found.st_mode) else ""
    me = _user(os.getuid())  # also while it is `acting`
    return (
        f"{path}: {_called(path, at)} belongs to {_user(found.st_uid)}, whom {me} does not obey; "
        f"look into it, then chown {option}{me} {shlex.quote(at)}"
    )


def _called(path: str, at: str) -> str:
    return "it" if at == path else at


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def open_as_root(path: Path, *, make: bool = False) -> int:
    """A descriptor of a folder that root is going to write to, or to give away. Raises OSError.

    Links are followed that belong to root: any other could lead to what its maker may not touch. ``make``: folders that
    are missing are made, with mode 0700 and durably.
    """
    left, links = _parts(str(path.absolute())), 0
    folder = os.open("/", _FOLDER)
    try:
        while left:
            name = left.pop(0)
            try:
                inner = os.open(name, _FOLDER, dir_fd=folder)
            except FileNotFoundError:
                if not make:
                    raise
                inner = open_or_make_inside(folder, name)
            except OSError as fault:
                if fault.errno not in (errno.ELOOP, errno.ENOTDIR) or links == _LINKS_MAX:
                    raise
                links += 1
                target = _target(name, folder, fault)
                left = _parts(target) + left
                if not target.startswith("/"):
                    continue
                inner = os.open("/", _FOLDER)
            os.close(folder)
            folder = inner
    except OSError as fault:
        os.close(folder)
        raise OSError(fault.errno, fault.strerror, str(path)) from None
    return folder


def _target(name: str, folder: int, fault: OSError) -> str:
    """Where a link leads to that may be followed. Raises OSError; ``fault`` when it is no link."""
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        raise fault
    if found.st_uid != 0:
        why = f"the symbolic link {name} in it belongs to {_user(found.st_uid)}, and root follows root's links only"
        raise OSError(errno.ELOOP, why)
    return os.readlink(name, dir_fd=folder)
