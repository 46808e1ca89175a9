"""What the daemon says about itself: one line per thing that happened, to standard error.

Whatever came from outside is made harmless here, once: control characters, line ends and whatever else a terminal or a
log reader might obey are shown as escapes, so that nobody can forge a line. Passwords never get this far.
"""

from __future__ import annotations

import logging
import sys

from pop3core.server import ServerConnection
from pop3d.channel import Channel

__all__ = [
    "configure",
    "failed_login",
    "harmless",
    "refused_connection",
    "refused_login",
    "session_line",
    "unraisable",
]

log = logging.getLogger("pop3d")

_TEXT_MAX = 2000  # characters of one line


def harmless(text: str) -> str:
    """Text without anything but printable characters; the others are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:_TEXT_MAX])


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        lines = [f"{self.formatTime(record)} {record.levelname} {harmless(record.getMessage())}"]
        if record.exc_info:
            # a bug of ours: the traceback belongs to the log, each line marked as a part of this record
            lines += [f"    {harmless(line)}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(lines)


def configure(level: str) -> None:
    """Log to standard error. ``level``: debug, info, warning or error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s"))
    log.handlers[:] = [handler]
    log.setLevel(level.upper())
    log.propagate = False


def unraisable(fault: sys.UnraisableHookArgs) -> None:
    """For `sys.unraisablehook`: what happens where nothing can be raised is one line, and no traceback.

    A client can make it happen: a server name that is not ASCII, before our code sees it.
    """
    log.warning("ignored %s: %s", fault.exc_type.__name__, fault.exc_value)


def failed_login(address: str, username: str) -> None:
    """One line of stable form for a refused login; the name is cut, so that it stays short."""
    log.warning("authentication failed ip=%s user=%s", address, harmless(username[:64]))


def refused_login(address: str, username: str, reason: str) -> None:
    """One line for a login that was refused without a check."""
    log.warning("login not checked ip=%s user=%s reason=%s", address, harmless(username[:64]), reason)


def refused_connection(address: str, reason: str) -> None:
    """One line for a connection that was closed without a word."""
    log.warning("connection refused ip=%s reason=%s", address, reason)


def session_line(channel: Channel, conn: ServerConnection, seconds: float, reason: str) -> None:
    """One line for a session that has ended."""
    summary = conn.summary
    log.info(
        "session ip=%s user=%s tls=%s retrieved=%d octets=%d deleted=%d seconds=%.3f reason=%s",
        channel.peer,
        conn.username or "-",
        channel.tls_version or "-",
        summary.retrieved,
        summary.retrieved_octets,
        summary.deleted,
        seconds,
        reason,
    )
