"""Unique-ids that another server gave: a site moves here, and no client downloads its mail again.

Dovecot keeps ``dovecot-uidlist`` in the Maildir, Courier ``courierpop3dsizelist``. Both say which number a file has;
how they make a unique-id of it is copied here: Dovecot's default ``pop3_uidl_format``, ``%08Xu%08Xv``, or what stands
in the line when Dovecot had to save it; Courier's ``UID<number>-<validity>``. Files are known by their names without
flags.

A line that is none is passed over: its message gets the unique-id that its name gives. Users can write these files, so
whatever stands there is read in time in proportion to its size, and in bounded memory. Blocking code for a thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final, Literal, TypeAlias

from pop3core.maildrop import is_unique_id

__all__ = ["UidSource", "courier", "dovecot", "foreign_uids", "lines_of", "list_files"]

UidSource: TypeAlias = Literal["filename", "dovecot", "courier"]
"""Where unique-ids come from."""

_FILES: Final = {"dovecot": "dovecot-uidlist", "courier": "courierpop3dsizelist"}
_OCTETS_MAX: Final = 256 * 1024 * 1024  # of a file
_MESSAGES_MAX: Final = 1_000_000  # in a file: some 300 octets of memory each
_LINE_OCTETS_MAX: Final = 4096  # a real one has some hundred
_NAME_OCTETS_MAX: Final = 300  # a file's name has at most 255, and here perhaps flags
_DIGITS_MAX: Final = 10


def list_files(source: UidSource) -> tuple[str, ...]:
    """The file in a Maildir that `foreign_uids` reads, if any."""
    return () if source == "filename" else (_FILES[source],)


def foreign_uids(root: int, source: UidSource) -> dict[bytes, bytes]:
    """Unique-ids by file name without folder and flags, from the Maildir ``root``, a descriptor.

    None for ``"filename"``, and where there is no such file. Raises OSError, ValueError for a file that is too large,
    has too many messages, or is no regular one.
    """
    if source == "filename":
        return {}
    try:
        descriptor = os.open(_FILES[source], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
    except FileNotFoundError:
        return {}
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{_FILES[source]} is no regular file")
        try:
            if found.st_size > _OCTETS_MAX:
                raise ValueError(f"it is larger than {_OCTETS_MAX} octets")
            return dovecot(lines_of(file)) if source == "dovecot" else courier(lines_of(file))
        except ValueError as fault:
            raise ValueError(f"{_FILES[source]}: {fault}") from None


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file without their ends. One of more than 4 KiB is passed over, and never in memory as a whole.

    Raises ValueError for more than 256 MiB, which somebody may append while they are read.
    """
    while line := file.readline(_LINE_OCTETS_MAX + 1):
        if file.tell() > _OCTETS_MAX:
            raise ValueError(f"it is larger than {_OCTETS_MAX} octets")
        if line.endswith(b"\n"):
            yield line[:-1]
        elif len(line) <= _LINE_OCTETS_MAX:
            yield line  # the last one, torn
        else:
            while line and not line.endswith(b"\n"):
                line = file.readline(_LINE_OCTETS_MAX)


def dovecot(lines: Iterable[bytes]) -> dict[bytes, bytes]:
    """What ``dovecot-uidlist``, version 1 or 3, says. None when it is neither. Raises ValueError for too many."""
    lines = iter(lines)
    version, *fields = next(lines, b"").split(b" ")
    if version == b"3" and all(map(_is_field, fields)):
        validities, begins = [_number(field[1:]) for field in fields if field.startswith(b"V")], b" :"
    elif version == b"1" and len(fields) == 2 and fields[1].isdigit():
        validities, begins = [_number(fields[0])], b" "
    else:
        return {}
    validity = next((found for found in validities if found is not None), None)
    if validity is None:
        return {}
    uids: dict[bytes, bytes] = {}
    for line in lines:
        about, found, name = line.partition(begins)
        number, *fields = about.split(b" ")
        if not found or not name or (given := _number(number)) is None or not all(map(_is_field, fields)):
            continue
        saved = next((field[1:] for field in fields if field.startswith(b"P") and len(field) > 1), None)
        _add(uids, name, b"%08x%08x" % (given, validity) if saved is None else saved)
    return uids


def courier(lines: Iterable[bytes]) -> dict[bytes, bytes]:
    """What ``courierpop3dsizelist``, version 2 or 3, says. None when it is neither. Raises ValueError for too many."""
    lines = iter(lines)
    header = next(lines, b"").split(b" ")
    if len(header) != 3 or header[0] not in (b"/2", b"/3") or not all(map(bytes.isdigit, header[1:])):
        return {}
    uids: dict[bytes, bytes] = {}
    for line in lines:
        # a name may have blanks
        name, size, about, *_ = *line.rsplit(b" ", 2), b"", b""
        parts = about.split(b":")
        if not name or not size.isdigit() or len(parts) not in (2, 3) or not all(map(bytes.isdigit, parts)):
            continue
        number, validity = map(_number, parts[:2])
        if number and validity is not None:
            _add(uids, name, b"UID%d-%d" % (number, validity))
    return uids


def _number(octets: bytes) -> int | None:
    return int(octets) if octets.isdigit() and len(octets) <= _DIGITS_MAX else None


def _is_field(field: bytes) -> bool:
    """Whether it is a key, which is a capital, and its value."""
    return field[:1].isupper()


def _add(uids: dict[bytes, bytes], name: bytes, uid: bytes) -> None:
    if is_unique_id(uid) and len(name) <= _NAME_OCTETS_MAX:
        uids[name.partition(b":")[0]] = uid
        if len(uids) > _MESSAGES_MAX:
            raise ValueError(f"it has more than {_MESSAGES_MAX} messages")
