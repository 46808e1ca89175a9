"""What a program says with its exit status: sysexits.h, and three conventions of every shell (1, 2 and 130).

`pop3cli.exit_status` has the same names and numbers: a test compares them, for neither imports them.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitStatus"]


class ExitStatus(IntEnum):
    """How a run ended."""

    OK = 0
    """Done."""

    SOME_FAILED = 1
    """Some of it failed."""

    USAGE = 2
    """The command line is not valid."""

    DATAERR = 65
    """Bad data, such as a user who is there already."""

    NOUSER = 67
    """No such user."""

    UNAVAILABLE = 69
    """Cannot listen, or cannot connect."""

    SOFTWARE = 70
    """Our bug."""

    IOERR = 74
    """Cannot write a file."""

    TEMPFAIL = 75
    """Try later: the mailbox is in use, or there is no room."""

    PROTOCOL = 76
    """The other side broke the protocol."""

    NOPERM = 77
    """Permission was refused."""

    CONFIG = 78
    """The configuration, or a file in it, cannot be used."""

    INTERRUPTED = 130
    """Ctrl-C."""
