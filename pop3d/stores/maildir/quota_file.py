"""``maildirsize``, the Maildir++ quota file: what other programs count a mailbox's quota by.

An MTA that enforces a quota by it adds a line for each message that it delivers, ``octets count``, and refuses mail
once the sum is too large. So whoever removes a message, or brings one, has to add a line too, or mail bounces for a
mailbox that is empty. The file is appended to where it is there, and never made: it belongs to those who set the quota.
They count it anew from time to time, so a line that could not be written costs some minutes, and no message.

A message counts with the size that its name says (``,S=``), else with that of its file, as Dovecot and Courier have it.
Blocking code, for a worker thread.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from typing import Final

__all__ = ["add_to_quota_file", "counted_octets"]

log = logging.getLogger("pop3d.maildir")

_NAME: Final = "maildirsize"
_SIZE_IN_NAME = re.compile(rb",S=([0-9]{1,15})(?=[:,]|$)")
# one write is one line, wherever others append at the same moment; reading is for the end of the last line
_APPEND: Final = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def counted_octets(name: bytes, stored: int) -> int:
    """What a message counts for. ``name``: its file's; ``stored``: the octets of the file."""
    found = _SIZE_IN_NAME.search(name)
    return stored if found is None else int(found[1])


def add_to_quota_file(mailbox: int, octets: int, messages: int) -> None:
    """Tell of messages that have come, or, with negative numbers, gone. ``mailbox``: a descriptor of the Maildir.

    Nothing happens where there is no such file. What goes wrong is told to the log.
    """
    if not messages:
        return
    try:
        file = os.open(_NAME, _APPEND, dir_fd=mailbox)
    except FileNotFoundError:
        return
    except OSError as fault:
        _untold(fault)
        return
    try:
        found = os.fstat(file)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:  # a second name may be that of anybody's file
            torn = found.st_size > 0 and os.pread(file, 1, found.st_size - 1) != b"\n"
            os.write(file, b"%b%d %d\n" % (b"\n" if torn else b"", octets, messages))
    except OSError as fault:
        _untold(fault)
    finally:
        os.close(file)


def _untold(fault: OSError) -> None:
    log.warning("%s: %s; whoever counts by it finds the right quota when it is counted anew", _NAME, fault.strerror)
