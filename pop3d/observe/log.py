"""What the daemon says about itself: one line per thing that happened, to standard error, as text or as JSON.

What has fields is an `Event`; the rest is a sentence. Whatever came from outside is made harmless here, once: control
characters, line ends and whatever else a terminal or a log reader might obey are shown as escapes, values with blanks
or quotes are quoted, and all is cut, so that nobody can forge a line or a field. Passwords never get this far.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TypeAlias

from pop3core.maildrop import Listing
from pop3d.observe.report import SessionReport

__all__ = [
    "Event",
    "configure",
    "failed_login",
    "log",
    "mailbox_in_use",
    "reconfigure",
    "refused_connection",
    "refused_login",
    "sanitized",
    "session_line",
    "unraisable",
    "unserved_login",
]

log = logging.getLogger("pop3d")

_TEXT_MAX: Final = 2000  # characters of a sentence
_VALUE_OCTETS_MAX: Final = 512  # octets of a field's value, escapes counted: a user name has 255 at most
_NAME_OCTETS_MAX: Final = 64  # octets of the name in a failed login, so that a flood of them stays small
_REFUSALS_TOLD: Final = 10  # refused connections a second that have a line each
_HASHED_MAX: Final = 1000  # unique-ids that are hashed for the log: some 0.2 ms; of more, none are
_LEFT: Final = frozenset(
    {"the client is gone", "the client went away without QUIT"}
)  # ends that a client makes by going
_PLAIN = re.compile(r'[^\s"\\=]+')  # a value that needs no quotes
_BARE = re.compile(r"[ !#-\[\]-~]*")  # one that is shown as it is, quoted or not: ASCII without quotes and backslashes
_SIMPLE = re.compile(r"[!#-<>-\[\]-~]{1,512}")  # nor a second look: such characters of ASCII, and an octet each

Value: TypeAlias = str | int | float | None


def sanitized(text: str) -> str:
    """Text without anything but printable characters; the others are shown as escapes."""
    return "".join(map(_escaped, text[:_TEXT_MAX]))


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _clipped(text: str, octets: int) -> str:
    """The longest beginning of ``text`` that has at most ``octets`` once it is quoted."""
    if _BARE.fullmatch(text):  # nearly all: nothing in it needs a second octet
        return text[:octets]
    room = octets
    for index, character in enumerate(text[:octets]):
        room -= len(_quotable(character).encode())
        if room < 0:
            return text[:index]
    return text[:octets]


def _quotable(character: str) -> str:
    return f"\\{character}" if character in '"\\' else _escaped(character)


class Event:
    """A message for the log that has fields: ``log.info(Event("session", ip="192.0.2.7", retrieved=3))``.

    Text shows it as ``session ip=192.0.2.7 retrieved=3``, JSON as members. None and ``""`` are shown as ``-`` and null.
    """

    __slots__ = ("fields", "name")

    def __init__(self, name: str, /, **fields: Value) -> None:
        self.name = name
        self.fields: Mapping[str, Value] = fields

    def __str__(self) -> str:
        return " ".join((self.name, *(f"{key}={_as_text(value)}" for key, value in self.fields.items())))


def _as_text(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if value is None or value == "":
        return "-"
    if isinstance(value, int) or (_SIMPLE.fullmatch(value) and value != "-"):
        return str(value)
    text = _clipped(str(value), _VALUE_OCTETS_MAX)
    if text.isprintable() and text != "-" and _PLAIN.fullmatch(text):
        return text
    return f'"{"".join(map(_quotable, text))}"'


class _Text(logging.Formatter):
    """The time is local, with its offset from UTC: whoever reads it elsewhere (a container's host) is not misled."""

    _last = 0, "", ""  # a second, what it is called, and the offset of the time zone in it

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        # as logging does it, but the calendar is asked once a second
        second, told, offset = self._last  # one object: more than one thread comes here
        if second != int(record.created):
            second = int(record.created)
            local = time.localtime(second)
            told, offset = time.strftime("%Y-%m-%d %H:%M:%S", local), time.strftime("%z", local)
            offset = f"{offset[:3]}:{offset[3:5]}"  # as ISO 8601 has it
            self._last = second, told, offset
        return f"{told}.{int(record.msecs):03}{offset}"

    def format(self, record: logging.LogRecord) -> str:
        # an event has made its values harmless, each by itself and within bounds
        told = str(record.msg) if isinstance(record.msg, Event) else sanitized(record.getMessage())
        lines = [f"{self.formatTime(record)} {record.levelname} {told}"]
        if record.exc_info:
            # a bug of ours: the traceback belongs to the log, each line marked as a part of this record
            lines += [f"    {sanitized(line)}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(lines)


class _Json(logging.Formatter):
    """One object a line: time, level and event, then the event's fields; a sentence is the event ``message``."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told: dict[str, object] = {"time": time.replace("+00:00", "Z"), "level": record.levelname.lower()}
        if isinstance(record.msg, Event):
            told["event"] = record.msg.name
            told |= {key: _as_json(value) for key, value in record.msg.fields.items()}
        else:
            told |= {"event": "message", "message": sanitized(record.getMessage())}
        if record.exc_info:
            told["traceback"] = [sanitized(line) for line in self.formatException(record.exc_info).splitlines()]
        return json.dumps(told)  # in ASCII: whatever the encoding of standard error, it stays JSON


def _as_json(value: Value) -> Value:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, str) and not _SIMPLE.fullmatch(value):
        # a backslash is doubled, so that an escape of ours cannot be mistaken for what was said
        return sanitized(_clipped(value, _VALUE_OCTETS_MAX).replace("\\", "\\\\")) or None
    return value


def configure(level: str, form: str = "text") -> None:
    """Log to standard error. ``level``: debug, info, warning or error; ``form``: text or json."""
    # of no line: what they cost is the better half of a record's making
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    log.handlers[:] = [logging.StreamHandler(sys.stderr)]
    log.propagate = False
    reconfigure(level, form)


def reconfigure(level: str, form: str) -> None:
    """Another level and form of lines, wherever they are written."""
    for handler in log.handlers:
        handler.setFormatter(_Json() if form == "json" else _Text("%(asctime)s"))
    log.setLevel(level.upper())


def unraisable(fault: sys.UnraisableHookArgs) -> None:
    """For `sys.unraisablehook`: what happens where nothing can be raised is one line, and no traceback.

    A client can make it happen: a server name that is not ASCII, before our code sees it.
    """
    log.warning("ignored %s: %s", fault.exc_type.__name__, fault.exc_value)


def failed_login(address: str, username: str, reason: str = "") -> None:
    """One line of stable form for a refused login, that examples/fail2ban reads; the name is cut, so it stays short.

    ``reason``: why a login was refused whose proof was good.
    """
    name = _clipped(username, _NAME_OCTETS_MAX)
    more = {"reason": reason} if reason else {}
    log.warning(Event("authentication failed", ip=address, user=name, **more))


def unserved_login(address: str, username: str, mechanism: str) -> None:
    """One line for a login by a mechanism that the user's stored secret does not serve: nobody guessed."""
    name = _clipped(username, _NAME_OCTETS_MAX)
    log.info(Event("mechanism not served by the stored secret", ip=address, user=name, mechanism=mechanism))


def refused_login(address: str, username: str, reason: str) -> None:
    """One line for a login that was refused without a check."""
    log.warning(Event("login not checked", ip=address, user=_clipped(username, _NAME_OCTETS_MAX), reason=reason))


def mailbox_in_use(
    address: str,
    username: str,
    holder: str,
    since: float | None = None,
    seconds: float | None = None,
    pid: int | None = None,
) -> None:
    """One line for a login that was right, and is refused because another session holds the mailbox.

    ``holder``: that session's address, or what is known instead; ``since``: Unix time of its login, told in local time;
    ``pid``: its process.
    """
    told: dict[str, Value] = {"holder": holder}
    if since is not None:
        told |= {"since": datetime.fromtimestamp(since).astimezone().isoformat(timespec="seconds"), "seconds": seconds}
    if pid is not None:
        told["pid"] = pid
    log.info(Event("mailbox in use", ip=address, user=username, **told))


class _Refusals:
    """So many lines a second for refused connections: a flood of those must be no flood of the disk."""

    def __init__(self, lines: int) -> None:
        self._lines, self._left, self._untold, self._second = lines, lines, 0, 0

    def tell(self, address: str, reason: str, now: float) -> None:
        if int(now) != self._second:
            untold, self._untold = self._untold, 0
            self._second, self._left = int(now), self._lines
            if untold:
                log.warning(Event("more connections refused", number=untold))
        if self._left:
            self._left -= 1
            log.warning(Event("connection refused", ip=address, reason=reason))
        else:
            self._untold += 1


_refusals = _Refusals(_REFUSALS_TOLD)


def refused_connection(address: str, reason: str) -> None:
    """One line for a connection that was closed without a word; of a flood, a few and how many more there were."""
    _refusals.tell(address, reason, time.monotonic())


def session_line(report: SessionReport) -> None:
    """One line for a session that has ended; RFC 8314 §4: with the cipher.

    Who came and went without a word, as load balancers do to see whether we are there, is told at level debug.
    """
    wordless = not report.octets_in and report.reason in _LEFT
    level = logging.DEBUG if wordless else logging.INFO
    if not log.isEnabledFor(level):
        return
    listing = report.listing
    log.log(
        level,
        Event(
            "session",
            ip=report.address,
            user=report.user,
            tls=report.tls,
            cipher=report.cipher,
            mechanism=report.mechanism,
            messages=len(listing) if listing is not None else None,
            retrieved=report.retrieved,
            octets=report.retrieved_octets,
            octets_in=report.octets_in,
            octets_out=report.octets_out,
            deleted=report.deleted,
            **({"expired": report.expired} if report.expired else {}),
            seconds=report.seconds,
            uids=_hash_of(listing) if listing is not None else None,
            reason=report.reason,
        ),
    )


def _hash_of(listing: Listing) -> str | None:
    """A short name for what the mailbox held: equal when nothing came or went. None where it would take long."""
    if len(listing) > _HASHED_MAX:
        return None
    return hashlib.sha256(b"\n".join(listing.uids)).hexdigest()[:16]
