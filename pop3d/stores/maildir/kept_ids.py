"""Unique-ids that are kept for good, in ``keep/`` of the state folder: told to a client, or brought by an import.

One file for each mailbox, ``ids/<SHA-256 of its path>``, of lines: a checksum, the time in seconds of the Unix epoch
(hexadecimal, both), the unique-id, and the unique part of the message's file name. What is added is appended, so that
one more message costs one more line, however many there are; of two lines for one name the later one holds. A line that
is torn or damaged is ignored, and the log says so.

Entries of messages that are gone stay until they are many (`KeptIds.prune`), and for a week at least: an import adds an
id before it delivers the message, and what was deleted may come back.

Blocking code, for a worker thread. Lines, and not one document: no step holds the interpreter for long.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import logging
import os
import stat
import time
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pop3d.system.folders import FOLDER, written_inside
from pop3d.system.state_folder import make_folders, sync_folder

__all__ = ["KeptIds", "can_be_told"]

log = logging.getLogger("pop3d.kept_ids")

_HEADER: Final = b"pop3d ids 1 "  # and the mailbox's path, for whoever reads the file
_IDS_MAX: Final = 1_000_000  # lines of a file: some 300 octets of memory each
_OCTETS_MAX: Final = 256 * 1024 * 1024  # of a file: the longest names that many lines have
_LINE_OCTETS_MAX: Final = 2048  # a name has at most 255, each perhaps escaped, and an id 255
_UID_OCTETS_MAX: Final = 255  # so that the line of UIDL fits into 512 (RFC 1939 §3)
_UID_OCTETS: Final = bytes(range(0x21, 0x7F))
_LINES_AT_ONCE: Final = 1024  # written: some 100 KiB
_YOUNG: Final = 7 * 86_400  # seconds that an entry stays without a message
_GONE_MAX: Final = 1_000  # entries without a message that are not worth a rewrite

_APPEND: Final = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def can_be_told(uid: bytes) -> bool:
    """Whether a unique-id can be told to a client: 1 to 255 octets of 0x21 to 0x7E.

    RFC 1939 §7 allows 70, and no id of ours is longer. But an id that another server told for years, such as Dovecot's
    ``%f``, is worth more to the client that knows it than one that is short and new.
    """
    return 0 < len(uid) <= _UID_OCTETS_MAX and not uid.translate(None, _UID_OCTETS)


class KeptIds:
    """The unique-ids kept in ``keep``, a folder that is made when something is added."""

    def __init__(self, keep: Path) -> None:
        self._folder = keep / "ids"

    def load(self, path: str) -> dict[bytes, bytes]:
        """Unique-ids of the mailbox at ``path``, by the unique part of the file name; oldest first.

        Raises OSError when there may be some that cannot be read: without them messages would get other ids.
        """
        try:
            descriptor = os.open(self._file(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        try:
            return {name: uid for _, uid, name in self._entries(descriptor, path)}
        finally:
            os.close(descriptor)

    def add(self, path: str, ids: Mapping[bytes, bytes]) -> None:
        """Keep unique-ids of the mailbox at ``path``, by the unique part of the file name.

        They survive a power cut when this returns. Raises OSError; none of them is kept then. ValueError: one that
        cannot be told.
        """
        for uid in ids.values():
            if not can_be_told(uid):
                raise ValueError(f"{uid!r} is no unique-id")
        if not ids:
            return
        now = int(time.time())
        with self._locked(path, make=True) as descriptor:
            size = os.fstat(descriptor).st_size
            try:
                _write(descriptor, _beginning(descriptor, size, path))
                _write_lines(descriptor, ((now, uid, name) for name, uid in ids.items()))
                if os.fstat(descriptor).st_size > _OCTETS_MAX:
                    raise OSError(errno.EFBIG, f"it would have more than {_OCTETS_MAX} octets")
                os.fsync(descriptor)
                if not size:
                    sync_folder(self._folder)
            except OSError as fault:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, size)
                fault.filename = str(self._file(path))
                raise

    def prune(self, path: str, there: Container[bytes], messages: int) -> None:
        """Drop entries of messages that are gone, if they are many. Raises OSError; all are then as they were.

        ``there``: the unique parts of those that are not gone, which are ``messages``. What is younger than a week
        stays. The caller holds the mailbox's lock.
        """
        if self._size(path) < _GONE_MAX:  # octets: no file that is worth it is as short
            return
        with self._locked(path) as descriptor:
            entries = {name: (made, uid, name) for made, uid, name in self._entries(descriptor, path)}
            if len(entries) - messages <= max(_GONE_MAX, messages):
                return
            young = time.time() - _YOUNG
            left = [entry for entry in entries.values() if entry[0] > young or entry[2] in there]
            if len(entries) - len(left) <= _GONE_MAX:
                return
            folder = os.open(self._folder, FOLDER)
            try:

                def fill(new: int) -> None:
                    _write_lines(new, left)

                name = self._file(path).name
                with written_inside(folder, name, _header(path), finish=fill) as new:
                    os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            finally:
                os.close(folder)

    def forget(self, path: str) -> bool:
        """Remove all unique-ids kept of a mailbox. Whether there were any. Raises OSError."""
        try:
            self._file(path).unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        sync_folder(self._folder)
        return True

    def _file(self, path: str) -> Path:
        # named by a hash, so that nothing in a user's name can matter to a path
        return self._folder / hashlib.sha256(os.fsencode(path)).hexdigest()

    def _size(self, path: str) -> int:
        try:
            return os.stat(self._file(path)).st_size
        except (FileNotFoundError, NotADirectoryError):
            return 0

    @contextlib.contextmanager
    def _locked(self, path: str, *, make: bool = False) -> Iterator[int]:
        """The file of a mailbox, a descriptor: nobody else appends to it, or writes it anew, within the block.

        An import does not hold the mailbox's lock, so that lock is not enough.
        """
        file = self._file(path)
        if make:
            make_folders(self._folder)
        while True:
            descriptor = os.open(file, _APPEND | (os.O_CREAT if make else 0), 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), os.stat(file, follow_symlinks=False)):
                        yield descriptor
                        return
            finally:
                os.close(descriptor)
            # it was written anew between the two calls

    def _entries(self, descriptor: int, path: str) -> Iterator[tuple[int, bytes, bytes]]:
        """When it was added, unique-id and unique part of each line. Raises OSError."""
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(self._file(path)))
        if found.st_size > _OCTETS_MAX:
            raise OSError(errno.EFBIG, f"it is larger than {_OCTETS_MAX} octets", str(self._file(path)))
        ignored, count = 0, 0
        with open(os.dup(descriptor), "rb") as file:
            file.seek(0)
            for number, line in enumerate(iter(lambda: file.readline(_LINE_OCTETS_MAX), b"")):
                entry = _entry(line.rstrip(b"\n"))
                if entry is not None:
                    yield entry
                    if (count := count + 1) > _IDS_MAX:
                        raise OSError(errno.EFBIG, f"it has more than {_IDS_MAX} lines", str(self._file(path)))
                elif number or not line.startswith(_HEADER):
                    ignored += bool(line.strip(b"\n\0"))
        if ignored:
            log.warning(
                "%s: %d lines are ignored, because they are damaged; ids of those messages may change",
                self._file(path), ignored,
            )  # fmt: skip


def _header(path: str) -> bytes:
    return _HEADER + quote_from_bytes(os.fsencode(path)).encode("ascii")[: _LINE_OCTETS_MAX // 2] + b"\n"


def _beginning(descriptor: int, size: int, path: str) -> bytes:
    """What has to stand before new lines: the first line of all, or the end of one that a crash has torn."""
    if not size:
        return _header(path)
    return b"" if os.pread(descriptor, 1, size - 1) == b"\n" else b"\n"


def _write_lines(descriptor: int, entries: Iterable[tuple[int, bytes, bytes]]) -> None:
    lines = map(_line, entries)
    while some := b"".join(itertools.islice(lines, _LINES_AT_ONCE)):
        _write(descriptor, some)


def _write(descriptor: int, octets: bytes) -> None:
    left = memoryview(octets)
    while left:
        left = left[os.write(descriptor, left) :]


def _line(entry: tuple[int, bytes, bytes]) -> bytes:
    made, uid, name = entry
    if b"\n" in name or b"%" in name:
        name = name.replace(b"%", b"%25").replace(b"\n", b"%0A")
    about = b"%x %b %b" % (made, uid, name)
    return b"%08x %b\n" % (zlib.crc32(about), about)


def _entry(line: bytes) -> tuple[int, bytes, bytes] | None:
    checksum, _, about = line.partition(b" ")
    parts = about.split(b" ", 2)
    try:
        if len(parts) != 3 or int(checksum, 16) != zlib.crc32(about):
            return None
        made, uid, name = int(parts[0], 16), parts[1], parts[2]
    except ValueError:
        return None
    return made, uid, unquote_to_bytes(name) if b"%" in name else name
