"""What is remembered of mailboxes for good, in ``keep/`` of the state folder: that they were seen, and ids told.

One small JSON document for each mailbox, ``mailboxes/<SHA-256 of its path>``, and one for each folder that mailboxes
were seen in, ``roots/<SHA-256 of its path>``. Each is written completely or not at all, and checked when it is read:
one that is torn or not ours is ignored, and the log says so.

Blocking code, for a worker thread. Who writes a mailbox's record holds the mailbox's lock.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pop3d.system.state_folder import make_folders, sync_folder, write_durably

__all__ = ["MailboxRecord", "MailboxRecords", "ToldId"]

log = logging.getLogger("pop3d.mailbox_records")

_FORMAT: Final = 1
_TOLD_MAX: Final = 10_000  # ids told of one mailbox; only files that share the unique part of their name need one
_OCTETS_MAX: Final = 4 * 1024 * 1024  # of a document, which is read as a whole; an id told has some 200


@dataclass(frozen=True, slots=True)
class ToldId:
    """A unique-id told for one of several files that share the unique part of their name.

    ``unique``: that part; ``digest``: SHA-256 of the file's octets (32 octets); ``inode``: its number; ``uid``: the
    unique-id.
    """

    unique: bytes
    digest: bytes
    inode: int
    uid: bytes


@dataclass(frozen=True, slots=True)
class MailboxRecord:
    """A mailbox that was seen at ``path``. ``told``: oldest first. ``had_list``: it had another server's unique-ids."""

    path: str
    told: tuple[ToldId, ...] = ()
    had_list: bool = False


class MailboxRecords:
    """The records in ``keep``, a folder that is made when something is saved."""

    def __init__(self, keep: Path) -> None:
        self._mailboxes, self._roots = keep / "mailboxes", keep / "roots"

    def load(self, path: str) -> MailboxRecord | None:
        """What is kept of the mailbox at ``path``; None when it was never seen, or the record is not usable.

        Raises OSError when there may be a record that cannot be read.
        """
        return _mailbox(_file(self._mailboxes, path), path)

    def stamp(self, path: str) -> tuple[int, int] | None:
        """What changes whenever the record of the mailbox at ``path`` does; None when there is none. Raises OSError."""
        try:
            found = os.stat(_file(self._mailboxes, path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_ino, found.st_mtime_ns

    def save(self, record: MailboxRecord) -> None:
        """Keep a record in place of the old one. Raises OSError.

        Of more than 10,000 ids told, or more than 4 MiB, the oldest go.
        """
        told = [
            [one.unique.decode("latin-1"), one.digest.hex(), one.inode, one.uid.decode("latin-1")]
            for one in record.told[-_TOLD_MAX:]
        ]
        about = {"path": record.path, **({"had_list": True} if record.had_list else {})}
        while len(document := _document({**about, "told": told})) > _OCTETS_MAX:
            told = told[(len(told) + 1) // 2 :]
        _write(_file(self._mailboxes, record.path), document)

    def forget(self, path: str) -> bool:
        """Remove the record of a mailbox. Whether there was one. Raises OSError."""
        return _remove(_file(self._mailboxes, path))

    def below(self, root: str) -> Iterator[MailboxRecord]:
        """All mailboxes that were seen below a folder. Raises OSError."""
        beginning = root.rstrip("/") + "/"
        try:
            files = sorted(file for file in self._mailboxes.iterdir() if not file.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return
        for file in files:
            record = _mailbox(file)
            if record is not None and record.path.startswith(beginning):
                yield record

    def root_seen(self, root: str) -> bool:
        """Whether mailboxes were seen in the folder ``root``. Raises OSError as `load`."""
        found = _read(file := _file(self._roots, root))
        return found is not None and _is_of(file, found, root)

    def save_root(self, root: str) -> None:
        """Keep that mailboxes were seen in the folder ``root``. Raises OSError."""
        _write(_file(self._roots, root), _document({"path": root}))

    def forget_root(self, root: str) -> bool:
        """Remove the record of such a folder. Whether there was one. Raises OSError."""
        return _remove(_file(self._roots, root))


def _file(folder: Path, path: str) -> Path:
    # named by a hash, so that nothing in a user's name can matter to a path
    return folder / hashlib.sha256(os.fsencode(path)).hexdigest()


def _mailbox(file: Path, path: str | None = None) -> MailboxRecord | None:
    """The record in a file, of the mailbox at ``path`` if that is given."""
    found = _read(file)
    if found is None:
        return None
    try:
        told = tuple(
            ToldId(unique.encode("latin-1"), bytes.fromhex(digest), int(inode), uid.encode("latin-1"))
            for unique, digest, inode, uid in found["told"]
        )
        record = MailboxRecord(found["path"], told, found.get("had_list") is True)
    except (AttributeError, KeyError, TypeError, ValueError):
        _ignored(file, "not a record of a mailbox")
        return None
    return record if _is_of(file, found, record.path if path is None else path) else None


def _is_of(file: Path, found: dict[str, Any], path: str) -> bool:
    mine = found.get("path") == path and file.name == _file(file.parent, path).name
    if not mine:
        _ignored(file, "it is of another mailbox")
    return mine


def _document(content: dict[str, Any]) -> bytes:
    document = {"format": _FORMAT, "crc32": _checksum(content), "content": content}
    return json.dumps(document).encode("ascii") + b"\n"


def _write(file: Path, document: bytes) -> None:
    make_folders(file.parent)
    write_durably(file, document)


def _read(file: Path) -> dict[str, Any] | None:
    """The content of a document; None when there is none, or none of ours. Raises OSError."""
    try:
        with file.open("rb") as opened:
            octets = opened.read(_OCTETS_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        if len(octets) > _OCTETS_MAX:
            raise ValueError("too large")
        document = json.loads(octets)
        content = document["content"]
        if document["format"] == _FORMAT and document["crc32"] == _checksum(content) and isinstance(content, dict):
            return content
    except (KeyError, RecursionError, TypeError, ValueError):
        pass
    _ignored(file, "torn, or written by another program or a later version")
    return None


def _checksum(content: object) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode("ascii"))


def _ignored(file: Path, why: str) -> None:
    log.warning("%s is ignored: %s; it is written anew when the mailbox is seen again", file, why)


def _remove(file: Path) -> bool:
    try:
        file.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    sync_folder(file.parent)
    return True
