"""Mail into PostgreSQL, blocking: for `pop3d deliver` and `pop3d import`, and for threads.

The size of a message is known, and its quota checked, before anything is stored. So it is kept on its way: in memory
while it is small, beyond that in a file without a name, from which it is sent in pieces (COPY).
"""

from __future__ import annotations

import contextlib
import struct
import tempfile
import threading
from collections.abc import Iterable, Iterator
from typing import IO, Final

import psycopg
from psycopg.rows import TupleRow

from pop3core.framing import CrlfNormalizer
from pop3d.postgres import DURABLE, TIMEOUT, DatabaseFault, bounded, one_line, settings, silent, ways
from pop3d.stores.postgres.locks import key
from pop3d.stores.quota import Quota

__all__ = [
    "IN_MEMORY_MAX",
    "MESSAGE_OCTETS_MAX",
    "OCTETS_A_SECOND",
    "check_quota",
    "deliver",
    "lock_holder",
    "usage",
    "whole_text",
]

MESSAGE_OCTETS_MAX: Final = 256 * 1024 * 1024
"""The largest message that `deliver` takes: PostgreSQL wants it in memory, a few times, and so does pg_dump."""

IN_MEMORY_MAX: Final = 1024 * 1024
"""Octets of a message that `deliver` keeps in memory; nearly all messages are smaller."""

_PIECE: Final = 256 * 1024  # octets sent at a time
_KEPT: Final = 5.0  # seconds that a connection is kept for the next delivery
_PATIENCE: Final = 1.0  # seconds for one that was kept to answer, before a new one is made

# PostgreSQL, "COPY", "Binary Format": signature, flags, no extension; then a row's count of columns, each with its size
_COPY: Final = b"copy pop3_messages (mailbox, content) from stdin (format binary)"
_COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack("!iih", 0, 0, 2)
_COPY_END: Final = struct.pack("!h", -1)

OCTETS_A_SECOND: Final = 1024 * 1024
"""What a database takes at least; for larger messages a delivery gets more time."""


def deliver(
    conninfo: str,
    mailbox: str,
    content: Iterable[bytes],
    quota: Quota | None = None,
    timeout: float = TIMEOUT,
    *,
    folder: str | None = None,
    keep: bool = False,
) -> None:
    """Deliver a message, in pieces of any size; it is there whole and durable, or not at all. Blocking.

    ``folder``: where a large message is kept on its way; None: where temporary files are. ``keep``: the connection is
    left open for a while, for the next delivery of this process. The database has ``timeout`` seconds, and another one
    for each MiB. Raises `pop3d.stores.quota.OverQuota`, `DatabaseFault` (the message may be there all the same,
    when its last answer was lost), OSError of the folder, and ValueError for more than `MESSAGE_OCTETS_MAX`.
    """
    with tempfile.SpooledTemporaryFile(IN_MEMORY_MAX, dir=folder) as kept:
        octets = 0
        for piece in _stored_pieces(content):
            octets += kept.write(piece)
        kept.seek(0)
        seconds = timeout + octets // OCTETS_A_SECOND
        with _connected(conninfo, timeout, seconds, keep=keep) as connection:
            check_quota(connection, mailbox, quota or Quota(), 1, octets)
            _insert(connection, mailbox, kept, octets)
            connection.commit()


def usage(conninfo: str, mailbox: str, timeout: float = TIMEOUT) -> tuple[int, int]:
    """Messages in a mailbox, and their octets. Blocking. Raises `DatabaseFault`."""
    with _connected(conninfo, timeout, timeout) as connection:
        return _counted(connection, mailbox)


_HOLDER: Final = (
    "select pid, host(client_addr) from pg_locks join pg_stat_activity using (pid)"
    " where locktype = 'advisory' and granted and objsubid = 1"
    " and (classid::bigint << 32 | objid::bigint) = %s::bigint"
    " and database = (select oid from pg_database where datname = current_database())"
)


def lock_holder(conninfo: str, mailbox: str, timeout: float = TIMEOUT) -> tuple[int, str | None] | None:
    """The server process and the address of the node whose connection has a mailbox's lock; None when it is free.

    The address is None behind a Unix socket, and where the role may not see it. Blocking. Raises `DatabaseFault`.
    """
    with _connected(conninfo, timeout, timeout) as connection:
        row = connection.execute(_HOLDER, (key(mailbox),)).fetchone()
    return None if row is None else (row[0], row[1])


@contextlib.contextmanager
def _connected(
    conninfo: str, timeout: float, seconds: float, *, keep: bool = False
) -> Iterator[psycopg.Connection[TupleRow]]:
    """A connection for as long as that, in a transaction; ``timeout``: to connect. Raises `DatabaseFault`."""
    late = threading.Event()
    begin = f"{settings(seconds)}; {DURABLE}".encode()
    try:
        connection = _kept.taken(conninfo, begin) if keep else None
        began = connection is not None
        if connection is None:
            connection = psycopg.connect(conninfo, application_name="pop3d deliver", **ways(conninfo, timeout))
        try:
            with bounded(connection, seconds, late):
                if not began:
                    connection.execute(begin)
                yield connection
        except BaseException:
            connection.close()
            raise
        if keep:
            _kept.give(conninfo, connection)
        else:
            connection.close()
    except psycopg.Error as fault:
        raise DatabaseFault(silent(seconds) if late.is_set() else one_line(fault)) from None


class _KeptConnections:
    """Connections that are free, each for `_KEPT` seconds: to make one takes twenty times what a delivery takes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: dict[str, list[tuple[psycopg.Connection[TupleRow], threading.Timer]]] = {}

    def taken(self, conninfo: str, begin: bytes) -> psycopg.Connection[TupleRow] | None:
        """One that has begun its transaction; None when there is none that still answers."""
        while True:
            with self._lock:
                if not (free := self._free.get(conninfo)):
                    return None
                connection, timer = free.pop()  # the last one, so that others are given up
            timer.cancel()
            try:
                with bounded(connection, _PATIENCE, threading.Event()):
                    connection.execute(begin)
            except psycopg.Error:
                connection.close()
            else:
                return connection

    def give(self, conninfo: str, connection: psycopg.Connection[TupleRow]) -> None:
        """It is free, and nothing is under way on it."""
        timer = threading.Timer(_KEPT, self._give_up, (conninfo, connection))
        timer.daemon = True
        with self._lock:
            self._free.setdefault(conninfo, []).append((connection, timer))
        timer.start()

    def _give_up(self, conninfo: str, connection: psycopg.Connection[TupleRow]) -> None:
        with self._lock:
            free = self._free[conninfo]
            mine = [one for one in free if one[0] is connection]
            for one in mine:
                free.remove(one)
        if mine:  # else somebody has taken it
            connection.close()


_kept = _KeptConnections()


def whole_text(content: Iterable[bytes]) -> bytearray:
    """A message as it is stored, and sent. Raises ValueError for more than `MESSAGE_OCTETS_MAX`."""
    whole = bytearray()
    for piece in _stored_pieces(content):
        whole += piece
    return whole


def _stored_pieces(content: Iterable[bytes]) -> Iterator[bytes]:
    """A message's pieces as they are stored, and sent. Raises ValueError behind `MESSAGE_OCTETS_MAX`."""
    octets = 0
    for stored in _as_sent(content):
        octets += len(stored)
        if octets > MESSAGE_OCTETS_MAX:
            raise ValueError(f"a message of more than {MESSAGE_OCTETS_MAX} octets is not taken")
        yield stored


def _as_sent(content: Iterable[bytes]) -> Iterator[bytes]:
    text = CrlfNormalizer()
    yield from map(text.feed, content)
    yield text.finish()


def _insert(connection: psycopg.Connection[TupleRow], mailbox: str, kept: IO[bytes], octets: int) -> None:
    if octets <= IN_MEMORY_MAX:
        connection.execute("insert into pop3_messages (mailbox, content) values (%s, %b)", (mailbox, kept.read()))
        return
    name = mailbox.encode()
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.write(_COPY_HEAD + struct.pack("!i", len(name)) + name + struct.pack("!i", octets))
        while piece := kept.read(_PIECE):
            copy.write(piece)
        copy.write(_COPY_END)


def check_quota(
    connection: psycopg.Connection[TupleRow], mailbox: str, quota: Quota, messages: int, octets: int
) -> None:
    """Raises `pop3d.stores.quota.OverQuota` when there is no room for so much more. To the end of the transaction it is
    nobody else's.
    """
    if not (quota.octets or quota.messages):
        return
    # others that deliver here wait: two must not find the same room
    connection.execute("select pg_advisory_xact_lock(%s::bigint)", (key(f"{mailbox}\0quota"),))
    quota.check(*_counted(connection, mailbox), octets, messages)


def _counted(connection: psycopg.Connection[TupleRow], mailbox: str) -> tuple[int, int]:
    row = connection.execute(
        "select count(*), coalesce(sum(octets), 0)::bigint from pop3_messages where mailbox = %s", (mailbox,)
    ).fetchone()
    assert row is not None
    return row[0], row[1]
