"""What a program says with its exit status: sysexits.h, and three conventions of every shell (1, 2 and 130).

`pop3d.exit_status` has the same names and numbers: a test compares them, for neither imports them.
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
    """The command line, or what was typed, cannot be meant so."""

    DATAERR = 65
    """Bad data."""

    NOUSER = 67
    """No such user, or no such message."""

    UNAVAILABLE = 69
    """Cannot connect, or the server is gone."""

    SOFTWARE = 70
    """Our bug."""

    IOERR = 74
    """Cannot write output."""

    TEMPFAIL = 75
    """Try later: the mailbox is locked, the server is busy."""

    PROTOCOL = 76
    """The server broke the protocol."""

    NOPERM = 77
    """The login or the certificate was refused."""

    CONFIG = 78
    """A setting cannot be used: a file of certificates, a password command."""

    INTERRUPTED = 130
    """Ctrl-C."""
