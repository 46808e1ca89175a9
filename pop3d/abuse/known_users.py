"""Who is known where, across restarts: a file in ``keep/`` of the state folder.

A user who logged in lately from an address is not held up there by guesses of others (`pop3d.abuse.login_throttle`).
The file has 20 octets for each: a hash of address and name, keyed by the site's secret, and the second of the last
login. So it says nothing to who reads it without the secret, and cannot grow beyond 2 MB. One that is torn is ignored.

Several processes may share the file: each adds what it knows to what it finds, and what one of them loses to another
comes with the next writing. Blocking code, for the start or a worker thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from pop3d.abuse.attempts import ENTRIES_MAX
from pop3d.abuse.login_throttle import KNOWN_FOR
from pop3d.system.folders import exchange_inside
from pop3d.system.state_folder import KEEP, opened_part

__all__ = ["KnownUsers"]

log = logging.getLogger("pop3d.known_users")

_NAME: Final = "known-users"
_HEAD: Final = b"pop3d known users 1\n"
_ENTRY: Final = struct.Struct(">16sI")  # hash, and seconds since 1970
_CRC: Final = struct.Struct(">I")  # of all before it
_OCTETS_MAX: Final = len(_HEAD) + ENTRIES_MAX * _ENTRY.size + _CRC.size


class KnownUsers:
    """The file in the state folder ``state``. ``wall``: seconds since 1970."""

    def __init__(self, state: Path, wall: Callable[[], float] = time.time) -> None:
        self._state, self._wall = state, wall

    def load(self) -> list[tuple[bytes, float]]:
        """Hash, and seconds since the login, the oldest first; nothing where there is no such file."""
        try:
            found = self._read()
        except OSError as fault:
            log.warning("%s: %s; who was known before is not", self._path, fault.strerror)
            return []
        now = self._wall()
        # a login of the future, by a clock that was set back, is one of now
        ages = [(pair, max(0.0, now - at)) for pair, at in sorted(found.items(), key=lambda one: one[1])]
        return [(pair, age) for pair, age in ages if age < KNOWN_FOR]

    def save(self, known: Iterable[tuple[bytes, float]]) -> None:
        """Keep what `load` gives, beside what is there. Raises OSError."""
        now = self._wall()
        merged = self._read()
        for pair, age in known:
            if age < KNOWN_FOR:
                merged[pair] = max(merged.get(pair, 0), int(now - age))
        newest = sorted(merged.items(), key=lambda one: one[1])[-ENTRIES_MAX:]
        octets = _HEAD + b"".join(_ENTRY.pack(pair, max(0, at)) for pair, at in newest)
        with opened_part(self._state, KEEP) as keep:
            exchange_inside(keep, _NAME, octets + _CRC.pack(zlib.crc32(octets)))

    @property
    def _path(self) -> Path:
        return self._state / KEEP / _NAME

    def _read(self) -> dict[bytes, int]:
        try:
            with opened_part(self._state, KEEP) as keep:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                with open(os.open(_NAME, flags, dir_fd=keep), "rb") as file:
                    octets = file.read(_OCTETS_MAX + 1)
        except FileNotFoundError:
            return {}
        body, crc = octets[: -_CRC.size], octets[-_CRC.size :]
        with contextlib.suppress(struct.error):
            if len(octets) <= _OCTETS_MAX and body.startswith(_HEAD) and _CRC.unpack(crc) == (zlib.crc32(body),):
                return dict(_ENTRY.iter_unpack(body[len(_HEAD) :]))
        log.warning("%s is ignored: torn, or written by another version; it is written anew", self._path)
        return {}
