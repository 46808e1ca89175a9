"""A store for pop3d: all mail in one SQLite database. docs/plugins.md goes through it.

[store]                                   in pop3d.toml; PYTHONPATH=examples pop3d serve
backend = "sqlite_store:SqliteStore"
[store.options]
database = "mail.db"

python examples/sqlite_store.py mail.db alice < message     delivers; makes the database when it is not there
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import secrets
import sqlite3
import sys
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from pop3core.answers import Content
from pop3core.framing import CrlfNormalizer
from pop3core.maildrop import Listing, PackedOctets
from pop3d.auth import Account
from pop3d.stores import MaildropBusy, RemovalFailed, StoreError
from pop3d.stores.threads import hop

T = TypeVar("T")

PIECE = 64 * 1024  # octets: the most that may be sent at once (`Limits.content_octets_max`)
BUSY_SECONDS = 10  # to wait for another who writes

# Messages lie there as they are sent, cut into pieces of PIECE octets, so that no piece of a large one costs more than
# another, and none is ever in memory whole. Numbers of messages are never used again, and ids are random: a client that
# knows an old one will not take a new message for it, even in a database made anew.
SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL, uid BLOB NOT NULL UNIQUE, octets INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS messages_of_a_user ON messages (user, id);
CREATE TABLE IF NOT EXISTS pieces (
    message INTEGER NOT NULL REFERENCES messages ON DELETE CASCADE, number INTEGER NOT NULL, octets BLOB NOT NULL,
    PRIMARY KEY (message, number));
"""


class Options(BaseModel):
    """``[store.options]``. What pydantic finds is told like any fault of the configuration."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    database: Path


class SqliteStore:
    """See `pop3d.stores.Store`."""

    def __init__(self, options: Mapping[str, Any], folder: Path) -> None:
        self._database = folder / Options.model_validate(options).database

    async def open(self, account: Account, *, utf8: bool) -> "SqliteMaildrop":
        """See `pop3d.stores.Store.open`."""
        drop = SqliteMaildrop(self._database, account.name)
        try:
            await asked(drop.fill)
        except BaseException:  # also when the client goes while the thread is at it: nobody else would free the lock
            await drop.close()
            raise
        return drop


class SqliteMaildrop:
    """See `pop3d.stores.Maildrop`. To be filled."""

    def __init__(self, database: Path, user: str) -> None:
        self._database, self._user = database, user
        self._lock: int | None = None
        self._ids = array("Q")  # of the messages in the database
        self.messages = Listing()

    def fill(self) -> None:
        """Lock and list. In a thread."""
        self._lock = locked(self._database, self._user)
        octets, uids = array("Q"), []
        with connected(self._database) as connection:
            question = "SELECT id, octets, uid FROM messages WHERE user = ? ORDER BY id"
            for number, size, uid in connection.execute(question, (self._user,)):
                self._ids.append(number)
                octets.append(size)
                uids.append(uid)
        self.messages = Listing(octets, PackedOctets(uids))

    async def read(self, number: int, offset: int) -> Content:
        """See `pop3d.stores.Maildrop.read`."""
        return await asked(self._read, number, offset)

    def _read(self, number: int, offset: int) -> Content:
        """In a thread."""
        if not self.messages.sizes[number - 1]:
            return Content(b"", last=True)
        where = self._ids[number - 1], offset // PIECE
        with connected(self._database) as connection:
            row = connection.execute("SELECT octets FROM pieces WHERE message = ? AND number = ?", where).fetchone()
        if row is None:
            raise StoreError("this message is gone", code="SYS/PERM", detail=f"message {where[0]} is gone")
        return Content(row[0], last=offset + len(row[0]) >= self.messages.sizes[number - 1])

    async def remove(self, numbers: Collection[int]) -> None:
        """See `pop3d.stores.Maildrop.remove`. All are removed, or none."""
        try:
            await asked(self._remove, [self._ids[number - 1] for number in numbers])
        except StoreError as fault:
            raise RemovalFailed(numbers, fault.detail) from None

    def _remove(self, ids: list[int]) -> None:
        """In a thread. What was committed is on the disk: see `connected`."""
        with connected(self._database) as connection, connection:
            connection.executemany("DELETE FROM messages WHERE id = ?", ((number,) for number in ids))

    async def close(self) -> None:
        """See `pop3d.stores.Maildrop.close`."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)  # waits for nothing


async def asked(work: Callable[..., T], *arguments: object) -> T:
    """Run ``work`` in a thread, for SQLite waits for disks and for other writers. Its troubles become `StoreError`."""
    try:
        return await hop(work, *arguments)
    except (sqlite3.Error, OSError) as fault:
        raise StoreError("the mailbox cannot be reached now", detail=str(fault)) from None


@contextlib.contextmanager
def connected(database: Path, mode: str = "rw") -> Iterator[sqlite3.Connection]:
    """A connection for one hop. It costs about what a hop does, and nothing stays open while a client thinks.

    ``mode``: "rwc" makes the database when it is not there, which no session should: its mail would seem to be gone.
    """
    uri = f"{database.absolute().as_uri()}?mode={mode}"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = EXTRA")  # a commit outlasts a power cut, its folder entry included
        yield connection


def locked(database: Path, user: str) -> int:
    """The lock of one mailbox: `flock` on a file beside the database. Raises `MaildropBusy`.

    It holds between processes and goes with its holder, which a row in a table would not. Its name is a hash, so that
    nothing in a user's name matters to a path. The empty file stays: who removes one that another has just opened
    leaves two holders.
    """
    name = f"{database.name}.lock-{hashlib.sha256(user.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"
    lock = os.open(database.with_name(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise MaildropBusy from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def deliver(database: Path, user: str, message: Iterable[bytes]) -> None:
    """Put a message, in pieces with any line ends, into a mailbox. Raises sqlite3.Error."""
    with connected(database, "rwc") as connection:
        connection.executescript(SCHEMA)
        with connection:
            row = (user, secrets.token_hex(16).encode())
            made = connection.execute("INSERT INTO messages (user, uid, octets) VALUES (?, ?, 0)", row).lastrowid
            octets = 0
            for number, piece in enumerate(pieces(message)):
                connection.execute("INSERT INTO pieces VALUES (?, ?, ?)", (made, number, piece))
                octets += len(piece)
            connection.execute("UPDATE messages SET octets = ? WHERE id = ?", (octets, made))


def pieces(message: Iterable[bytes]) -> Iterator[bytes]:
    """A message as it is sent, in pieces of PIECE octets; the last one may be shorter."""
    content, held = CrlfNormalizer(), b""
    for data in message:
        held += content.feed(data)
        while len(held) >= PIECE:
            yield held[:PIECE]
            held = held[PIECE:]
    for rest in (held + content.finish(),):
        for start in range(0, len(rest), PIECE):
            yield rest[start : start + PIECE]


def main() -> None:
    """Deliver a message from standard input."""
    parser = argparse.ArgumentParser(description="Deliver a message from standard input into a database.")
    parser.add_argument("database", type=Path)
    parser.add_argument("user")
    options = parser.parse_args()
    try:
        deliver(options.database, options.user, iter(lambda: sys.stdin.buffer.read(PIECE), b""))
    except sqlite3.Error as fault:
        sys.exit(f"not delivered: {options.database}: {fault}; try again later")


if __name__ == "__main__":
    main()
