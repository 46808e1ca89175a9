"""Unique-ids that another server gave: a site moves here, and no client downloads its mail again.

Dovecot keeps ``dovecot-uidlist``, in the Maildir or where its ``CONTROL=`` says, Courier ``courierpop3dsizelist`` in
the Maildir. Both say which number a file has; how the servers make a unique-id of it is copied here:

- Dovecot: by its ``pop3_uidl_format`` (`pop3d.uidl_format`), or what stands in the line because Dovecot had to save it
  (``P``, empty for the file name). Dovecot sends what comes of it whatever its length, and so does pop3d.
- Courier: ``UID<number>-<validity>``, and for what its older versions listed ``UID<number>``, or the file name with
  some octets escaped.

Files are known by their names without flags. A line that is none is passed over: its message gets the unique-id that
its name gives, and `ForeignList.faults` says so. A last line without its end is being written, or torn.

Users can write these files, so whatever stands there is read in time in proportion to its size, and in bounded memory.
They are never written here. Blocking code for a thread.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from pop3d.stores.maildir.folders import open_folder
from pop3d.stores.maildir.kept_ids import can_be_told
from pop3d.stores.maildir.names import unique_part
from pop3d.system.folders import open_inside
from pop3d.uidl_format import UidlFormat, UidSource

__all__ = ["LIST_FILES", "ForeignList", "courier", "dovecot", "foreign_list", "lines_of"]

LIST_FILES: Final = {"dovecot": "dovecot-uidlist", "courier": "courierpop3dsizelist"}
"""The other servers' lists."""

_INBOX: Final = (b".INBOX", b"INBOX")  # folders below Dovecot's CONTROL= that the mailbox itself has, by its LAYOUT=
_OCTETS_MAX: Final = 256 * 1024 * 1024  # of a file
_MESSAGES_MAX: Final = 1_000_000  # in a file: some 300 octets of memory each
_LINE_OCTETS_MAX: Final = 4096  # a real one has some hundred
_NAME_OCTETS_MAX: Final = 300  # a file's name has at most 255, and here perhaps flags
_DIGITS_MAX: Final = 10
_INCOMPLETE: Final = "the last line is not complete"
_WRITTEN_NOW: Final = 10  # seconds since a file was changed, for which somebody may be writing its last line

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class ForeignList:
    """What a list says. ``uids``: unique-ids by file name without folder and flags.

    ``is_there``: there is such a file. ``faults``: what is wrong with it, for the log. ``unlisted``: the unique-id of
    a file that is not listed, by its name without folder and flags; None where the other server would have to number
    it.
    """

    uids: dict[bytes, bytes] = field(default_factory=dict)
    is_there: bool = False
    faults: list[str] = field(default_factory=list)
    unlisted: Callable[[bytes], bytes | None] | None = None


def foreign_list(
    root: int, source: UidSource, control: str | None = None, skip: Collection[bytes] = frozenset()
) -> ForeignList:
    """The list of the Maildir ``root``, a descriptor; empty for ``"filename"``, and where there is no such file.

    ``control``: the folder where Dovecot's ``CONTROL=`` has it. ``skip``: unique parts of names that need no id.
    Raises OSError, ValueError for a file that is too large, has too many messages, or is no regular one.
    """
    found = ForeignList()
    if source.server == "dovecot" and not source.format.needs_list:
        found.unlisted = lambda name: _by_name(source.format, name)
    if not source.is_foreign:
        return found
    name = LIST_FILES[source.server]
    descriptor = _opened(root, name, control if source.server == "dovecot" else None)
    if descriptor is None:
        return found
    found.is_there = True
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)  # here: open() keeps that of a folder
        raise ValueError(f"{name} is no regular file")
    with open(descriptor, "rb") as file:
        try:
            if status.st_size > _OCTETS_MAX:
                raise ValueError(f"it is larger than {_OCTETS_MAX} octets")
            lines = lines_of(file)
            read = dovecot(lines, source.format, skip) if source.server == "dovecot" else courier(lines, skip)
        except ValueError as fault:
            raise ValueError(f"{name}: {fault}") from None
    found.uids, found.faults = read.uids, read.faults
    if _INCOMPLETE in found.faults and abs(time.time() - status.st_mtime) < _WRITTEN_NOW:
        found.faults.remove(_INCOMPLETE)
    return found


def _opened(root: int, name: str, control: str | None) -> int | None:
    """A descriptor of a list; None where there is none. Raises OSError."""
    if control is None:
        with contextlib.suppress(FileNotFoundError):
            return os.open(name, _OPEN, dir_fd=root)
        return None
    with contextlib.suppress(FileNotFoundError):
        above = open_folder(control)
        try:
            for inbox in _INBOX:
                with contextlib.suppress(FileNotFoundError):
                    folder = open_inside(above, inbox)
                    try:
                        return os.open(name, _OPEN, dir_fd=folder)
                    finally:
                        os.close(folder)
            return os.open(name, _OPEN, dir_fd=above)
        finally:
            os.close(above)
    return None


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file with their ends; nothing but a line end for one of more than 4 KiB, which is never in memory
    as a whole. The last line of a file may have no end.

    Raises ValueError for more than 256 MiB, which somebody may append while they are read.
    """
    while line := file.readline(_LINE_OCTETS_MAX + 1):
        if file.tell() > _OCTETS_MAX:
            raise ValueError(f"it is larger than {_OCTETS_MAX} octets")
        if line.endswith(b"\n") or len(line) <= _LINE_OCTETS_MAX:
            yield line
        else:
            while line and not line.endswith(b"\n"):
                line = file.readline(_LINE_OCTETS_MAX)
            yield b"\n"


class _Reading:
    """A list as it is read, line by line."""

    def __init__(self, skip: Collection[bytes]) -> None:
        self.uids: dict[bytes, bytes] = {}
        self._skip = skip
        self._faults: Counter[str] = Counter()

    def complete(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The lines that have an end, without it."""
        for line in lines:
            if not line.endswith(b"\n"):
                self.fault(_INCOMPLETE)
            else:
                yield line[:-1]

    def skips(self, name: bytes) -> bool:
        """Whether the file of this name, without flags, needs no id."""
        return bool(self._skip) and unique_part(name) in self._skip

    def add(self, name: bytes, uid: bytes) -> None:
        """The unique-id of a file; ``name`` may have flags. Of two lines for one file the later one holds."""
        name = name.partition(b":")[0]
        if not name or len(name) > _NAME_OCTETS_MAX or b"/" in name:
            self.fault("lines that name no file")
        elif not can_be_told(uid):
            self.fault("unique-ids that POP3 cannot carry (RFC 1939 §7)")
        elif not self.skips(name):
            self.uids[name] = uid
            if len(self.uids) > _MESSAGES_MAX:
                raise ValueError(f"it has more than {_MESSAGES_MAX} messages")

    def fault(self, what: str) -> None:
        self._faults[what] += 1

    def ended(self) -> ForeignList:
        faults = [what if count == 1 else f"{what}: {count}" for what, count in self._faults.items()]
        return ForeignList(self.uids, True, faults)


def dovecot(
    lines: Iterable[bytes], uidl_format: UidlFormat | None = None, skip: Collection[bytes] = frozenset()
) -> ForeignList:
    """What ``dovecot-uidlist``, version 1 or 3, says; ``lines`` with their ends. Raises ValueError for too many."""
    uidl_format = uidl_format or UidlFormat()
    reading = _Reading(skip)
    rest = reading.complete(lines)
    validity, begins = _dovecot_header(next(rest, b""))
    if validity is None:
        reading.fault("the first line is not that of a list of version 1 or 3")
        return reading.ended()
    of_validity = b"%d" % validity
    last = 0
    for line in rest:
        about, found, name = line.partition(begins)
        number, *fields = about.split(b" ")
        if not found or not name or not (given := _number(number)):
            reading.fault("lines that are not of the list's format")
            continue
        if given <= last:
            reading.fault("lines whose number is not above the one before")
        last = given
        name = name.partition(b":")[0]
        if reading.skips(name):
            continue
        known = {field[:1]: field[1:] for field in reversed(fields)}  # the first of a kind holds
        if (uid := known.get(b"P")) is None:
            values = {"uid": b"%d" % given, "uidvalidity": of_validity, "filename": name}
            values["guid"] = known.get(b"G") or name
            uid = uidl_format.expand(values)
        reading.add(name, uid or name)
    return reading.ended()


def _dovecot_header(line: bytes) -> tuple[int | None, bytes]:
    """UIDVALIDITY, and what stands before a file's name in the lines that follow."""
    version, *fields = line.split(b" ")
    if version == b"3":
        return next((_number(field[1:]) for field in fields if field.startswith(b"V")), None) or None, b" :"
    if version == b"1" and len(fields) == 2 and fields[1].isdigit():
        return _number(fields[0]) or None, b" "
    return None, b""


def _by_name(uidl_format: UidlFormat, name: bytes) -> bytes | None:
    uid = uidl_format.expand({"filename": name, "guid": name})
    return uid if can_be_told(uid) else None


def courier(lines: Iterable[bytes], skip: Collection[bytes] = frozenset()) -> ForeignList:
    """What ``courierpop3dsizelist`` says; ``lines`` with their ends. Raises ValueError for too many.

    Versions 2 and 3 (``name size number:validity``, and ``:flag``), 1 (``name size number``), and the first ones
    without a header (``name size``). Versions 2 and 3 carry on lines of the older ones with zeros for what they lack.
    """
    reading = _Reading(skip)
    rest = reading.complete(lines)
    header = next(rest, b"")
    if header.startswith(b"/"):
        version, *numbers = header[1:].split(b" ")
        if version not in (b"1", b"2", b"3") or not numbers or not all(map(bytes.isdigit, numbers)):
            reading.fault("the first line is not that of a list of version 1, 2 or 3")
            return reading.ended()
        parts = {b"1": (1,), b"2": (2,), b"3": (2, 3)}[version]
        for line in rest:
            # a name may have blanks
            name, size, about, *_ = *line.rsplit(b" ", 2), b"", b""
            numbers = about.split(b":")
            if not name or not size.isdigit() or len(numbers) not in parts or not all(map(bytes.isdigit, numbers)):
                reading.fault("lines that are not of the list's format")
            else:
                _add_numbered(reading, name, _number(numbers[0]), _number(numbers[1]) if len(numbers) > 1 else 0)
        return reading.ended()
    for line in itertools.chain([header] if header else [], rest):
        name, _, size = line.rpartition(b" ")
        if not name or not size.isdigit():
            reading.fault("lines that are not of the list's format")
        else:
            reading.add(name, _escaped(name))
    return reading.ended()


def _add_numbered(reading: _Reading, name: bytes, number: int | None, validity: int | None) -> None:
    if number is None or validity is None:
        reading.fault("lines that are not of the list's format")
    elif not number:
        reading.add(name, _escaped(name))
    else:
        reading.add(name, b"UID%d-%d" % (number, validity) if validity else b"UID%d" % number)


def _escaped(name: bytes) -> bytes:
    """The unique-id that Courier's first version made of a file's name."""
    return b"".join(
        b"%c" % octet if 0x21 <= octet <= 0x7E and octet not in b"'\"+" else b"+%02X" % octet
        for octet in name.partition(b":")[0]
    )


def _number(octets: bytes) -> int | None:
    return int(octets) if octets.isdigit() and len(octets) <= _DIGITS_MAX else None
