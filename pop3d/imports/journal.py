"""What was imported from one source into one mailbox, for good: an import that is run again brings what is missing.

One file for each pair, ``imports/<SHA-256 of both>`` in ``keep/`` of the state folder, of lines: a checksum, and JSON.
The first says what it is about. Then comes a line for each group of messages, durable before any of them is visible:
their keys, and what the destination needs to find out what became of them. The next line says that they were
published, so only the last group is ever in doubt. What a client has deleted since stays recorded, and does not come
again.

Blocking code. Whoever has a journal open has the mailbox for all imports of this machine (``import-locks/``).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from pop3d.stores.arriving import Intent
from pop3d.system.state_folder import make_folders, sync_folder

__all__ = ["DamagedJournal", "ImportJournal"]

_FORMAT: Final = 1
_KEY_OCTETS: Final = 16  # of a message's key, hashed: a million are 16 MiB, and no two of them are ever the same
_LINE_OCTETS_MAX: Final = 4 * 1024 * 1024  # a group has some hundred messages of some hundred octets each
_OCTETS_MAX: Final = 1024 * 1024 * 1024  # of a journal: some millions of messages
_LATELY: Final = 30 * 3600  # seconds; what is left over in a Maildir's tmp/ may be removed after 36 hours


class DamagedJournal(Exception):
    """A journal that cannot be believed; one line: what failed, why, what to do."""


class ImportJournal:
    """The journal of an import from ``source`` into ``mailbox``, in ``keep``; made when there is none.

    Both names are the same on each run. ``stamp``: kept with it, if it is new. ``again``: what was done counts no more.
    Raises OSError, BlockingIOError when another import into the mailbox is under way, `DamagedJournal`.

    Attributes: ``stamp``; ``count``: messages recorded so far, published or not; ``last``: what the destination said of
    the last group; ``in_doubt``: whether it is not known what became of that; ``lately``: whether the last was
    recorded within a day or so.
    """

    def __init__(self, keep: Path, mailbox: str, source: str, stamp: str, *, again: bool = False) -> None:
        self.path = keep / "imports" / _named(f"{mailbox}\0{source}")
        lock = keep / "import-locks" / _named(mailbox)
        for folder in (self.path.parent, lock.parent):
            make_folders(folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._lock = os.open(lock, flags, 0o600)
        self._file: BinaryIO = os.fdopen(os.open(self.path, flags, 0o600), "r+b")
        self._done: set[bytes] = set()
        self._doubted: list[bytes] = []
        self.stamp, self.count = stamp, 0
        self.last: Intent | None = None
        with contextlib.ExitStack() as undone:
            undone.callback(self.__exit__)
            # of the mailbox: two imports from different sources could bring the same unique-id
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(self._file.fileno())
            if found.st_size > _OCTETS_MAX:
                raise OSError(errno.EFBIG, f"it is larger than {_OCTETS_MAX} octets", str(self.path))
            self.lately = time.time() - found.st_mtime < _LATELY
            if again:
                self._file.truncate(0)
            self._read(mailbox, source)
            if not self._file.tell():
                self._append({"format": _FORMAT, "mailbox": mailbox, "source": source, "stamp": stamp})
                sync_folder(self.path.parent)
            undone.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        os.close(self._lock)

    def __contains__(self, key: object) -> bool:
        """Whether a message was imported."""
        return isinstance(key, bytes) and _hashed(key) in self._done

    def __len__(self) -> int:
        """How many messages were imported."""
        return len(self._done)

    @property
    def in_doubt(self) -> bool:
        """See `ImportJournal`."""
        return bool(self._doubted)

    def begin(self, keys: Sequence[bytes], intent: Intent) -> None:
        """Record a group that is about to be published. Durable; raises OSError, and then it is not recorded."""
        assert not self._doubted, "the group before is still in doubt"
        hashed = [_hashed(key) for key in keys]
        self._append({"keys": b"".join(hashed).hex(), "intent": intent})
        self._doubted, self.last = hashed, intent
        self.count += len(keys)

    def end(self) -> None:
        """The group was published. (The next line, or `close`, makes that durable; until then it can be found out.)"""
        self._settled([True] * len(self._doubted))
        self._write({"published": "all"})

    def settle(self, published: Sequence[bool]) -> None:
        """Record what became of each message of the group in doubt. Durable; raises OSError."""
        self._append({"published": [bool(one) for one in published]})
        self._settled(published)

    def _settled(self, published: Sequence[bool]) -> None:
        self._done.update(key for key, one in zip(self._doubted, published, strict=True) if one)
        self._doubted = []

    def _append(self, line: dict[str, Any]) -> None:
        at = self._file.tell()
        try:
            self._write(line)
            os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(at)
                self._file.seek(at)
            raise

    def _write(self, line: dict[str, Any]) -> None:
        text = json.dumps(line, separators=(",", ":")).encode("ascii")
        self._file.write(b"%08x %b\n" % (zlib.crc32(text), text))
        self._file.flush()

    def _read(self, mailbox: str, source: str) -> None:
        """Read all, and cut off a last line that a crash has torn: what it is about was never published."""
        self._file.seek(0)
        whole = 0
        while line := self._file.readline(_LINE_OCTETS_MAX):
            found = _parsed(line)
            if found is None:
                if self._file.read(1):  # nobody tears a line in the middle
                    self._refuse("it is damaged")
                break
            if not whole:
                if found.get("format") != _FORMAT or (found.get("mailbox"), found.get("source")) != (mailbox, source):
                    self._refuse("it is of another import, or of a later version")
                self.stamp = str(found["stamp"])
            else:
                self._take(found)
            whole += len(line)
        self._file.truncate(whole)
        self._file.seek(whole)

    def _take(self, found: dict[str, Any]) -> None:
        if (published := found.get("published")) is not None:
            self._settled([True] * len(self._doubted) if published == "all" else published)
            return
        self._settled([True] * len(self._doubted))  # or the next group would not have begun
        octets = bytes.fromhex(found["keys"])
        self._doubted = [octets[at : at + _KEY_OCTETS] for at in range(0, len(octets), _KEY_OCTETS)]
        self.last = found["intent"]
        self.count += len(self._doubted)

    def _refuse(self, why: str) -> None:
        remedy = "restore it from a backup, or give --again to import everything once more"
        raise DamagedJournal(f"{self.path}, which says what was imported: {why}; {remedy}")


def _named(what: str) -> str:
    # by a hash, so that nothing in a user's name can matter to a path
    return hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()


def _hashed(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:_KEY_OCTETS]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """What a line says; None where it is torn or damaged."""
    checksum, _, text = line.partition(b" ")
    try:
        if line.endswith(b"\n") and int(checksum, 16) == zlib.crc32(text[:-1]):
            found = json.loads(text)
            return found if isinstance(found, dict) else None
    except ValueError:
        pass
    return None
