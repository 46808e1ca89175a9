"""Unique-ids that another server gave: a site moves here, and no client downloads its mail again.

Dovecot keeps ``dovecot-uidlist`` in the Maildir, Courier ``courierpop3dsizelist``. Both say which number a file has;
how they make a unique-id of it is copied here: Dovecot's default ``pop3_uidl_format``, ``%08Xu%08Xv``, or what stands
in the line when Dovecot had to save it; Courier's ``UID<number>-<validity>``. Files are known by their names without
flags.

A line that is none is passed over: its message gets the unique-id that its name gives. Blocking code for a thread.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Final, Literal, TypeAlias

from pop3core.maildrop import is_unique_id

__all__ = ["UidSource", "courier", "dovecot", "foreign_uids", "list_files"]

UidSource: TypeAlias = Literal["filename", "dovecot", "courier"]
"""Where unique-ids come from."""

_FILES: Final = {"dovecot": "dovecot-uidlist", "courier": "courierpop3dsizelist"}
_OCTETS_MAX: Final = 256 * 1024 * 1024  # some two million messages
_DOVECOT_3 = re.compile(rb"3(?: [A-Z]\S*)*? V([0-9]{1,10})(?: [A-Z]\S*)*")
_DOVECOT_1 = re.compile(rb"1 ([0-9]{1,10}) [0-9]+")
_DOVECOT_LINE = re.compile(rb"([0-9]{1,10})((?: [A-Z]\S*)*) :(.+)")
_DOVECOT_OLD_LINE = re.compile(rb"([0-9]{1,10})() (.+)")
_DOVECOT_SAVED = re.compile(rb" P(\S+)")
_COURIER = re.compile(rb"/[23] [0-9]+ [0-9]+")
_COURIER_LINE = re.compile(rb"(.+) [0-9]+ ([0-9]{1,10}):([0-9]{1,10})(?::[0-9]+)?")


def list_files(source: UidSource) -> tuple[str, ...]:
    """The file in a Maildir that `foreign_uids` reads, if any."""
    return () if source == "filename" else (_FILES[source],)


def foreign_uids(root: int, source: UidSource) -> dict[bytes, bytes]:
    """Unique-ids by file name without folder and flags, from the Maildir ``root``, a descriptor.

    None for ``"filename"``, and where there is no such file. Raises OSError, ValueError for a file that is too large or
    no regular one.
    """
    if source == "filename":
        return {}
    try:
        descriptor = os.open(_FILES[source], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
    except FileNotFoundError:
        return {}
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _OCTETS_MAX:
            raise ValueError(f"{_FILES[source]} is no regular file, or larger than {_OCTETS_MAX} octets")
        octets = file.read()
    return dovecot(octets) if source == "dovecot" else courier(octets)


def dovecot(octets: bytes) -> dict[bytes, bytes]:
    """What ``dovecot-uidlist``, version 1 or 3, says. None when it is neither."""
    header, *lines = octets.split(b"\n")
    version_3, version_1 = _DOVECOT_3.fullmatch(header), _DOVECOT_1.fullmatch(header)
    if version_3 is not None:
        validity, form = int(version_3[1]), _DOVECOT_LINE
    elif version_1 is not None:
        validity, form = int(version_1[1]), _DOVECOT_OLD_LINE
    else:
        return {}
    uids: dict[bytes, bytes] = {}
    for line in lines:
        if (entry := form.fullmatch(line)) is not None:
            saved = _DOVECOT_SAVED.search(entry[2])
            uid = saved[1] if saved is not None else b"%08x%08x" % (int(entry[1]), validity)
            if is_unique_id(uid):
                uids[entry[3].partition(b":")[0]] = uid
    return uids


def courier(octets: bytes) -> dict[bytes, bytes]:
    """What ``courierpop3dsizelist``, version 2 or 3, says. None when it is neither."""
    header, *lines = octets.split(b"\n")
    if not _COURIER.fullmatch(header):
        return {}
    uids: dict[bytes, bytes] = {}
    for line in lines:
        entry = _COURIER_LINE.fullmatch(line)
        if entry is not None and int(entry[2]):
            uids[entry[1].partition(b":")[0]] = b"UID%d-%d" % (int(entry[2]), int(entry[3]))
    return uids
