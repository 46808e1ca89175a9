"""A file that appears whole or not at all.

Content goes to a new file beside the one asked for, reaches the disk, and only then takes the name, which reaches the
disk too. Whatever happens before, what stood under that name is untouched and nothing half is left behind. What is no
regular file (``/dev/null``, a pipe) cannot be replaced like that, and is written to as it is.

Whoever writes to a file in other ways, as `pop3cli.sync` does, finds here what makes that last: all octets written,
folders and names on the disk.

Accounts, tokens, the shell's history and sync's state are in folders of the user's (`config_folder`, `state_folder`).
Root keeps nothing in a folder of somebody else, who could put links in it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pop3cli.errors import OutputFailed, SettingFault

if TYPE_CHECKING:
    from platformdirs.unix import Unix

__all__ = [
    "config_folder",
    "exchanged",
    "keep_out_of_others",
    "make_folder",
    "state_folder",
    "sync_folder",
    "whole_file",
    "write_all",
]


@contextlib.contextmanager
def whole_file(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write; it is at ``path`` when the block has ended without an exception.

    ``mode``: of a new file, less what the umask takes. Raises `OutputFailed`, for any OSError within the block as well.
    """
    try:
        target = Path(os.path.realpath(path))  # a link stays one, and what it leads to is replaced
        if _is_special(target):
            with target.open("wb") as stream:
                yield stream
            return
        with exchanged(target, mode=mode) as stream:
            yield stream
    except OSError as fault:
        raise OutputFailed(str(path), fault) from fault


@contextlib.contextmanager
def exchanged(path: Path, *, mode: int) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of ``path``, durably, when the block has ended without an exception.

    A link there is replaced, and not followed. Raises OSError.
    """
    beside = path.with_name(f".pop3cli-{secrets.token_hex(8)}.part")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    with contextlib.suppress(PermissionError):  # a folder that we may write to and not read
        sync_folder(path.parent)


def config_folder() -> Path:
    """``$XDG_CONFIG_HOME/pop3cli``, in ``~/.config`` unless that is an absolute path; it may be missing."""
    return _user_folders().user_config_path


def state_folder() -> Path:
    """``$XDG_STATE_HOME/pop3cli``, in ``~/.local/state`` unless that is an absolute path; it may be missing."""
    return _user_folders().user_state_path


def _user_folders() -> Unix:
    from platformdirs.unix import Unix  # seldom needed, and the same folders on every POSIX system, as documented

    return Unix("pop3cli")


def keep_out_of_others(folder: Path) -> None:
    """Raises `SettingFault` where root would keep accounts, tokens or state in another user's folder.

    As happens when ``HOME`` or an ``XDG_`` variable came through sudo. The folder need not be there yet.
    """
    if os.geteuid() != 0:
        return
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if owner := there.stat().st_uid:
        raise SettingFault(
            str(folder),
            f"{there} belongs to user {owner}, and root keeps nothing there",
            "run this as that user, or unset HOME and the XDG_ variables (sudo -H)",
        )


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, durably, for their owner alone. Raises OSError."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True, mode=0o700)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``; one call to the system may take a part of it. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode)
